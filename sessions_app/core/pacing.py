"""When each `connect` may begin, so that the carrier refuses none.

Vonage takes three call creations a second from an account, `connect` actions among them, and
refuses what is beyond that: nothing is queued. So every connect has a place in time, and the caller
is spoken to until then. Times are whole milliseconds of any clock that all who ask share.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

#: The carrier's second, and a tenth more: replies take now longer, now shorter on their way.
WINDOW_MS = 1100
#: Nobody is spoken to for longer; who would have to wait longer counts as beyond the capacity.
LONGEST_DELAY_MS = 20_000


class Crowded(Exception):
    """Every place within the longest delay is taken."""


class Pace:
    """The places that are taken, and the next one that is free."""

    def __init__(self, per_second: int, taken: Iterable[int] = ()) -> None:
        #: At most so many in any second; 0: no limit.
        self._most = per_second
        self.taken = sorted(taken)

    def take(self, now_ms: int, lead_ms: int = 0) -> int:
        """Take the first place that is `lead_ms` or more away; gives how far away it is.

        Raises Crowded, and takes none, if it is further away than `lead_ms` and the longest delay.
        """
        if not self._most:
            return lead_ms
        self._forget(now_ms)
        earliest_ms = now_ms + lead_ms
        later = [at + WINDOW_MS for at in self.taken if at + WINDOW_MS > earliest_ms]
        place_ms = next(at for at in (earliest_ms, *later) if self._is_free(at))
        if place_ms - earliest_ms > LONGEST_DELAY_MS:
            raise Crowded(f"every connect of the next {LONGEST_DELAY_MS // 1000} s is taken")
        insort(self.taken, place_ms)
        return place_ms - now_ms

    def note(self, now_ms: int, delay_ms: int) -> None:
        """Somebody connects then, whether or not there is a place."""
        self._forget(now_ms)
        if self._most:
            insort(self.taken, now_ms + delay_ms)

    def _forget(self, now_ms: int) -> None:
        # A place far ahead was taken before a clock was set back.
        self.taken = [at for at in self.taken if -WINDOW_MS < at - now_ms < 10 * LONGEST_DELAY_MS]

    def _is_free(self, place_ms: int) -> bool:
        near = [at for at in self.taken if abs(at - place_ms) < WINDOW_MS]
        insort(near, place_ms)
        spans = zip(near, near[self._most :], strict=False)
        return all(last - first >= WINDOW_MS for first, last in spans)
