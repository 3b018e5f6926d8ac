"""The socket behind the page: who may open it, and what closes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.browsing import Staff, add_admin, sandbox_server
from tests.fakes import sockets
from tests.fakes.server import RunningServer
from tests.fakes.waiting import eventually

pytestmark = pytest.mark.timeout(120)

SOON_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with sandbox_server() as running:
        add_admin(running)
        add_admin(running, "second")
        yield running


@pytest.fixture
def staff(server: RunningServer) -> Iterator[Staff]:
    with Staff(server) as somebody:
        yield somebody


async def dial(
    server: RunningServer, path: str, cookies: str, origin: str | None
) -> sockets.WebSocket:
    headers = {"Cookie": cookies, "Origin": origin or ""}
    given = {name: value for name, value in headers.items() if value}
    return await sockets.connect(f"ws://127.0.0.1:{server.port}{path}", given, SOON_S)


def refusal(server: RunningServer, path: str, cookies: str, origin: str | None) -> int:
    """The HTTP status of a handshake that is refused; 101 if it is not."""

    async def scenario() -> int:
        try:
            socket = await dial(server, path, cookies, origin)
        except sockets.Refused as refused:
            return refused.status
        await socket.close()
        return 101

    return asyncio.run(scenario())


def conversation(
    server: RunningServer, staff: Staff, sent: str | bytes
) -> tuple[list[dict[str, Any]], int]:
    """What the page is told from its opening to its close, and the close code.

    It sends this when it is connected.
    """
    path, told = staff.ticket(), []

    async def scenario() -> int:
        socket = await dial(server, path, staff.cookies, server.url)
        try:
            async with asyncio.timeout(SOON_S):
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        continue
                    told.append(json.loads(message))
                    if told[-1]["type"] == "phone.connected":
                        await socket.send(sent)
        except sockets.Closed as closed:
            return closed.code
        finally:
            await socket.close()

    code = asyncio.run(scenario())
    return told, code


def test_a_ticket_opens_one_socket_of_its_login_from_our_own_pages(
    server: RunningServer, staff: Staff
) -> None:
    path = staff.ticket()
    for origin in (None, "http://evil.example", "null"):
        assert refusal(server, path, staff.cookies, origin) == 403
    assert refusal(server, path, "", server.url) == 403
    with Staff(server, "second") as other:
        assert refusal(server, path, other.cookies, server.url) == 403
    with Staff(server) as same_user_elsewhere:
        assert refusal(server, path, same_user_elsewhere.cookies, server.url) == 403
    assert refusal(server, path[:-1] + "~", staff.cookies, server.url) == 403
    # Nothing of all that has spent it.
    assert refusal(server, path, staff.cookies, server.url) == 101
    assert refusal(server, path, staff.cookies, server.url) == 403


def test_hanging_up_ends_the_call_and_the_socket(server: RunningServer, staff: Staff) -> None:
    told, code = conversation(server, staff, json.dumps({"type": "hang_up"}))
    assert code == 1000
    types = [message["type"] for message in told if message["type"].startswith("phone.")]
    assert types == ["phone.placed", "phone.connected", "phone.ended"]
    ended = {"type": "phone.ended", "reason": "you hung up", "failed": False}
    assert ended in told
    assert server.lines_of(told[0]["uuid"])[-1].endswith("Active sessions: 0")


@pytest.mark.parametrize("sent", [bytes(639), "{}", json.dumps({"type": "say", "text": "x" * 501})])
def test_what_no_page_of_ours_sends_closes_the_socket_and_the_call(
    sent: bytes | str, server: RunningServer, staff: Staff
) -> None:
    _, code = conversation(server, staff, sent)
    assert code == 4400
    all_over(server)


def test_a_page_that_vanishes_ends_its_call(server: RunningServer, staff: Staff) -> None:
    path = staff.ticket()

    async def scenario() -> None:
        socket = await dial(server, path, staff.cookies, server.url)
        async with asyncio.timeout(SOON_S):
            while True:
                message = await socket.receive()
                if isinstance(message, str) and "phone.connected" in message:
                    break
        socket.abort()

    asyncio.run(scenario())
    all_over(server)


def all_over(server: RunningServer) -> None:
    """Waits until the server has no live call."""
    asyncio.run(
        eventually("the end of every call", lambda: server.active_count() == 0, SOON_S, every_s=0.1)
    )
