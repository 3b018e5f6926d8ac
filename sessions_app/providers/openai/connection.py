"""A client's WebSocket whose messages are taken where they come in and written where they are made.

`websockets` offers each message to a task that waits for it, and locks and drains around each that
is sent; with fifty pieces of audio a second each way, in every call, that costs more than the audio
itself. Everything else (handshake, TLS, keepalive, closing) stays the library's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from sessions_app.frames import Boundaries, Masks, text_at, text_frame

Message = bytes | bytearray | memoryview

#: Before anybody takes them; a service says two or three things then. Beyond, it is not read.
_WAITING_MOST = 16


class DirectConnection(ClientConnection):
    """Give it to `websockets.connect` as `create_connection`. `recv` and `send` are not for use."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        #: Told when the other side takes messages again, after `full`.
        self.on_room: Callable[[], None] = nothing
        #: Told when it takes no more.
        self.on_full: Callable[[], None] = nothing
        #: Told when the connection has ended, however.
        self.on_lost: Callable[[], None] = nothing
        self._take: Callable[[Message], None] | None = None
        self._waiting: deque[Message] = deque()
        self._paused_reading = False
        self._parts: list[Message] = []
        self._news = asyncio.Event()
        #: The answer to the handshake as far as it has come; None once it is whole.
        self._answer: bytes | None = b""
        self._boundaries = Boundaries()
        self._masks = Masks()

    @property
    def lost(self) -> bool:
        """It has ended; `close_exc` tells how."""
        return self.connection_lost_waiter.done()

    # ------------------------------------------------------------------ in

    async def next_message(self) -> Message:
        """One message that nobody has taken. Raises ConnectionClosed when there will be none."""
        while not self._waiting:
            if self.lost:
                raise self.close_exc
            self._news.clear()
            await self._news.wait()
        message = self._waiting.popleft()
        self._read_on()
        return message

    def hand_to(self, take: Callable[[Message], None]) -> None:
        """From now on every message goes there as it comes, those that wait first. Whoever takes
        them must not raise.
        """
        self._take = take
        while self._waiting and self._take is take:
            take(self._waiting.popleft())
        self._read_on()

    def _read_on(self) -> None:
        if self._paused_reading and not self._waiting:
            self._paused_reading = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Whole text messages are taken out of what comes in; the library reads the rest."""
        at = 0
        if self._answer is None:
            if self._boundaries.between_frames and not self._parts:
                while self.protocol.state is State.OPEN and (found := text_at(data, at)):
                    text, at = found
                    self._took(text)
                if at == len(data):
                    return
            self._boundaries.follow(data[at:] if at else data)
        else:
            self._answer += data
            # The answer has no body: what stands behind it is frames (RFC 6455, 4.1).
            _, ended, frames = self._answer.partition(_HEADERS_END)
            if ended:
                self._answer = None
                self._boundaries.follow(frames)
        super().data_received(data[at:] if at else data)

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
        elif event.fin and not self._parts:
            self._took(event.data)
        else:
            # The library has bounded the whole of a message, whatever its pieces (`max_size`).
            self._parts.append(event.data)
            if event.fin:
                whole = b"".join(self._parts)
                self._parts.clear()
                self._took(whole)

    def _took(self, message: Message) -> None:
        if self._take is not None:
            self._take(message)
            return
        self._waiting.append(message)
        self._news.set()
        if len(self._waiting) >= _WAITING_MOST and not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._news.set()
        self.on_lost()

    # ------------------------------------------------------------------ out

    @property
    def full(self) -> bool:
        """The other side does not take what was written: write no more until `on_room`."""
        return self.paused

    def write(self, text: bytes) -> None:
        """Send one text message, UTF-8; nothing happens when the connection is ending."""
        if self.protocol.state is State.OPEN:
            self.transport.write(text_frame(text, self._masks.next()))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.on_room()


_HEADERS_END = b"\r\n\r\n"
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


def nothing() -> None:
    return None
