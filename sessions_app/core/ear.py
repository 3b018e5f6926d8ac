"""Our own ear on the caller: a model that has gone mute reports nothing.

Speech is loud against the quietest moment of the last seconds. A steady noise or tone, however
loud, is its own quietest moment, and is not taken for speech.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

#: Telephone speech lies at an RMS of some thousands, comfort noise below a hundred.
SPEECH_RMS = 400.0
#: So much louder than the background (12 dB).
ABOVE_NOISE = 4.0
#: The background is the quietest tenth of a second of so many.
BACKGROUND_TENTHS = 30
_FRAMES_A_TENTH = 5
#: Of the last 240 ms so many frames of 20 ms are loud when somebody speaks; a click is one.
ONSET_FRAMES = 6
ONSET_OF = 12
#: After so long without a loud frame he has stopped.
PAUSE_S = 0.6
#: Nobody speaks for so long without a pause: it is a noise that has begun.
BREATH_S = 10.0


class Ear:
    """Takes the caller's frames, 20 ms each, as they come."""

    def __init__(self) -> None:
        self.speaking = False
        #: When the last loud frame came.
        self.loud_s = 0.0
        #: Loud frames since he began to speak.
        self.loud_frames = 0
        self._since_s = 0.0
        self._recent: deque[bool] = deque(maxlen=ONSET_OF)
        self._tenths: deque[float] = deque(maxlen=BACKGROUND_TENTHS)
        self._tenth: list[float] = []
        #: The quietest of the tenths; None while there is none.
        self._background: float | None = None

    def hear(self, frame: bytes, now: float) -> bool | None:
        """True: somebody began to speak; False: he has stopped; None: nothing has changed."""
        samples = np.frombuffer(frame, dtype="<i2").astype(np.float32)
        rms = math.sqrt(float(np.dot(samples, samples)) / (samples.size or 1))
        background = rms if self._background is None else self._background
        if not self.speaking or now - self._since_s > BREATH_S:
            self._learn(rms)
        loud = rms > SPEECH_RMS and rms > background * ABOVE_NOISE
        self._recent.append(loud)
        if loud:
            self.loud_s = now
        if self.speaking:
            self.loud_frames += loud
            if now - self.loud_s >= PAUSE_S:
                self.speaking = False
                self._recent.clear()
                return False
        elif loud and sum(self._recent) >= ONSET_FRAMES:
            self.speaking = True
            self._since_s = now
            self.loud_frames = sum(self._recent)
            return True
        return None

    def fall_silent(self) -> bool:
        """The phone sends nothing any more: whether he had been speaking. What is not there teaches
        nothing about the noise around him.
        """
        was_speaking, self.speaking = self.speaking, False
        self._recent.clear()
        return was_speaking

    def _learn(self, rms: float) -> None:
        self._tenth.append(rms)
        if len(self._tenth) == _FRAMES_A_TENTH:
            self._tenths.append(sum(self._tenth) / _FRAMES_A_TENTH)
            self._background = min(self._tenths)
            self._tenth.clear()
