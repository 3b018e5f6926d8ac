from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes.sockets import Closed, Refused, WebSocket, connect
from tests.fakes.waiting import NeverHappenedError, eventually
from tests.fakes.web import ClientGone, Exchange, Upgrade, WebServer


async def echo(exchange: Exchange) -> None:
    await exchange.reply(200, {"body": exchange.request.body.decode()})


async def never(exchange: Exchange) -> None:
    await exchange.pause(60)


def ws(server: WebServer) -> str:
    return server.url.replace("http", "ws") + "/socket"


def test_it_answers_one_request_after_another_on_a_connection() -> None:
    async def scenario() -> None:
        async with WebServer(echo) as server, httpx.AsyncClient() as client:
            for text in ("one", "two"):
                assert (await client.post(server.url, content=text)).json() == {"body": text}
            assert server.open_connections == 1

    asyncio.run(scenario())


def test_it_reads_a_chunked_body() -> None:
    async def scenario() -> None:
        async with WebServer(echo) as server, httpx.AsyncClient() as client:

            async def parts() -> AsyncIterator[bytes]:
                yield b"one "
                yield b"two"

            reply = await client.post(server.url, content=parts())
            assert reply.json() == {"body": "one two"}

    asyncio.run(scenario())


def test_a_client_that_leaves_in_the_middle_is_noticed() -> None:
    gone = asyncio.Event()

    async def drip(exchange: Exchange) -> None:
        await exchange.begin(200, "audio/pcm")
        try:
            while True:
                await exchange.send(b"..")
                await exchange.pause(0.01)
        except ClientGone:
            gone.set()
            raise

    async def scenario() -> None:
        async with WebServer(drip) as server, httpx.AsyncClient() as client:
            async with client.stream("GET", server.url) as reply:
                async for _ in reply.aiter_raw():
                    break
            await asyncio.wait_for(gone.wait(), 5)
            await eventually("the connection's end", lambda: server.open_connections == 0)

    asyncio.run(scenario())


def test_a_response_can_be_cut() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin(200, "audio/pcm")
        await exchange.send(b"half")
        exchange.cut()

    async def scenario() -> None:
        async with WebServer(cut) as server, httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(server.url)

    asyncio.run(scenario())


def test_stopping_ends_everything_and_starting_takes_the_same_address() -> None:
    async def scenario() -> None:
        async with WebServer(never) as server, httpx.AsyncClient() as client:
            url = server.url
            pending = asyncio.create_task(client.get(url))
            await eventually("the request", lambda: server.in_flight == 1)
            await server.stop()
            with pytest.raises(httpx.TransportError):
                await pending
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
            await server.start()
            assert server.url == url

    asyncio.run(scenario())


def test_a_mistake_of_the_stand_in_itself_is_raised() -> None:
    async def broken(exchange: Exchange) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with WebServer(broken) as server, httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(server.url)

    with pytest.raises(ExceptionGroup):
        asyncio.run(scenario())


def test_messages_go_both_ways_and_the_close_code_is_told() -> None:
    async def talk(upgrade: Upgrade) -> None:
        socket = await upgrade.accept()
        await socket.send(await socket.receive())
        await socket.send(await socket.receive())
        await socket.close(4001)

    async def scenario() -> None:
        async with WebServer(echo, talk) as server:
            socket = await connect(ws(server))
            await socket.send("text")
            assert await socket.receive() == "text"
            await socket.send(b"\0" * 100_000)
            assert await socket.receive() == b"\0" * 100_000
            with pytest.raises(Closed) as closed:
                await socket.receive()
            assert closed.value.code == 4001
            assert socket.closed_by_peer

    asyncio.run(scenario())


def test_a_peer_that_vanishes_is_seen_as_1006() -> None:
    async def scenario() -> None:
        seen: list[int | None] = []

        async def listen(upgrade: Upgrade) -> None:
            socket = await upgrade.accept()
            try:
                await socket.receive()
            finally:
                seen.append(socket.close_code)

        async with WebServer(echo, listen) as server:
            (await connect(ws(server))).abort()
            await eventually("the end", lambda: seen)
        assert seen == [1006]

    asyncio.run(scenario())


def test_a_refused_handshake_brings_its_status_and_body() -> None:
    async def refuse(upgrade: Upgrade) -> None:
        await upgrade.refuse(429, b'{"error": {"code": "insufficient_quota"}}')

    async def scenario() -> None:
        async with WebServer(echo, refuse) as server:
            with pytest.raises(Refused) as refused:
                await connect(ws(server))
            assert (refused.value.status, b"quota" in refused.value.body) == (429, True)

    asyncio.run(scenario())


def test_a_message_in_fragments_is_whole_but_counted() -> None:
    async def scenario() -> None:
        got: list[tuple[str | bytes, int]] = []

        async def listen(upgrade: Upgrade) -> None:
            socket = await upgrade.accept()
            got.append((await socket.receive(), socket.fragmented))

        async with WebServer(echo, listen) as server:
            socket = await connect(ws(server))
            _send_in_two(socket, b"ab", b"cd")
            await eventually("the message", lambda: got)
            socket.abort()
        assert got == [(b"abcd", 1)]

    asyncio.run(scenario())


def _send_in_two(socket: WebSocket, first: bytes, second: bytes) -> None:
    socket._protocol.send_binary(first, fin=False)
    socket._protocol.send_continuation(second, fin=True)
    socket.absorb()


def test_what_never_happens_is_told_in_words() -> None:
    with pytest.raises(NeverHappenedError, match=r"waited 0.02 s for rain"):
        asyncio.run(eventually("rain", lambda: False, timeout_s=0.02))
