"""Tickets of the media socket: one call, one socket, and a refusal comes before the socket opens.

How long a ticket lives is for the unit tests: the clock of a process cannot be moved from outside.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack

import pytest

from tests.fakes.media_leg import Faults
from tests.fakes.signing import Forgery
from tests.fakes.sockets import Closed, Refused, WebSocket, connect
from tests.fakes.stage import Stage
from tests.fakes.waiting import eventually
from tests.integration.support import (
    Rows,
    Shared,
    ask_answer,
    bearer,
    connects,
    hang_up,
    media_uri,
    new_uuid,
    shared_stage,
    tell,
    token,
)

FRAME = b"\0" * 640


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


@pytest.fixture(scope="module")
def strict() -> Iterator[Shared]:
    """The handshake must carry Vonage's own token."""
    with shared_stage(env={"VONAGE_MEDIA_AUTH": "required"}) as running:
        yield running


async def knock(uri: str, headers: Mapping[str, str] | None = None) -> WebSocket | int:
    """The open socket, or the HTTP status of the refusal."""
    try:
        return await connect(uri, headers)
    except Refused as refused:
        return refused.status


async def let_in(s: Stage, uri: str, headers: Mapping[str, str] | None = None) -> WebSocket:
    """A socket that was let in and carries audio; a refusal fails the test."""
    socket = await knock(uri, s.vonage.credentials.authorization() if headers is None else headers)
    assert isinstance(socket, WebSocket), f"refused with {socket}"
    first = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000"}
    await socket.send(json.dumps(first))
    await socket.send(FRAME)
    while not isinstance(await asyncio.wait_for(socket.receive(), 5), bytes):
        pass
    return socket


async def heard_out(socket: WebSocket) -> None:
    """Read until it is closed, as a phone does: a close frame wants its answer within a second."""
    with contextlib.suppress(Closed):
        while True:
            await socket.receive()


async def ticket_for(s: Stage, call_uuid: str) -> str:
    """The address of the media socket of a new call."""
    return media_uri(connects(await ask_answer(s, call_uuid)))


def _forgeries(uri: str, other: str) -> dict[str, str]:
    base, _, ticket = uri.rpartition("/")
    _, _, other_ticket = other.rpartition("/")
    payload, sign, signature = ticket.partition(":")
    other_payload, _, other_signature = other_ticket.partition(":")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    later = [claims[0], claims[1] + 1, *claims[2:]] if isinstance(claims, list) else {}
    made = base64.urlsafe_b64encode(json.dumps(later).encode()).rstrip(b"=").decode()
    return {
        "nothing": f"{base}/",
        "no media path": base,
        "a word": f"{base}/hello",
        "cut at the end": uri[:-1],
        "cut at the beginning": f"{base}/{ticket[1:]}",
        "half of it": f"{base}/{ticket[: len(ticket) // 2]}",
        "one sign more": f"{uri}A",
        "one sign changed": uri[:-5] + ("A" if uri[-5] != "A" else "B") + uri[-4:],
        "only what it says": f"{base}/{payload}",
        "only its signature": f"{base}/{sign}{signature}",
        "signed with another call's signature": f"{base}/{payload}{sign}{other_signature}",
        "another call's claims": f"{base}/{other_payload}{sign}{signature}",
        "the next one, made up": f"{base}/{made}{sign}{signature}",
        "twice in the path": f"{base}/{ticket}/{ticket}",
        "with a slash behind it": f"{uri}/",
        "very long": f"{base}/{'x' * 6000}",
        "escaped nonsense": f"{base}/%00%ff%0a",
    }


