"""The caller's handset and Vonage's queue in front of it: what is played, what is said, 20 ms at a
time.

No clock and no socket: ``tick`` is called every 20 ms by who has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sessions_app.sandbox.hearing import Hearing, is_audible

# Vonage queues this many messages, about a minute, and what comes then is lost.
QUEUE_FRAMES: Final = 3072
# A browser that feeds faster than time passes must not build up a delay.
_FEED_FRAMES: Final = 100

PlayedHook = Callable[[bytes, int], None]


def frame_bytes(rate_hz: int) -> int:
    """The size of a 20 ms frame of s16le mono."""
    return rate_hz // 50 * 2


def in_frames(pcm: bytes, rate_hz: int) -> list[bytes]:
    """``pcm`` in whole frames, the last filled up with silence."""
    size = frame_bytes(rate_hz)
    return [pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size)]


@dataclass(frozen=True, slots=True)
class Mark:
    """A ``notify`` in the queue: its payload goes back when playback gets there."""

    payload: Any


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick gave: the caller's next frame, and the marks that playback has reached."""

    frame: bytes
    reached: list[Mark]


class Phone:
    """One handset. ``on_played`` is called with every frame that the caller hears, and its rate."""

    def __init__(
        self,
        hearing: Hearing,
        *,
        rate_hz: int = 16000,
        keep_heard_s: float = 30.0,
        on_played: PlayedHook | None = None,
    ) -> None:
        self.hearing = hearing
        self.rate_hz = rate_hz
        self.heard = bytearray()
        """What was played, from the beginning, at most ``keep_heard_s`` of it."""
        self.overflowed = 0
        self.is_deaf = False
        """Earmuffed: what is played is not heard."""
        self._keep_heard_s = keep_heard_s
        self._on_played = on_played
        self._queue: deque[bytes | Mark] = deque()
        self._talk: deque[bytes] = deque()
        self._speech: deque[bytes] = deque()
        self._fed = b""
        self._silence = bytes(frame_bytes(rate_hz))

    def set_rate(self, rate_hz: int) -> None:
        """Changes the rate, as a new media leg may; queues at the old rate are dropped."""
        if rate_hz != self.rate_hz:
            self.rate_hz = rate_hz
            self._silence = bytes(frame_bytes(rate_hz))
            self._queue.clear()
            self._talk.clear()
            self._speech.clear()
            self.heard.clear()
            self._fed = b""

    # --- what comes from the other side ---

    def queue(self, entry: bytes | Mark) -> None:
        """Queues a frame or a mark of the media leg; beyond the limit it is lost and counted."""
        if len(self._queue) >= QUEUE_FRAMES:
            self.overflowed += 1
        else:
            self._queue.append(entry)

    def clear(self) -> None:
        """Drops what is queued and not yet played, marks included."""
        self._queue.clear()

    def queue_talk(self, pcm: bytes) -> None:
        """Queues speech of Vonage's own (a ``talk``), mixed with what the media leg plays."""
        self._talk.extend(in_frames(pcm, self.rate_hz))

    def clear_talk(self) -> None:
        """Drops what Vonage itself was going to say."""
        self._talk.clear()

    @property
    def is_playing(self) -> bool:
        """Whether anything is still to be played."""
        return bool(self._queue or self._talk)

    @property
    def is_talking(self) -> bool:
        """Whether Vonage's own speech is still to be played."""
        return bool(self._talk)

    # --- what the caller says ---

    def speak(self, pcm: bytes) -> None:
        """Queues what the caller says next."""
        self._speech.extend(in_frames(pcm, self.rate_hz))

    def feed(self, pcm: bytes) -> None:
        """Takes live speech in pieces of any size; what lies too far behind is dropped."""
        self._fed += pcm
        size = frame_bytes(self.rate_hz)
        whole = len(self._fed) // size * size
        for at in range(0, whole, size):
            self._speech.append(self._fed[at : at + size])
        self._fed = self._fed[whole:]
        while len(self._speech) > _FEED_FRAMES:
            self._speech.popleft()

    @property
    def is_speaking(self) -> bool:
        """Whether there is speech of the caller still to be said."""
        return bool(self._speech)

    # --- time ---

    def tick(self, now: float) -> Tick:
        """Passes 20 ms: plays one frame, gives the caller's next."""
        reached: list[Mark] = []
        played = b""
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, bytes):
                played = entry
                break
            reached.append(entry)
        if self._talk:
            played = _mixed(played, self._talk.popleft())
        if played:
            self._hear(played, now)
        said = self._speech.popleft() if self._speech else self._silence
        if said is not self._silence and is_audible(said):
            self.hearing.caller(now)
        return Tick(said, reached)

    def _hear(self, frame: bytes, now: float) -> None:
        if self.is_deaf:
            return
        if is_audible(frame):
            self.hearing.agent(now)
        if len(self.heard) < self._keep_heard_s * self.rate_hz * 2:
            self.heard += frame
        if self._on_played is not None:
            self._on_played(frame, self.rate_hz)


def _mixed(one: bytes, other: bytes) -> bytes:
    if len(one) != len(other):
        return other
    total = np.frombuffer(one, "<i2").astype(np.int32) + np.frombuffer(other, "<i2")
    return bytes(np.clip(total, -32768, 32767).astype("<i2").tobytes())
