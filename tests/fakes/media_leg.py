"""The media leg of a simulated phone: Vonage's end of the WebSocket, strict about every frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.fakes.pattern import caller_frame
from tests.fakes.playback import FRAME_S, Playback
from tests.fakes.sockets import Closed, WebSocket, connect


class LegEnd(StrEnum):
    """Why a media leg is over."""

    SERVER_CLOSED = "server closed"
    CUT = "cut"
    BAD_FRAME = "bad frame"
    HUNG_UP = "hung up"


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong on this call.

    duplicate_answer: the answer webhook is asked twice at once, and the replies must be the same.
    duplicate_events: every event is delivered twice.
    socket_delay_s: how long Vonage takes from the NCCO to opening the socket.
    socket_never_opens: the socket is never dialled; the leg is reported `unanswered`.
    lost_frames: the share of inbound frames that never arrive.
    binary_first: audio arrives before `websocket:connected`.
    returns_marks_on_clear: markers dropped by a clear are sent back (undocumented either way).
    no_handshake_token: Vonage sends no Authorization although the NCCO asks for it.
    """

    duplicate_answer: bool = False
    duplicate_events: bool = False
    socket_delay_s: float = 0.0
    socket_never_opens: bool = False
    lost_frames: float = 0.0
    binary_first: bool = False
    returns_marks_on_clear: bool = False
    no_handshake_token: bool = False