def test_forged_tickets_are_refused_before_the_socket_opens(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        one, two = new_uuid(), new_uuid()
        uri, other = await ticket_for(s, one), await ticket_for(s, two)
        before = (await s.server.ahealth("/api/health?node=self"))["sessions"]["active_count"]
        for name, forged in _forgeries(uri, other).items():
            for headers in ({}, s.vonage.credentials.authorization()):
                answer = await knock(forged, headers)
                assert answer in (400, 403, 404, 414), f"{name}: {answer}"
        after = (await s.server.ahealth("/api/health?node=self"))["sessions"]["active_count"]
        assert after == before
        # After all that the real ones still open, each its own call.
        for call_uuid, good in ((one, uri), (two, other)):
            socket = await let_in(s, good)
            row = Rows.of(s.server).call(call_uuid)
            assert row["uuid"] == call_uuid
            await socket.close()
        await hang_up(s, one, two)

    shared.run(scenario())


ELSEWHERE = (
    "/", "/media", "/media/", "/ws/", "/ws/browser-call/x", "/admin/", "/api/health", "/x" * 500,
)  # fmt: skip


@pytest.mark.parametrize("path", ELSEWHERE)
def test_sockets_to_other_addresses_are_refused(shared: Shared, path: str) -> None:
    s = shared.stage
    base = s.server.url.replace("http", "ws", 1)

    async def scenario() -> None:
        for headers in ({}, s.vonage.credentials.authorization()):
            answer = await knock(f"{base}{path}", headers)
            assert answer in (400, 403, 404), answer
        assert not [line.text for line in s.server.log if "Traceback" in line.text]

    shared.run(scenario())


def test_a_ticket_opens_one_socket_and_the_first_stays(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            for _ in range(3):
                assert await phone.knock() == 403
            assert await phone.knock(authorization={}) == 403
            conn = await s.connection_of(phone)
            heard_s = time.monotonic()
            await conn.caller_said("Are you still there?")
            await phone.wait_for_voice(since_s=heard_s)
            assert phone.media.open
        # Not after the end either.
        assert await phone.knock() == 403
        assert s.violations() == []

    shared.run(scenario())


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_sockets_at_once_exactly_one_is_let_in(shared: Shared, attempt: int) -> None:
    s, call_uuid = shared.stage, new_uuid()

    async def scenario() -> None:
        uri = await ticket_for(s, call_uuid)
        headers = s.vonage.credentials.authorization()
        answers = await asyncio.gather(*(knock(uri, headers) for _ in range(8)))
        sockets = [answer for answer in answers if isinstance(answer, WebSocket)]
        refusals = [answer for answer in answers if not isinstance(answer, WebSocket)]
        assert len(sockets) == 1, answers
        assert refusals == [403] * 7
        await sockets[0].send(FRAME)
        while not isinstance(await asyncio.wait_for(sockets[0].receive(), 5), bytes):
            pass
        await sockets[0].close()
        await Rows.of(s.server).ended(call_uuid)

    shared.run(scenario())


WRONG = [
    Forgery.NOT_A_TOKEN, Forgery.WRONG_SECRET, Forgery.NO_ALGORITHM, Forgery.OTHER_ISSUER,
    Forgery.OTHER_KEY, Forgery.OTHER_APPLICATION, Forgery.TOO_OLD, Forgery.FROM_THE_FUTURE,
]  # fmt: skip


def test_a_wrong_authorization_is_refused_and_spends_nothing(shared: Shared) -> None:
    s, call_uuid = shared.stage, new_uuid()

    async def scenario() -> None:
        uri = await ticket_for(s, call_uuid)
        wrong = [s.vonage.credentials.authorization(forgery=forgery) for forgery in WRONG]
        wrong += [{"Authorization": text} for text in ("Basic abc", "Bearer", "x")]
        rs256 = token(
            s.vonage.credentials, secret=s.vonage.credentials.private_key_pem, algorithm="RS256"
        )
        for headers in [*wrong, bearer(rs256)]:
            assert await knock(uri, headers) == 403, headers
        socket = await let_in(s, uri)
        await socket.close()
        await Rows.of(s.server).ended(call_uuid)
        assert uri.rpartition("/")[2] not in "\n".join(line.text for line in s.server.log)

    shared.run(scenario())


def test_without_authorization_the_ticket_alone_is_enough_by_default(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call(faults=Faults(no_handshake_token=True)) as phone:
            await phone.wait_for_voice()
        assert s.violations() == []

    shared.run(scenario())


def test_where_authorization_is_required_none_is_refused_and_spends_nothing(
    strict: Shared,
) -> None:
    s, call_uuid = strict.stage, new_uuid()

    async def scenario() -> None:
        uri = await ticket_for(s, call_uuid)
        assert await knock(uri, {}) == 403
        for forgery in WRONG:
            assert await knock(uri, s.vonage.credentials.authorization(forgery=forgery)) == 403
        socket = await let_in(s, uri)
        assert await knock(uri, s.vonage.credentials.authorization()) == 403
        await socket.close()
        async with s.call() as phone:
            await phone.wait_for_voice()
        # Refused, the caller hears words.
        async with s.call(faults=Faults(no_handshake_token=True)) as phone:
            await phone.wait_for_talk()
            await phone.wait_ended()
            assert phone.refusals == [403]
        assert s.violations() == []

    strict.run(scenario())


def test_each_ticket_of_a_live_call_takes_the_place_of_the_one_before(shared: Shared) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            spent: list[str] = []
            sockets: list[WebSocket] = []
            for _ in range(4):
                uri = await ticket_for(s, call_uuid)
                assert uri not in spent
                assert await ticket_for(s, call_uuid) == uri
                for old in spent:
                    assert await knock(old, s.vonage.credentials.authorization()) == 403
                if sockets:
                    assert not sockets[-1].closed.is_set()
                async with asyncio.TaskGroup() as reading:
                    if sockets:
                        reading.create_task(heard_out(sockets[-1]))
                    newcomer = await let_in(s, uri)
                stack.push_async_callback(newcomer.close)
                assert all(former.close_code == 1000 for former in sockets)
                sockets.append(newcomer)
                spent.append(uri)
            uuids = s.server.health("/api/health?node=self")["sessions"]["uuids"]
            assert uuids.count(call_uuid) == 1
            assert rows.call(call_uuid)["ended_at"] is None
            await tell(s, call_uuid, "completed")
            await rows.ended(call_uuid)
            lines = s.server.lines_of(call_uuid)
            assert sum("Cleaning up existing session" in line for line in lines) == 3
            assert sum("Starting session cleanup" in line for line in lines) == 4
            assert sum("Session removed" in line for line in lines) == 4
        await eventually("nothing open at the model", lambda: s.openai.open_sockets == 0)

    shared.run(scenario())


def test_what_was_said_before_a_renewal_stays_on_the_row(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)
    said = ("My name is Ada.", "I ring about the engine.", "It is analytical.")

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            for text in said:
                former = phone.media
                conn = s.openai.connections[-1]
                await conn.wait_configured()
                await conn.caller_said(text)
                await phone.redial()
                await eventually("the next socket", lambda: phone.media is not former)  # noqa: B023
                await phone.wait_for_voice(since_s=phone.media.opened_s or 0.0)
        row = await rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        kept = rows.ask(
            "SELECT text FROM sessions_app_transcriptturn WHERE call_id = ? AND speaker = ?",
            row["id"],
            "caller",
        )
        assert [turn["text"] for turn in kept] == list(said)
        assert row["ticket_claimed"] == row["ticket_generation"] == 4
        lines = "\n".join(line.text for line in s.server.log)
        assert "was refused and dropped" not in lines

    shared.run(scenario())


def test_two_renewals_at_once_leave_one_living_socket(shared: Shared) -> None:
    """A retry's ticket and a double use of it, while the first socket talks."""
    s, call_uuid = shared.stage, new_uuid()

    async def scenario() -> None:
        first = await let_in(s, await ticket_for(s, call_uuid))
        uri = await ticket_for(s, call_uuid)
        headers = s.vonage.credentials.authorization()
        answers = await asyncio.gather(*(knock(uri, headers) for _ in range(5)))
        sockets = [answer for answer in answers if isinstance(answer, WebSocket)]
        assert len(sockets) == 1, answers
        await first.close(timeout_s=2)
        await sockets[0].send(FRAME)
        while not isinstance(await asyncio.wait_for(sockets[0].receive(), 5), bytes):
            pass
        await sockets[0].close()
        await Rows.of(s.server).ended(call_uuid)

    shared.run(scenario())


def test_a_socket_that_says_nothing_holds_no_more_than_its_own_call(shared: Shared) -> None:
    """A peer that vanishes in the middle of the handshake, or right behind it."""
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        for _ in range(5):
            call_uuid = new_uuid()
            uri = await ticket_for(s, call_uuid)
            socket = await knock(uri, s.vonage.credentials.authorization())
            assert isinstance(socket, WebSocket)
            socket.abort()
            row = await rows.ended(call_uuid)
            assert row["end_reason"] in ("media_lost", "caller_hung_up")
        for _ in range(5):
            call_uuid = new_uuid()
            uri = await ticket_for(s, call_uuid)
            host, port = "127.0.0.1", s.server.port
            path = uri.split(f":{port}", 1)[1]
            _, writer = await asyncio.open_connection(host, port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            await writer.drain()
            writer.transport.abort()
            await hang_up(s, call_uuid)
            await rows.ended(call_uuid)
        await eventually("the slots", lambda: s.server.active_count() == 0)
        await eventually("nothing open at the model", lambda: s.openai.open_sockets == 0)

    shared.run(scenario())
