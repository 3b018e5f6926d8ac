"""A hand-written call centre, just enough to be called: webhooks that record, media as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

Ncco = list[dict[str, Any]]


@dataclass
class Hook:
    """One webhook as it came."""

    method: str
    path: str
    authorization: str
    params: dict[str, Any]
    body: bytes


class Media:
    """The server's side of one media socket."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
        self._receive, self._send = receive, send
        self.texts: list[str] = []
        self.frames: list[bytes] = []

    async def accept(self) -> dict[str, Any]:
        """Accepts, and gives the first message: ``websocket:connected``."""
        await self._receive()
        await self._send({"type": "websocket.accept"})
        return json.loads(await self.text())

    async def next(self) -> str | bytes | None:
        """The next message; ``None`` when the socket has closed."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return None
        if message.get("text") is not None:
            self.texts.append(message["text"])
            return message["text"]
        self.frames.append(message["bytes"])
        return message["bytes"]

    async def text(self) -> str:
        """The next text message, audio in between kept in ``frames``."""
        while True:
            message = await self.next()
            assert message is not None, "the socket closed"
            if isinstance(message, str):
                return message

    async def play(self, pcm: bytes, size: int = 640) -> None:
        for at in range(0, len(pcm), size):
            await self._send({"type": "websocket.send", "bytes": pcm[at : at + size]})

    async def command(self, **command: Any) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps(command)})

    async def drain(self) -> None:
        """Listens until the socket closes."""
        with contextlib.suppress(OSError):
            while await self.next() is not None:
                pass

    async def close(self) -> None:
        await self._send({"type": "websocket.close", "code": 1000})


async def listen(media: Media) -> None:
    """The simplest media server: accepts and listens."""
    await media.accept()
    await media.drain()


@dataclass
class Service:
    """What it answers, and what was asked of it."""

    media: Callable[[Media], Awaitable[None]] = listen
    ncco: Ncco | None = None
    answers: list[int] = field(default_factory=list)
    """Statuses of the first answers, before the good one; 0 closes the connection."""
    on_event: dict[str, Ncco] = field(default_factory=dict)
    """What an event of that status is answered with."""
    connect: dict[str, Any] = field(default_factory=dict)
    endpoint: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    hooks: list[Hook] = field(default_factory=list)
    medias: list[Media] = field(default_factory=list)
    refuse_media: int = 0

    def to_media(self) -> Ncco:
        endpoint = {
            "type": "websocket",
            "uri": self.url.replace("http", "ws") + "/media/ticket",
            "content-type": "audio/l16;rate=16000",
            "headers": {"call": "c-1"},
            "authorization": {"type": "vonage"},
        } | self.endpoint
        action = {
            "action": "connect",
            "eventType": "synchronous",
            "eventUrl": [f"{self.url}/webhooks/vonage/event"],
            "from": "442079460000",
            "endpoint": [endpoint],
        }
        return [action | self.connect]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [hook.params for hook in self.hooks if hook.path.endswith("/event")]

    def statuses(self, direction: str) -> list[str]:
        return [e["status"] for e in self.events if e.get("direction") == direction]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
        params = json.loads(body) if body else query
        self.hooks.append(Hook(scope["method"], scope["path"], authorization, params, body))
        status, content = self._reply(scope["path"], params)
        headers = [(b"content-type", b"application/json")]
        if status == 0:  # a body is announced and never comes
            headers.append((b"content-length", b"2"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            raise ConnectionError
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _reply(self, path: str, params: dict[str, Any]) -> tuple[int, bytes]:
        if path.endswith("/answer"):
            if self.answers:
                return self.answers.pop(0), b""
            ncco = self.to_media() if self.ncco is None else self.ncco
        elif path.endswith("/fallback"):
            ncco = [{"action": "talk", "text": "Sorry."}]
        else:
            ncco = self.on_event.get(params.get("status", ""), [])
        return (200, json.dumps(ncco).encode()) if ncco else (204, b"")

    async def _websocket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        media = Media(scope, receive, send)
        self.medias.append(media)
        if self.refuse_media:
            await receive()
            start = {"type": "websocket.http.response.start", "status": self.refuse_media}
            await send(start | {"headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})
            return
        await self.media(media)


async def until(condition: Callable[[], object]) -> None:
    """Waits for what will come; the test's own time limit is the bound."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """Serves it on a free port, in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        service,
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,
        timeout_graceful_shutdown=1,
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield service
        finally:
            server.should_exit = True
            await serving
    listener.close()
