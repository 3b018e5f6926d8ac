"""A client's WebSocket whose messages are taken where they come in and written where they are made.

`websockets` offers each message to a task that waits for it, and locks and drains around each that
is sent; with fifty pieces of audio a second each way, in every call, that costs more than the audio
itself. Everything else (handshake, TLS, keepalive, closing) stays the library's.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import (  # type: ignore[attr-defined]  # in C where there is that, else not
    Frame,
    Opcode,
    apply_mask,
)
from websockets.protocol import Event, State

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
            self.transport.write(_frame(text))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.on_room()


def _frame(text: bytes) -> bytes:
    """A whole message in one masked frame (RFC 6455, 5.2): what the library would write, without
    what it needs for all the other kinds.
    """
    size = len(text)
    if size < 126:
        head = _HEAD.pack(_WHOLE_TEXT, _MASKED | size)
    elif size < 1 << 16:
        head = _HEAD_16.pack(_WHOLE_TEXT, _MASKED | 126, size)
    else:
        head = _HEAD_64.pack(_WHOLE_TEXT, _MASKED | 127, size)
    mask = os.urandom(4)
    return head + mask + apply_mask(text, mask)


_WHOLE_TEXT, _MASKED = 0x80 | Opcode.TEXT, 0x80
_HEAD, _HEAD_16, _HEAD_64 = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


def nothing() -> None:
    return None
