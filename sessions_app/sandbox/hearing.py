"""What a caller went through: how long until the first sound, and the longest silence.

Silence is met only by somebody who waits for the other side: from the answer to the greeting, from
his last word to the answer, and in the middle of what is said to him. Once he takes the other side
to have finished, it is his turn, and his own silence is not counted.
"""

from __future__ import annotations

from typing import Final

import numpy as np

FRAME_S: Final = 0.02
_AUDIBLE_PEAK: Final = 300


def is_audible(frame: bytes) -> bool:
    """Whether a frame of s16le audio can be heard at all (line noise cannot)."""
    samples = np.frombuffer(frame, dtype="<i2")
    if not samples.size:
        return False
    return bool(samples.max() > _AUDIBLE_PEAK or samples.min() < -_AUDIBLE_PEAK)


class Hearing:
    """Keeps time between sounds. All times are of one monotonic clock, passed in."""

    def __init__(self) -> None:
        self.first_sound_s: float | None = None
        """From the moment the call was answered to the first audible sound of the other side."""
        self._answered_at: float | None = None
        self._last_sound_at = 0.0
        self._last_agent_at: float | None = None
        self._longest_s = 0.0
        self.agent_s = 0.0
        """How much of what was played was audible."""
        self._waits = True
        self._paused = False
        self._over = False

    def answered(self, now: float) -> None:
        """The caller's phone stopped ringing."""
        if self._answered_at is None:
            self._answered_at = self._last_sound_at = now

    def agent(self, now: float) -> None:
        """Something audible was played to the caller."""
        self._last_agent_at = now
        self.agent_s += FRAME_S
        if self.first_sound_s is None and self._answered_at is not None:
            self.first_sound_s = now - self._answered_at
        self._sound(now)

    def caller(self, now: float) -> None:
        """The caller said something audible."""
        self._sound(now)

    def finished(self) -> None:
        """The caller takes the other side to have said it all: it is his turn, since its last
        sound.
        """
        self._waits = False

    def person(self, now: float) -> None:
        """A human took over: from here on silence is theirs, and is not measured."""
        self._sound(now)
        self._paused = True

    def ended(self, now: float) -> None:
        """The call is over (or the caller has hung up); nothing counts any more."""
        self._sound(now)
        self._over = True

    def longest_silence_s(self, now: float) -> float:
        """The longest time, up to ``now``, for which the caller waited and nobody was audible."""
        return max(self._longest_s, self._gap(now))

    def agent_quiet_s(self, now: float) -> float | None:
        """How long ago the other side was last audible; ``None`` if never."""
        return None if self._last_agent_at is None else now - self._last_agent_at

    def agent_heard_since(self, moment: float) -> bool:
        """Whether the other side was audible after ``moment``."""
        return self._last_agent_at is not None and self._last_agent_at >= moment

    def _gap(self, now: float) -> float:
        if self._answered_at is None or self._over or self._paused or not self._waits:
            return 0.0
        return max(0.0, now - self._last_sound_at)

    def _sound(self, now: float) -> None:
        self._longest_s = max(self._longest_s, self._gap(now))
        self._last_sound_at = now
        self._waits = True
