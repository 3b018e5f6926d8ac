"""A scripted Realtime server on the loopback, and a watch over what a test leaves open."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.unit.providers.oracle import check_client

Script = Callable[["Peer"], Awaitable[None]]
Refusal = tuple[int, Any]


class Peer:
    """The server's end of one connection."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws

    async def send(self, type_: str, **fields: Any) -> None:
        await self.ws.send(json.dumps({"type": type_, "event_id": "e", **fields}))

    async def receive(self) -> dict[str, Any]:
        """The next client event; it must be one that OpenAI knows."""
        return check_client(json.loads(await self.ws.recv()))

    async def greet(self, **echo: Any) -> dict[str, Any]:
        """The ordinary beginning; `echo` changes what `session.updated` says."""
        await self.send("session.created", session={"type": "realtime", "id": "sess_1"})
        update = await self.receive()
        await self.send("session.updated", session={**update["session"], **echo})
        return update

    async def until_closed(self) -> None:
        await self.ws.wait_closed()


class RealtimeServer:
    """Plays one script (or refusal) for each connection, the last one again and again."""

    def __init__(self, *plays: Script | Refusal) -> None:
        self._plays = list(plays)
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self.url = ""
        self._connections = 0
        self._deserted = asyncio.Event()
        self._deserted.set()

    def _next(self) -> Script | Refusal:
        return self._plays.pop(0) if len(self._plays) > 1 else self._plays[0]

    def admit(self, ws: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        play = self._next()
        if callable(play):
            ws.script = play  # type: ignore[attr-defined]
            return None
        status, body = play
        text = body if isinstance(body, str) else json.dumps(body)
        return ws.respond(HTTPStatus(status), text)

    async def deserted(self) -> None:
        """Wait until everybody has left, each by his own doing."""
        async with asyncio.timeout(30):
            await self._deserted.wait()

    async def serve(self, ws: ServerConnection) -> None:
        self._connections += 1
        self._deserted.clear()
        try:
            await ws.script(Peer(ws))  # type: ignore[attr-defined]
        except ConnectionClosed:
            pass
        except Exception as exc:
            self.failures.append(exc)
        finally:
            self._connections -= 1
            if not self._connections:
                self._deserted.set()


@asynccontextmanager
async def realtime(*plays: Script | Refusal) -> AsyncIterator[RealtimeServer]:
    """Serve these scripts; a failed check inside a script fails the test."""
    server = RealtimeServer(*plays)
    listener: Server
    async with serve(
        server.serve,
        "127.0.0.1",
        0,
        process_request=server.admit,
        compression=None,
        close_timeout=0.2,
        max_size=None,
    ) as listener:
        host, port = listener.sockets[0].getsockname()[:2]
        server.url = f"http://{host}:{port}/v1"
        yield server
        # The end of the server would close what a client forgot.
        await server.deserted()
    if server.failures:
        raise server.failures[0]


def run_clean(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario; it may leave neither a task nor a descriptor behind."""

    async def watched() -> None:
        before = len(asyncio.all_tasks())
        await scenario()
        for _ in range(20):  # connections that were closed are told so by the loop's next turns
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before, asyncio.all_tasks()

    open_before = _descriptors()
    asyncio.run(watched())
    assert _descriptors() <= open_before


def _descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} {os.readlink(link)}")
        except OSError:  # the directory's own descriptor
            continue
    return found
