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

#: How many zero crossings of the filter are used on each side: a millisecond at 16 kHz, all that is
#: ever held back. With this window the next band is 80 dB down some 1 kHz behind its edge.
_CROSSINGS = 16
_KAISER_BETA = 8.0
#: The edge of what is let through, of the lower rate's own limit.
_EDGE = 0.92
_STRETCH_S = 0.002
#: So many stretches at a time; many more, and the mathematics library begins threads of its own.
_STRETCHES_MOST = 64

_S16LE = np.dtype("<i2")
_SAMPLE_BYTES = _S16LE.itemsize
#: As arrays, since each number that is given would be made one, for every piece.
_LEAST, _MOST = np.array(-32768, np.float32), np.array(32767, np.float32)


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
        self.matrix: NDArray[np.float32] = (taps / taps.sum(axis=0)).astype(np.float32)


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
        self._kept = bytes(_SAMPLE_BYTES * before)
        self._came = self._gone = 0

    def feed(self, pcm: bytes) -> bytes:
        """The next piece, of a whole number of samples; gives what is ready, maybe nothing."""
        if self._filter is None:
            return pcm
        if len(pcm) % _SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes are no whole number of samples")
        self._came += len(pcm) // _SAMPLE_BYTES
        return self._take(pcm)

    def flush(self) -> bytes:
        """What was held back; the next piece begins a new stream."""
        if self._filter is None:
            return b""
        due = round(self._came * self._filter.become / self._filter.many) - self._gone
        silence = bytes(_SAMPLE_BYTES * (self._filter.around + self._filter.step))
        rest = self._take(silence)[: _SAMPLE_BYTES * due]
        self.reset()
        return rest

    def _take(self, pcm: bytes) -> bytes:
        assert self._filter is not None
        step, width, matrix = self._filter.step, self._filter.width, self._filter.matrix
        kept, step_bytes = self._kept + pcm, step * _SAMPLE_BYTES
        stretches = max(0, (len(kept) // _SAMPLE_BYTES - width) // step + 1)
        ready = []
        for first in range(0, stretches, _STRETCHES_MOST):
            count = min(_STRETCHES_MOST, stretches - first)
            # Each row begins a step behind the one before, in the same memory.
            rows: NDArray[np.int16] = np.ndarray(
                (count, width), _S16LE, kept, first * step_bytes, (step_bytes, _SAMPLE_BYTES)
            )
            out = rows.astype(np.float32).dot(matrix)
            np.rint(out, out=out)
            out.clip(_LEAST, _MOST, out=out)
            ready.append(out.astype(_S16LE).tobytes())
        self._kept = kept[stretches * step_bytes :]
        self._gone += stretches * matrix.shape[1]
        return b"".join(ready)
