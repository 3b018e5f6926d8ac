"""The caller's audio, in which every frame says which it is.

A frame is 20 ms of one constant level, and its level is its number (mod 50, so a second goes by
before a number comes again). A constant goes through any resampler unchanged but for its edges, so
the model's stand-in can tell when the middle of a frame has come to it, whatever pieces its audio
is cut into and whatever a resampler holds back. While a phone's number has to be known, its frames
have a level that is the phone's. All levels are far below a telephone's speech.
"""

from __future__ import annotations

from array import array

import numpy as np

FRAME_S = 0.02
PHONE_HZ, MODEL_HZ = 16_000, 24_000
FRAME_SAMPLES = 320
NUMBERS = 50
PHONES_MOST = 100
_STEP = 4
_LOWEST = -100
_PHONE_STEP = 3
_PHONE_LOWEST = 112
#: Half a frame at the model's rate: when so much of a number has come, its middle has.
_HALF = MODEL_HZ // 50 // 2


def _pcm(level: int) -> bytes:
    return array("h", [level] * FRAME_SAMPLES).tobytes()


def numbered(number: int) -> bytes:
    """A frame that tells its number, 0 to 49."""
    return _pcm(_LOWEST + _STEP * number)


def of_phone(phone: int) -> bytes:
    """A frame that tells the phone it comes from, 0 to 99."""
    if not 0 <= phone < PHONES_MOST:
        raise ValueError(f"phone {phone}: a level can tell at most {PHONES_MOST} apart")
    half, rest = divmod(phone, PHONES_MOST // 2)
    level = _PHONE_LOWEST + _PHONE_STEP * rest
    return _pcm(-level if half else level)


class Reader:
    """Reads the model's side of one call's audio, piece by piece."""

    def __init__(self) -> None:
        #: The phone it comes from; None: not known yet.
        self.phone: int | None = None
        self._votes: dict[int, int] = {}
        self._come = [0] * NUMBERS

    def numbers(self, pcm: bytes) -> list[int]:
        """Numbers of frames whose middle has come with this piece."""
        samples = np.frombuffer(pcm, dtype="<i2")
        if self.phone is None:
            self._identify(samples)
            return []
        steps = (samples.astype(np.int32) - _LOWEST + _STEP // 2) // _STEP
        counts = np.bincount(steps[(steps >= 0) & (steps < NUMBERS)], minlength=NUMBERS)
        found: list[int] = []
        for number in np.flatnonzero(counts).tolist():
            before = self._come[number]
            self._come[number] = before + int(counts[number])
            if before < _HALF <= self._come[number]:
                found.append(number)
                # Those of the half second to come begin anew.
                for ahead in range(10, 20):
                    self._come[(number + ahead) % NUMBERS] = 0
        return found

    def _identify(self, samples: np.ndarray) -> None:
        """Two pieces that agree: the first may hold a resampler's onset."""
        if not samples.size:
            return
        level = int(np.median(samples))
        rest, off = divmod(abs(level) - _PHONE_LOWEST + 1, _PHONE_STEP)
        if not 0 <= rest < PHONES_MOST // 2 or off > 2:
            return
        phone = rest + (PHONES_MOST // 2 if level < 0 else 0)
        self._votes[phone] = self._votes.get(phone, 0) + 1
        if self._votes[phone] >= 2:
            self.phone = phone
