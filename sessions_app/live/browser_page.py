"""The browser's end of a call: one WebSocket, read and written within bounds.

From the page come binary frames (20 ms of the microphone: s16le mono, 16 kHz, exactly 640 bytes)
and JSON texts of at most 2 KiB:

    {"type": "say", "text": "…"}       at most 500 characters, spoken by the sandbox's voice
    {"type": "heard", "frames": 250}   how many frames have come so far
    {"type": "hang_up"}

To the page go binary frames of 641 bytes, whose first byte says whose voice it is, and JSON texts:
`phone.…` of `browser_call`, and the `call.…` messages of `publish` as they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

WIRE_HZ: Final = 16_000
FRAME_BYTES: Final = 640
MOST_TEXT_BYTES: Final = 2048
MOST_SAID: Final = 500
#: Daphne lets a consumer choose 1000 and 3000 to 4999 only.
CLOSE_NORMAL, CLOSE_MISTAKE = 1000, 4400

_MOST_WAITING: Final = 200
_MOST_FRAMES_WAITING: Final = 50
#: Daphne's `send` never waits, so a page that takes nothing is known by what it has heard: 5 s.
_MOST_UNHEARD: Final = 250
_SEND_S: Final = 10.0

Message = dict[str, Any]


class PageMistake(Exception):
    """The page sent what no page of ours sends; the text says what was read and what is wanted."""


class Voice(IntEnum):
    """Whose voice a frame to the page carries."""

    AGENT = 0
    CALLER = 1


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


class Page:
    """One open socket. `listen` and `write` are each run by one task."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.is_gone = False
        #: Frames that were left out because the page did not take them in time.
        self.dropped = 0
        self._receive = receive
        self._send = send
        self._waiting: asyncio.Queue[Message | None] = asyncio.Queue(_MOST_WAITING)
        self._sent = 0
        self._heard = 0

    async def listen(self) -> AsyncIterator[bytes | Say | HangUp]:
        """What comes from the page, until it has gone. Raises PageMistake."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self.is_gone = True
                return
            if (frame := message.get("bytes")) is not None:
                if len(frame) != FRAME_BYTES:
                    raise PageMistake(f"a frame of {len(frame)} bytes, wanted {FRAME_BYTES}")
                yield frame
            elif (order := self._read(message.get("text") or "")) is not None:
                yield order

    def _read(self, text: str) -> Say | HangUp | None:
        if len(text.encode()) > MOST_TEXT_BYTES:
            raise PageMistake(f"a text of more than {MOST_TEXT_BYTES} bytes")
        try:
            match json.loads(text):
                case {"type": "say", "text": str(words)} if len(words) <= MOST_SAID:
                    return Say(words.strip()) if words.strip() else None
                case {"type": "hang_up"}:
                    return HangUp()
                case {"type": "heard", "frames": int(frames)} if 0 <= frames <= self._sent:
                    self._heard = frames
                    return None
        except (ValueError, RecursionError):
            pass  # no JSON, or brackets without end
        raise PageMistake("a text that is none of say, heard and hang_up as they are documented")

    def play(self, voice: Voice, frame: bytes) -> None:
        """Send 20 ms of sound; left out when too much of it is on its way already."""
        unheard = self._sent - self._heard
        if unheard >= _MOST_UNHEARD or self._waiting.qsize() >= _MOST_FRAMES_WAITING:
            self.dropped += 1
            return
        self._sent += 1
        self._waiting.put_nowait({"type": "websocket.send", "bytes": bytes([voice]) + frame})

    async def tell(self, message: Message) -> None:
        """Send a JSON text, after everything that was given before."""
        await self._waiting.put({"type": "websocket.send", "text": json.dumps(message)})

    async def finish(self) -> None:
        """Nothing more will be given; `write` returns when the rest is sent."""
        await self._waiting.put(None)

    async def write(self) -> None:
        """Send what is given until `finish`. Raises TimeoutError if the page takes nothing."""
        while (message := await self._waiting.get()) is not None:
            if self.is_gone:
                continue
            async with asyncio.timeout(_SEND_S):
                await self._send(message)

    async def close(self, code: int) -> None:
        """Always needed: a consumer that only returns leaves its socket open under Daphne."""
        if not self.is_gone:
            self.is_gone = True
            async with asyncio.timeout(_SEND_S):
                await self._send({"type": "websocket.close", "code": code})
