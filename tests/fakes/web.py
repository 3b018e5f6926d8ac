"""A small HTTP/1.1 and WebSocket server whose every byte and every connection is under control.

It can stall, cut a response in the middle, see that a client left while it was being answered, and
count the TCP connections that are open at this moment; an ordinary server hides all of these.

    async with WebServer(on_request=answer, on_upgrade=converse) as server:
        httpx.get(server.url + "/hello")

`on_request(exchange)` answers one request, `on_upgrade(upgrade)` one WebSocket handshake. An
exception of theirs other than ClientGone is a mistake of the stand-in and is raised on leaving.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from websockets.http11 import Request as HandshakeRequest
from websockets.server import ServerProtocol

from tests.fakes.sockets import Closed, WebSocket


class ClientGone(Exception):
    """The client closed its connection before it was answered in full."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case, a repeated query key keeps its last."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def bearer(self) -> str:
        """The token of `Authorization: Bearer …`, or nothing."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else ""

    def json(self) -> object:
        """The body as JSON; raises ValueError."""
        return json.loads(self.body)


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self._streaming = False
        #: The connection may carry another request.
        self.reusable = False

    @property
    def client_gone(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def reply(
        self,
        status: int = 200,
        body: bytes | str | object = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """One whole response. Bytes and text go as they are, anything else as JSON."""
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        extra = dict(headers or {})
        if status != HTTPStatus.NO_CONTENT:
            extra |= {"Content-Type": content_type, "Content-Length": str(len(body))}
        await self._write(_head(status, extra) + body)
        self.reusable = True

    async def begin(self, status: int, content_type: str) -> None:
        """Starts a chunked response; go on with `send`, finish with `end` or `cut`."""
        self._streaming = True
        await self._write(
            _head(status, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        )

    async def send(self, chunk: bytes) -> None:
        """One chunk of a response that was begun; raises ClientGone."""
        if chunk:
            await self._write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")
        self.reusable = True

    def cut(self) -> None:
        """Drops the TCP connection at once, whatever was promised."""
        self._writer.transport.abort()

    async def pause(self, seconds: float) -> None:
        """Waits without answering; raises ClientGone as soon as the client gives up."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if self.client_gone:
                raise ClientGone
            await asyncio.sleep(min(0.01, left_s))

    async def _write(self, data: bytes) -> None:
        if self.client_gone:
            raise ClientGone
        self._writer.write(data)
        try:
            async with asyncio.timeout(10):
                await self._writer.drain()
        except ConnectionError:
            raise ClientGone from None


class Upgrade:
    """One WebSocket handshake: accept it or refuse it with a status and a body."""

    def __init__(
        self,
        request: Request,
        protocol: ServerProtocol,
        handshake: HandshakeRequest,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.request = request
        self._protocol = protocol
        self._handshake = handshake
        self._streams = streams

    async def accept(self) -> WebSocket:
        self._protocol.send_response(self._protocol.accept(self._handshake))
        socket = WebSocket(*self._streams, self._protocol)
        socket.absorb()
        return socket

    async def refuse(
        self, status: int, body: bytes = b"", content_type: str = "application/json"
    ) -> None:
        writer = self._streams[1]
        extra = {"Content-Type": content_type, "Content-Length": str(len(body))}
        writer.write(_head(status, {**extra, "Connection": "close"}) + body)
        try:
            async with asyncio.timeout(5):
                await writer.drain()
        except ConnectionError:
            raise ClientGone from None


OnRequest = Callable[[Exchange], Awaitable[None]]
OnUpgrade = Callable[[Upgrade], Awaitable[None]]


async def _no_upgrade(upgrade: Upgrade) -> None:
    await upgrade.refuse(404)


class WebServer:
    """Listens on a free port of 127.0.0.1 from `__aenter__` to `__aexit__`."""

    def __init__(self, on_request: OnRequest, on_upgrade: OnUpgrade = _no_upgrade) -> None:
        self._on_request = on_request
        self._on_upgrade = on_upgrade
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._failures: list[Exception] = []
        self.port = 0
        #: Requests that are being answered at this moment.
        self.in_flight = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now, idle keep-alive ones included."""
        return len(self._serving)

    async def start(self) -> None:
        """Listens; after a `stop` on the same port as before, so that a peer finds it again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if self._failures and error is None:
            raise ExceptionGroup("the stand-in itself failed", self._failures)

    async def stop(self) -> None:
        """Stops listening and cuts every connection; `start` takes the same address again."""
        if self._server is None:
            return
        self._server.close()
        for task, writer in list(self._serving.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ClientGone, Closed, asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # stop() is the only one who cancels; asyncio's streams would report it as a crash
        except Exception as error:
            self._failures.append(error)
        finally:
            del self._serving[task]
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request = await _read(head, reader)
        if request.headers.get("upgrade", "").lower() == "websocket":
            protocol = ServerProtocol(max_size=None)
            protocol.receive_data(head)
            (handshake,) = protocol.events_received()
            assert isinstance(handshake, HandshakeRequest)
            await self._on_upgrade(Upgrade(request, protocol, handshake, (reader, writer)))
            return False
        exchange = Exchange(request, reader, writer)
        self.in_flight += 1
        try:
            await self._on_request(exchange)
        finally:
            self.in_flight -= 1
        return exchange.reusable


async def _read(head: bytes, reader: asyncio.StreamReader) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines if line)
    }
    at_s = time.monotonic()
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    return Request(method, target, headers, body, at_s)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return b"".join(parts)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
