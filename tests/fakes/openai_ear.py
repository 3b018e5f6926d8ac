"""The fake OpenAI's turn detection, for tests in which the caller really speaks.

A voice of `pattern` is four times as loud as the caller's tone, which stands for the room he is in.
Time is that of the audio, not of a clock, as it is at the real server: what is sent again faster
than real time is heard again, faster.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto

import numpy as np

from tests.fakes.pattern import decode

_LOUD_RMS = 3000.0
_FRAME_MS = 20
_ONSET_FRAMES = 3
_PAUSE_FRAMES = 25


class Turn(Enum):
    """What has changed."""

    BEGUN = auto()
    OVER = auto()


class Ear:
    """Takes audio as it comes, s16le mono at this rate."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._frame_bytes = rate * _FRAME_MS // 1000 * 2
        self._rest = b""
        self._speaking = False
        self._run = 0
        #: Voices of the pattern in the turn that is being heard.
        self._voices: Counter[int] = Counter()
        self._loud_frames = 0

    def hear(self, pcm: bytes) -> list[Turn]:
        """Beginnings and ends of turns in this stretch."""
        found: list[Turn] = []
        data = self._rest + pcm
        whole = len(data) // self._frame_bytes * self._frame_bytes
        self._rest = data[whole:]
        for at in range(0, whole, self._frame_bytes):
            if (turn := self._frame(data[at : at + self._frame_bytes])) is not None:
                found.append(turn)
        return found

    def words(self) -> str:
        """What the last turn said: which voice it was, and for how long, in tenths of a second."""
        voice = self._voices.most_common(1)[0][0] if self._voices else -1
        tenths = round(self._loud_frames * _FRAME_MS / 100)
        return f"Caller's voice {voice} spoke for {tenths} tenths of a second."

    def _frame(self, frame: bytes) -> Turn | None:
        samples = np.frombuffer(frame, dtype="<i2").astype(np.float64)
        loud = float(np.sqrt(np.mean(samples * samples))) > _LOUD_RMS
        if loud:
            if not self._speaking and not self._run:
                self._voices.clear()
                self._loud_frames = 0
            self._loud_frames += 1
            if (heard := decode(frame, self._rate)) is not None:
                self._voices[heard.voice] += 1
        self._run = self._run + 1 if loud is not self._speaking else 0
        if not self._speaking and self._run >= _ONSET_FRAMES:
            self._speaking, self._run = True, 0
            return Turn.BEGUN
        if self._speaking and self._run >= _PAUSE_FRAMES:
            self._speaking, self._run = False, 0
            return Turn.OVER
        return None
