"""Callers, as Vonage's media leg shows them: a frame every 20 ms each way, and a player.

A phone plays what it gets one frame after the other, returns each `notify` when everything before
it has been played, and notes when its queue ran dry while the agent was speaking.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import Callable

from benchmarks import sockets, stamps

#: A pause that is longer is the end of an answer, not a gap within it.
SENTENCE_GAP_S = 0.4
#: Less is what any network does; nobody hears it behind a carrier's own jitter buffer.
DRY_S = 0.02
_LOUD = 1000
_FRAME_BYTES = stamps.FRAME_SAMPLES * 2
_CONNECTED = json.dumps(
    {"event": "websocket:connected", "content-type": f"audio/l16;rate={stamps.PHONE_HZ}"}
).encode()
_CLEARED = json.dumps({"event": "websocket:cleared"}).encode()


def _ready(frames: list[bytes]) -> list[bytes]:
    return [sockets.frame(sockets.BINARY, pcm, masked=True) for pcm in frames]


_NUMBERED = _ready([stamps.numbered(number) for number in range(stamps.NUMBERS)])
_OF_PHONE = _ready([stamps.of_phone(phone) for phone in range(stamps.PHONES_MOST)])


class Phone:
    """One caller's media leg; `run` lives as long as the call."""

    def __init__(self, number: int, late_s: list[float]) -> None:
        """`late_s`: told for each frame how late the phone itself was with it."""
        self.number = number
        self._late_s = late_s
        #: Its frames carry their numbers from now on: the model's side knows whose they are.
        self.known = False
        self.opened_s = 0.0
        self.sent_s = [0.0] * stamps.NUMBERS
        self.frames = 0
        self.clears = 0
        #: Told when a `clear` comes, and when a sound comes that was waited for.
        self.on_clear: Callable[[float], None] = lambda now: None
        self.on_sound: Callable[[float], None] | None = None
        self.dry_s: list[float] = []
        self.complaints: list[str] = []
        self._socket: sockets.Socket | None = None
        self._ends_s = self._last_s = 0.0
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._marks: set[asyncio.TimerHandle] = set()

    @property
    def open(self) -> bool:
        return self._socket is not None and not self._socket.closed

    async def connect(self, host: str, port: int, path: str) -> None:
        """Raises ConnectionError when it is refused."""
        await sockets.connect(host, port, path, self._open_media)

    def _open_media(self, socket: sockets.Socket) -> None:
        self.opened_s = time.perf_counter()
        self._socket = socket
        socket.on_message, socket.on_closed = self._take, self._stop
        socket.send(sockets.TEXT, _CONNECTED)
        self._due_s = self._loop.time()
        self._say()

    def hang_up(self) -> None:
        self._stop()
        if self._socket is not None:
            self._socket.close()

    # ------------------------------------------------------------------ the caller's voice

    def _say(self) -> None:
        assert self._socket is not None
        self._late_s.append(self._loop.time() - self._due_s)
        if self.known:
            number = self._sent % stamps.NUMBERS
            self.sent_s[number] = time.perf_counter()
            self._socket.write(_NUMBERED[number])
        else:
            self._socket.write(_OF_PHONE[self.number])
        self._sent += 1
        self._due_s += stamps.FRAME_S
        self._timer = self._loop.call_at(self._due_s, self._say)

    # ------------------------------------------------------------------ what he hears

    def _take(self, opcode: int, payload: bytes) -> None:
        now = time.perf_counter()
        if opcode == sockets.BINARY:
            self._play(payload, now)
            return
        message = json.loads(payload)
        match message.get("action"):
            case "clear":
                self.clears += 1
                self._ends_s = self._last_s = 0.0
                self._forget_marks()
                self.on_clear(now)
                assert self._socket is not None
                self._socket.send(sockets.TEXT, _CLEARED)
            case "notify":
                self._mark(message.get("payload"), now)

    def _play(self, frame: bytes, now: float) -> None:
        if len(frame) != _FRAME_BYTES:
            self.complaints.append(f"a frame of {len(frame)} bytes, wanted {_FRAME_BYTES}")
        self.frames += 1
        gap_s = now - self._ends_s
        if DRY_S < gap_s < SENTENCE_GAP_S and self._ends_s:
            self.dry_s.append(gap_s)
        self._ends_s = max(self._ends_s, now) + stamps.FRAME_S
        if self.on_sound is not None and max(array("h", frame), default=0) > _LOUD:
            heard, self.on_sound = self.on_sound, None
            heard(now)

    def _mark(self, payload: object, now: float) -> None:
        def played() -> None:
            self._marks.discard(handle)
            if self._socket is not None:
                told = {"event": "websocket:notify", "payload": payload}
                self._socket.send(sockets.TEXT, json.dumps(told).encode())

        handle = self._loop.call_later(max(0.0, self._ends_s - now), played)
        self._marks.add(handle)

    def _forget_marks(self) -> None:
        for mark in self._marks:
            mark.cancel()
        self._marks.clear()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._forget_marks()
