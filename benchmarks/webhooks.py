"""HTTP by hand, as cheaply as Python can: the load must not be what is measured.

Requests are made and signed before they are due, connections are kept, and an answer's time is that
of its last byte.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status 0: the connection was dropped. `at_s`: by `time.perf_counter`."""

    status: int
    body: bytes
    at_s: float


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """One whole request, to be sent when it is due."""
    where = urlsplit(url)
    lines = [
        f"{method} {where._replace(scheme='', netloc='').geturl()} HTTP/1.1",
        f"Host: {where.netloc}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _measured(head: bytes, body: bytes) -> bytes | None:
    """A body whose length was told; None while it is not whole."""
    length = _LENGTH.search(head)
    return body if len(body) >= (int(length[1]) if length else 0) else None


def _joined(body: bytes) -> bytes | None:
    """A body in chunks (RFC 9112, 7.1); None while the last one has not come."""
    pieces: list[bytes] = []
    rest = body
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end or len(rest) < (length := int(size, 16)) + 2:
            return None
        if not length:
            return b"".join(pieces)
        pieces.append(rest[:length])
        rest = rest[length + 2 :]


class _Connection(asyncio.Protocol):
    """Kept alive; one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._data = b""
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._tell(Answer(0, b"", time.perf_counter()))

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        whole = _joined(body) if _CHUNKED.search(head) else _measured(head, body)
        if whole is not None:
            self._data = b""
            if _CLOSE.search(head):
                self.close()
            self._tell(Answer(int(head.split(b" ", 2)[1]), whole, time.perf_counter()))

    def _tell(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    async def ask(self, whole: bytes) -> Answer:
        self._answer = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(whole)
        return await self._answer

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


class Client:
    """As many connections as there are requests at once."""

    def __init__(self, base_url: str) -> None:
        where = urlsplit(base_url)
        assert where.hostname and where.port
        self._host, self._port = where.hostname, where.port
        self._idle: list[_Connection] = []

    async def ask(self, whole: bytes, timeout_s: float = 15.0) -> Answer:
        """Raises TimeoutError, and OSError when nobody listens."""
        async with asyncio.timeout(timeout_s):
            connection = await self._connection()
            try:
                answer = await connection.ask(whole)
            except BaseException:
                connection.close()
                raise
        if not connection.closed:
            self._idle.append(connection)
        return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
