"""Changes the rate of a stream of speech, keeping its state from piece to piece.

Why not the library that does so: in every call, one of its streams each way holds 100 kB, and the
one with a filter towards the ear keeps speech back for 25 ms (docs/adr/0011). The rates of a
telephone and of a model are small multiples of each other, so a stretch of 2 ms is turned into its
samples at the other rate by one small matrix, which all calls share; a stream's own state is some
hundred bytes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

#: How many zero crossings of the filter are used on each side: a millisecond at 16 kHz, all that is
#: ever held back. With this window the next band is 80 dB down some 1 kHz behind its edge.
_CROSSINGS = 16
_KAISER_BETA = 8.0
#: The edge of what is let through, of the lower rate's own limit.
_EDGE = 0.92
_STRETCH_S = 0.002
#: So many stretches at a time; many more, and the mathematics library begins threads of its own.
_STRETCHES_MOST = 64


class _Filter:
    """One pair of rates. `matrix` turns `width` samples, the last `step` of them with what has to
    be known around them, into the samples of one stretch at the other rate.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        divisor = math.gcd(from_hz, to_hz)
        #: So many samples become so many.
        self.many, self.become = from_hz // divisor, to_hz // divisor
        ratio = self.many / self.become
        self.around = math.ceil(_CROSSINGS * max(1.0, ratio))
        groups = max(1, round(from_hz * _STRETCH_S / self.many))
        self.step = groups * self.many
        self.width = self.step - 1 + 2 * self.around
        at = np.arange(groups * self.become) * ratio
        distance = at[None, :] - (np.arange(self.width)[:, None] - (self.around - 1))
        inside = np.clip(1 - (distance / self.around) ** 2, 0, None)
        window = np.i0(_KAISER_BETA * np.sqrt(inside)) * (np.abs(distance) < self.around)
        edge = _EDGE * min(1.0, 1 / ratio)
        taps = np.sinc(edge * distance) * window
        # Every sample weighs the same: a constant stays what it is.
        self.matrix: Samples = (taps / taps.sum(axis=0)).astype(np.float32)


_filter = lru_cache(maxsize=None)(_Filter)


class Resampler:
    """One stream, s16le mono."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz, self.to_hz = from_hz, to_hz
        self._filter = _filter(from_hz, to_hz) if from_hz != to_hz else None
        self.reset()

    def reset(self) -> None:
        """Forget what was held back; the next piece begins a new stream."""
        before = self._filter.around - 1 if self._filter is not None else 0
        #: What has come and is still needed, behind the silence before the first of it.
        self._kept: Samples = np.zeros(before, dtype=np.float32)
        self._came = self._gone = 0

    def feed(self, pcm: bytes) -> bytes:
        """The next piece, of a whole number of samples; gives what is ready, maybe nothing."""
        if self._filter is None:
            return pcm
        samples = np.frombuffer(pcm, dtype="<i2")
        self._came += samples.size
        return self._take(samples.astype(np.float32))

    def flush(self) -> bytes:
        """What was held back; the next piece begins a new stream."""
        if self._filter is None:
            return b""
        due = round(self._came * self._filter.become / self._filter.many) - self._gone
        silence = np.zeros(self._filter.around + self._filter.step, dtype=np.float32)
        rest = self._take(silence)[: 2 * due]
        self.reset()
        return rest

    def _take(self, samples: Samples) -> bytes:
        assert self._filter is not None
        step, width, matrix = self._filter.step, self._filter.width, self._filter.matrix
        kept = np.concatenate((self._kept, samples))
        stretches = max(0, (kept.size - width) // step + 1)
        out = np.empty((stretches, matrix.shape[1]), dtype=np.float32)
        for first in range(0, stretches, _STRETCHES_MOST):
            count = min(_STRETCHES_MOST, stretches - first)
            # Each row begins a step behind the one before, in the same memory.
            rows: Samples = np.ndarray(
                (count, width), np.float32, kept, first * step * 4, (step * 4, 4)
            )
            np.matmul(np.ascontiguousarray(rows), matrix, out=out[first : first + count])
        np.rint(out, out=out)
        np.minimum(out, 32767, out=out)
        np.maximum(out, -32768, out=out)
        self._kept = kept[stretches * step :].copy()
        self._gone += out.size
        return out.astype("<i2").tobytes()