class MediaLeg:
    """One WebSocket, from the handshake until it is gone.

    `connect()`, then `run()` until the leg is over; the rest may be called meanwhile.
    """

    def __init__(
        self, endpoint: Mapping[str, Any], tone: int, faults: Faults, violations: list[str]
    ) -> None:
        self.uri = str(endpoint["uri"])
        self.content_type = str(endpoint["content-type"])
        self.rate = int(self.content_type.rpartition("=")[2])
        self.frame_bytes = self.rate // 50 * 2
        self.playback = Playback(self.rate)
        self.opened_s: float | None = None
        self.first_frame_s: float | None = None
        self.frames_in = 0
        self.frames_out = 0
        #: Payloads of the notifies that were echoed.
        self.notified: list[Mapping[str, Any]] = []
        self.clears_s: list[float] = []
        self.close_code: int | None = None
        self.muted = False
        self._custom = dict(endpoint.get("headers") or {})
        self._tone = tone
        self._faults = faults
        self._violations = violations
        #: Hears, and returns no marker any more: what we send does not come out of the receiver.
        self.half_dead = False
        self._socket: WebSocket | None = None
        self._speech: deque[bytes] = deque()
        self._end: LegEnd | None = None
        self._running = asyncio.Event()
        self._running.set()
        self._marked = asyncio.Event()

    @property
    def open(self) -> bool:
        return self._socket is not None and not self._socket.closed.is_set()

    @property
    def speaking(self) -> bool:
        """Something of what the caller says has not been sent yet."""
        return bool(self._speech)

    async def connect(self, authorization: Mapping[str, str]) -> None:
        """The handshake and the first message; raises Refused, OSError, TimeoutError."""
        self._socket = await connect(self.uri, authorization)
        self.opened_s = time.monotonic()
        if self._faults.binary_first:
            await self._send(self._next_frame())
        first = {"content-type": self.content_type, **self._custom}
        with contextlib.suppress(Closed):  # closed as soon as opened: `run` tells
            await self._say("websocket:connected", first)

    async def run(self) -> LegEnd:
        """Talks and listens until the leg is over; always closes the socket."""
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(self._talk()), tasks.create_task(self._keep_markers())]
                try:
                    await self._listen()
                except Closed as closed:
                    self.close_code = closed.code
                finally:
                    for task in beside:
                        task.cancel()
        finally:
            if self._socket:
                self._socket.abort()
            self.playback.advance(time.monotonic())
        if self._end:
            return self._end
        return LegEnd.SERVER_CLOSED if self.close_code != 1006 else LegEnd.CUT

    # ------------------------------------------------------------ what the caller does

    def speak(self, pcm: bytes) -> None:
        """Audio at the leg's rate into the microphone, instead of the tone."""
        size = self.frame_bytes
        for at in range(0, len(pcm), size):
            self._speech.append(pcm[at : at + size].ljust(size, b"\0"))

    async def press(self, digit: str, duration_ms: int = 260) -> None:
        await self._say("websocket:dtmf", {"digit": digit, "duration": duration_ms})

    async def mute(self, muted: bool = True) -> None:
        """The platform says so and stops forwarding audio."""
        self.muted = muted
        extra = {"method": "update", "active": not muted, "content-type": self.content_type}
        await self._say("websocket:media:update", extra)

    async def say_text(self, text: str) -> None:
        """Any text frame: unknown events, garbage."""
        await self._send(text)

    async def say_bytes(self, data: bytes) -> None:
        """Any binary frame."""
        await self._send(data)

    def freeze(self) -> None:
        """Neither sends nor reads from now on, while TCP stays up: a half-open connection."""
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    async def hang_up(self, code: int = 1000) -> None:
        """The platform closes the socket properly."""
        self._end = LegEnd.HUNG_UP
        self._running.set()
        if self._socket:
            await self._socket.close(code)

    def cut(self, end: LegEnd = LegEnd.CUT) -> None:
        """The connection is gone without a close frame."""
        self._end = end
        self._running.set()
        if self._socket:
            self._socket.abort()

    # ------------------------------------------------------------ the two directions

    async def _talk(self) -> None:
        """50 frames a second on a monotonic schedule: a late one is followed up at once."""
        due_s = time.monotonic()
        try:
            while True:
                await self._running.wait()
                frame = self._next_frame()
                if not self.muted and random.random() >= self._faults.lost_frames:
                    await self._send(frame)
                    self.frames_in += 1
                due_s += FRAME_S
                await asyncio.sleep(max(due_s - time.monotonic(), 0))
        except (Closed, TimeoutError):
            pass  # the listening half learns it too, or the peer stopped reading

    def _next_frame(self) -> bytes:
        return self._speech.popleft() if self._speech else caller_frame(self._tone, self.rate)

    async def _listen(self) -> None:
        assert self._socket is not None
        while True:
            message = await self._socket.receive()
            await self._running.wait()
            if self._socket.fragmented:
                self._violations.append("a message in several WebSocket fragments")
                self._socket.fragmented = 0
            if isinstance(message, bytes):
                await self._hear(message)
            else:
                await self._obey(message)

    async def _hear(self, frame: bytes) -> None:
        now_s = time.monotonic()
        if len(frame) != self.frame_bytes:
            self._violations.append(
                f"a frame of {len(frame)} bytes where {self.frame_bytes} are required"
            )
            # Vonage logs "unexpected frame size", stops listening, and the peer sees 1006.
            self.cut(LegEnd.BAD_FRAME)
            return
        self.frames_out += 1
        self.first_frame_s = self.first_frame_s or now_s
        before = self.playback.overflowed
        self.playback.push(frame, now_s)
        await self._echo()
        if self.playback.overflowed > before == 0:
            self._violations.append("more than 3072 frames queued; the newest are lost")

    async def _obey(self, text: str) -> None:
        now_s = time.monotonic()
        try:
            command = json.loads(text)
        except ValueError:
            self._violations.append("a text frame that is no JSON")
            return
        if command == {"action": "clear"}:
            self.clears_s.append(now_s)
            dropped = self.playback.clear(now_s)
            await self._say("websocket:cleared", {})
            if self._faults.returns_marks_on_clear:
                for payload in dropped:
                    await self._notify(payload)
        elif (
            isinstance(command, dict)
            and command.keys() == {"action", "payload"}
            and command["action"] == "notify"
            and isinstance(command["payload"], dict)
        ):
            self.playback.mark(command["payload"], now_s)
            await self._echo()
            self._marked.set()
        else:
            self._violations.append(f"unknown command with the keys {_keys(command)}")

    async def _keep_markers(self) -> None:
        """Echoes markers when the audio in front of them has been played."""
        while True:
            due_s = self.playback.next_marker_s()
            if due_s is None:
                self._marked.clear()
                await self._marked.wait()
                continue
            await asyncio.sleep(max(due_s - time.monotonic(), 0.001))
            try:
                await self._echo()
            except Closed:
                return

    async def _echo(self) -> None:
        await self._running.wait()
        for payload in self.playback.take_reached(time.monotonic()):
            await self._notify(payload)

    async def _notify(self, payload: Mapping[str, Any]) -> None:
        if self.half_dead:
            return
        self.notified.append(payload)
        await self._say("websocket:notify", {"payload": payload})

    async def _say(self, event: str, extra: Mapping[str, Any]) -> None:
        # Vonage's own implementation puts one space before every text frame.
        await self._send(" " + json.dumps({"event": event, **extra}))

    async def _send(self, message: str | bytes) -> None:
        assert self._socket is not None
        await self._socket.send(message)


def _keys(command: object) -> list[str]:
    return sorted(map(str, command)) if isinstance(command, dict) else [type(command).__name__]
