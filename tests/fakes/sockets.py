"""RFC 6455 over asyncio streams, for either side, with every frame in sight.

The usual libraries put fragments together, answer for the application and hide how a peer left.
A stand-in that judges a peer must see all of that, so it drives the sans-I/O protocol of the
`websockets` package by hand: fragments are counted, TCP can be cut without a close frame, and
nothing is read while nobody calls `receive()` (so the peer feels a stalled reader).

    socket = await connect("ws://127.0.0.1:5004/media/ticket", {"Authorization": "Bearer …"})
    await socket.send(b"\\0" * 640)
    message = await socket.receive()      # str or bytes; raises Closed when the peer is gone
    await socket.close(1000)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Protocol, State
from websockets.uri import parse_uri

_READ_BYTES = 65_536
_ABNORMAL = 1006


class Closed(Exception):
    """The socket is gone; `code` is the peer's close code, 1006 when it sent none."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"handshake refused with {status}")
        self.status = status
        self.body = body


class WebSocket:
    """An open WebSocket. One task may `receive()`, any may `send()`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: Protocol
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._inbox: deque[str | bytes] = deque()
        self._parts: list[bytes] = []
        self._text = False
        # Whoever closes reads too, for the peer's close frame; a stream has one reader at a time.
        self._reading = asyncio.Lock()
        #: Set once nothing more can be read.
        self.closed = asyncio.Event()
        #: Nothing leaves any more, not even the answer to a close frame, while TCP stays up.
        self.dumb = False
        #: Messages that came in more than one frame.
        self.fragmented = 0
        #: The peer's close code; None while open, 1006 when it left without a close frame.
        self.close_code: int | None = None

    @property
    def closed_by_peer(self) -> bool:
        """True when the peer began the closing handshake, or just vanished."""
        return self._protocol.close_sent is None or bool(self._protocol.close_rcvd_then_sent)

    async def send(self, message: str | bytes, timeout_s: float = 10.0) -> None:
        """Sends one message in one frame; waits only when the peer reads too slowly.

        Raises Closed when the socket is no longer open, TimeoutError when the peer takes nothing.
        """
        if self._protocol.state is not State.OPEN or self._writer.is_closing():
            raise Closed(self.close_code or _ABNORMAL)
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()
        if self._writer.transport.get_write_buffer_size() > _READ_BYTES:
            async with asyncio.timeout(timeout_s):
                try:
                    await self._writer.drain()
                except ConnectionError:
                    raise Closed(_ABNORMAL) from None

    async def receive(self) -> str | bytes:
        """The next message; raises Closed when there will be none."""
        while not self._inbox:
            if self.closed.is_set():
                raise Closed(self.close_code or _ABNORMAL)
            async with self._reading:
                if not self._inbox and not self.closed.is_set():
                    await self._read_some()
        return self._inbox.popleft()

    async def close(self, code: int = 1000, reason: str = "", timeout_s: float = 3.0) -> None:
        """Closes with a close frame, waits a bounded time for the peer's, then cuts."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        try:
            async with asyncio.timeout(timeout_s):
                while not self.closed.is_set():
                    async with self._reading:
                        if not self.closed.is_set():
                            await self._read_some()
        except TimeoutError:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Cuts the TCP connection at once, without a close frame (the peer sees 1006)."""
        self._writer.transport.abort()
        self._over()

    async def _read_some(self) -> None:
        try:
            data = await self._reader.read(_READ_BYTES)
        except ConnectionError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self.absorb()
        if not data:
            self._over()

    def absorb(self) -> None:
        """Takes what the protocol has understood and sends what it wants sent (pongs, closes)."""
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
            self.fragmented += not frame.fin
        self._parts.append(bytes(frame.data))
        if frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._inbox.append(whole.decode() if self._text else whole)

    def _flush(self) -> None:
        if self.dumb or self._writer.is_closing():
            self._protocol.data_to_send()
            return
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                # The other side may have reset the connection in this very moment.
                with contextlib.suppress(OSError):
                    self._writer.write_eof()

    def _over(self) -> None:
        if not self.closed.is_set():
            received = self._protocol.close_rcvd
            self.close_code = received.code if received else _ABNORMAL
            self.closed.set()
            self._writer.close()


async def connect(
    uri: str, headers: Mapping[str, str] | None = None, timeout_s: float = 6.0
) -> WebSocket:
    """Opens a WebSocket without extensions or subprotocols, as a telephone network would.

    Raises Refused for any answer but 101, OSError when nobody listens, TimeoutError.
    """
    where = parse_uri(uri)
    if where.secure:
        raise ValueError(f"{uri}: the stand-ins speak ws://, not wss://")
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            protocol = ClientProtocol(where, max_size=None)
            request = protocol.connect()
            for name, value in (headers or {}).items():
                request.headers[name] = value
            protocol.send_request(request)
            socket = WebSocket(reader, writer, protocol)
            socket._flush()
            while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
                data = await reader.read(_READ_BYTES)
                if data:
                    protocol.receive_data(data)
                else:
                    protocol.receive_eof()
            if protocol.handshake_exc is not None:
                raise _refusal(protocol)
            # Frames, even a close, may have come in the same packet as the 101.
            socket.absorb()
            return socket
        except BaseException:
            writer.transport.abort()
            raise


def _refusal(protocol: ClientProtocol) -> Exception:
    for event in protocol.events_received():
        if isinstance(event, Response):
            return Refused(event.status_code, bytes(event.body or b""))
    return ConnectionError(f"no HTTP answer to the handshake: {protocol.handshake_exc!r}")
