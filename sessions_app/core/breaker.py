"""Whether the model's service counts as down, from how the calls' connections to it fare."""

from __future__ import annotations

from dataclasses import dataclass, field

#: So many calls in a row that could not reach the service mean that it is down …
FAILURES = 5
#: … if they fell within so long: what went wrong an hour ago says nothing.
WINDOW_S = 60.0
#: Between two looks at a service that is down; each pause is longer, up to the last figure.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0


@dataclass
class Breaker:
    """Down after some failures in a row, up after one success; says when to look again."""

    down: bool = False
    _failed: dict[str, float] = field(default_factory=dict)
    _looks: int = 0

    def succeeded(self) -> bool:
        """The service has answered; True if it was down."""
        was_down = self.down
        self.down, self._looks = False, 0
        self._failed.clear()
        return was_down

    def failed(self, call: str, now_s: float) -> bool:
        """A call could not reach the service; True if it is down from now on.

        However often one call tells of it, it is one failure.
        """
        self._failed = {
            other: at for other, at in self._failed.items() if now_s - at <= WINDOW_S
        } | {call: now_s}
        if self.down or len(self._failed) < FAILURES:
            return False
        self.down = True
        return True

    def pause_s(self, jitter: float) -> float:
        """How long to wait before the next look; `jitter` is 0 to 1, so that a fleet does not look
        in step.
        """
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._looks)
        self._looks = min(self._looks + 1, 16)
        return float(pause_s * (0.75 + jitter / 2))
