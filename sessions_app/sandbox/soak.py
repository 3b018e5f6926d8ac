"""Whether a server stays as it was: its figures over many calls, and what they say.

Memory is noisy, since it comes in pages and is given back late. So its slope is Sen's (the median
of the slopes between all pairs of samples), which a few spikes do not move, and it counts as growth
only when two things hold: the lower end of its 99 % confidence interval is above zero, and what it
comes to over the calls that were looked at is more than a process may breathe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

#: What a process may grow by and still be called flat: 4 MiB, or 2 % if that is more.
_BREATH_BYTES: Final = 4 << 20
_BREATH_SHARE: Final = 0.02
#: Pools fill up as chance has it; a resource lost with each call, or with each fault, is far more.
FLAT_SLACK: Final = 5
_WARM_SHARE: Final = 0.2
_ENOUGH_CALLS: Final = 200
_ENOUGH_SAMPLES: Final = 20
_KEPT_SAMPLES: Final = 400
_Z_99: Final = 2.576


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process holds; ``None`` for what nobody tells."""

    rss_bytes: int | None = None
    fds: int | None = None
    tasks: int | None = None
    threads: int | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Figures:
        """From ``process`` of a health report; what is missing or no number is unknown."""
        values = {field.name: told.get(field.name) for field in fields(cls)}
        return cls(**{name: v for name, v in values.items() if isinstance(v, int)})

    def is_like(self, other: Figures | None) -> bool:
        """Whether what has to be flat is the same in both."""
        names = ("fds", "tasks", "threads")
        return other is not None and all(getattr(self, n) == getattr(other, n) for n in names)

    def above(self, before: Figures) -> dict[str, int]:
        """By how much what has to be flat has grown, where it is more than the slack."""
        grown = {}
        for name in ("fds", "tasks", "threads"):
            old, new = getattr(before, name), getattr(self, name)
            if old is not None and new is not None and new > old + FLAT_SLACK:
                grown[name] = new - old
        return grown


@dataclass(frozen=True, slots=True)
class Slope:
    """How memory went over the calls after the first fifth."""

    calls: int
    samples: int
    bytes_per_call: float
    surely_bytes_per_call: float
    """The lower end of the confidence interval."""
    growth_bytes: float
    is_growing: bool


class MemoryLog:
    """Samples of memory against calls done, evenly thinned out when they become many."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, int]] = []
        self._every = 1
        self._count = 0

    def add(self, calls: int, rss_bytes: int) -> None:
        if self._count % self._every == 0:
            self._samples.append((calls, rss_bytes))
        self._count += 1
        if len(self._samples) > _KEPT_SAMPLES:
            del self._samples[1::2]
            self._every *= 2

    def __len__(self) -> int:
        return len(self._samples)

    def slope(self) -> Slope | None:
        """The slope after the first fifth of the calls; ``None`` when it is too little to tell."""
        if not self._samples:
            return None
        last = self._samples[-1][0]
        kept = [sample for sample in self._samples if sample[0] >= last * _WARM_SHARE]
        calls = kept[-1][0] - kept[0][0]
        if last < _ENOUGH_CALLS or len(kept) < _ENOUGH_SAMPLES or calls <= 0:
            return None
        return _sen(np.array(kept, dtype=float), calls)


def _sen(samples: np.ndarray[Any, np.dtype[np.float64]], calls: int) -> Slope | None:
    x, y = samples[:, 0], samples[:, 1]
    one, other = np.triu_indices(len(samples), k=1)
    steps = x[other] - x[one]
    rises = np.sort(((y[other] - y[one])[steps > 0]) / steps[steps > 0])
    count = len(samples)
    spread = _Z_99 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    surely = float(rises[max(0, int((len(rises) - spread) / 2))])
    per_call = float(np.median(rises))
    growth = per_call * calls
    breath = max(_BREATH_BYTES, _BREATH_SHARE * float(np.median(y)))
    return Slope(calls, count, per_call, surely, growth, surely > 0 and growth > breath)
