"""WebSocket frames by hand, as cheaply as Python can: the load must not be what is measured.

Only what the stand-ins of a benchmark meet: whole messages, small control frames, no extensions.
A frame that they do not expect ends the run, since a figure from a broken conversation is none.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import Callable
from typing import cast

from websockets.speedups import apply_mask

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = base64.b64encode(b"a benchmark call")
#: A client's frames are masked (RFC 6455, 5.3); any key but zero costs the server the same.
_MASK = b"\x5a\xc3\x17\x9e"


def frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """One whole frame. Made once where a payload repeats."""
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, mask_bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", 0x80 | opcode, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, mask_bit | 127, size)
    return head + _MASK + apply_mask(payload, _MASK) if masked else head + payload


class Socket(asyncio.Protocol):
    """One end of a WebSocket over TCP."""

    def __init__(self, *, client: bool, on_handshake: Callable[[Socket, bytes], None]) -> None:
        self.client = client
        self.on_message: Callable[[int, bytes], None] = _unexpected
        self.on_closed: Callable[[], None] = lambda: None
        self.closed = self.closing = False
        self._on_handshake = on_handshake
        self._open = False
        self._data = b""
        self._transport: asyncio.Transport | None = None

    # ------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.on_closed()

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        if not self._open:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            head, self._data = self._data[:end], self._data[end + 4 :]
            self._open = True
            self._on_handshake(self, head)
            if self.closing:
                return
        at, data, size = 0, self._data, len(self._data)
        while size - at >= 2:
            length, start = data[at + 1] & 0x7F, at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            masked = data[at + 1] & 0x80
            end = start + length + (4 if masked else 0)
            if end > size:
                break
            if masked:
                payload = apply_mask(data[start + 4 : end], data[start : start + 4])
            else:
                payload = data[start:end]
            if not data[at] & 0x80:
                raise ValueError("a fragmented message: these stand-ins take whole ones")
            self._take(data[at] & 0x0F, payload)
            at = end
        self._data = data[at:] if at else data

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(PONG, payload)
        elif opcode == CLOSE:
            self.send(CLOSE, payload[:2])
            self.abort_soon()
        elif opcode != PONG:
            self.on_message(opcode, payload)

    # ------------------------------------------------------------------ ours

    def send(self, opcode: int, payload: bytes) -> None:
        self.write(frame(opcode, payload, masked=self.client))

    def write(self, data: bytes) -> None:
        """Frames that were made before."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def close(self) -> None:
        """Say goodbye as a phone does that hangs up; the other side ends the connection."""
        self.send(CLOSE, b"\x03\xe8")

    def abort_soon(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.close()


def accept(socket: Socket, head: bytes) -> None:
    """A server's answer to a handshake."""
    key = next(
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    token = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    socket.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n"
    )


async def connect(
    host: str,
    port: int,
    path: str,
    on_open: Callable[[Socket], None],
    timeout_s: float = 10.0,
) -> None:
    """A client's socket. `on_open` is called before the first message is taken, which may have come
    in one packet with the handshake. Raises ConnectionError when that is refused.
    """
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(socket: Socket, head: bytes) -> None:
        status = head.split(b"\r\n")[0].decode("latin-1")
        if " 101 " in f"{status} ":
            on_open(socket)
            opened.set_result(None)
        else:
            opened.set_exception(ConnectionError(f"the media socket was refused: {status}"))
            socket.abort_soon()

    def lost() -> None:
        if not opened.done():
            opened.set_exception(ConnectionError("the connection was dropped in the handshake"))

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        _, socket = await loop.create_connection(
            lambda: Socket(client=True, on_handshake=answered), host, port
        )
        socket.on_closed = lost
        socket.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {_KEY.decode()}\r\n"
            f"Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await opened


def _unexpected(opcode: int, payload: bytes) -> None:
    raise ValueError(f"a message before anybody listened: {opcode} {payload[:60]!r}")
