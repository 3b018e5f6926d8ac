"""The requests of the benchmarks are read as what they are, and answers as what they were."""

from __future__ import annotations

import asyncio

from benchmarks.webhooks import Client, request
from tests.fakes.web import Exchange, WebServer


async def _serve(exchange: Exchange) -> None:
    match exchange.request.path:
        case "/whole":
            await exchange.reply(201, exchange.request.body, "text/plain")
        case "/target":
            await exchange.reply(200, exchange.request.target, "text/plain")
        case "/close":
            await exchange.reply(200, b"bye", "text/plain", {"Connection": "close"})
        case "/nothing":
            await exchange.reply(204)
        case "/chunks":
            await exchange.begin(200, "text/plain")
            for piece in (b"first ", b"0\r\n", b"last"):
                await exchange.send(piece)
                await asyncio.sleep(0)
            await exchange.end()
        case "/cut":
            await exchange.begin(200, "text/plain")
            await exchange.send(b"first ")
            exchange.cut()


def test_answers_of_every_form_are_read_over_one_connection_and_a_dropped_one_is_told() -> None:
    async def story() -> None:
        async with WebServer(_serve) as server:
            client = Client(server.url)
            got = {}
            for path in ("/whole", "/nothing", "/chunks", "/whole"):
                asked = request("POST", server.url + path, {"X-Some": "thing"}, b"body")
                got[path] = await client.ask(asked)
                assert server.open_connections == 1
            assert (got["/whole"].status, got["/whole"].body) == (201, b"body")
            assert (got["/nothing"].status, got["/nothing"].body) == (204, b"")
            chunks = got["/chunks"]
            assert (chunks.status, chunks.body) == (200, b"first 0\r\nlast")
            asked = await client.ask(request("GET", server.url + "/target?with=query", {}))
            assert asked.body == b"/target?with=query"
            closed = await client.ask(request("POST", server.url + "/close", {}))
            assert (closed.status, closed.body) == (200, b"bye")
            assert (await client.ask(request("POST", server.url + "/whole", {}))).status == 201
            cut = await client.ask(request("GET", server.url + "/cut", {}))
            assert cut.status == 0
            again = await client.ask(request("POST", server.url + "/whole", {}, b"more"))
            assert again.body == b"more"
            client.close()

    asyncio.run(story())
