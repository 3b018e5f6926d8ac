"""Many calls in few figures: what is kept does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.conversation import Ending
from sessions_app.sandbox.faults import Wish

#: What times are rounded to: the frame, below which nothing is heard.
_STEP_S: Final = 0.02
_BROKEN: Final = frozenset(
    {Outcome.BROKEN, Outcome.FAILED, Outcome.NOT_ANSWERED, Outcome.DROPPED, Outcome.UNDECIDED}
)
HEALTHY: Final = "none"


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one caller went through. Times are seconds."""

    index: int
    uuid: str
    wish: Wish | None
    struck: bool | None
    """Whether the fault struck; ``None`` when nobody can say."""
    outcome: Outcome
    ending: Ending
    greeted: bool
    replies_s: tuple[float, ...]
    """From the end of each question to the first sound of its answer."""
    unanswered: int
    """Questions after which nothing was heard."""
    first_sound_s: float | None
    longest_silence_s: float
    met_silence: bool
    released_s: float | None
    """How long the service held on to a caller who had gone without a proper goodbye."""
    clears: int
    frames_received: int
    talked: tuple[str, ...]
    duration_s: float
    errors: tuple[str, ...]

    @property
    def fault(self) -> str:
        """The name under which it is counted."""
        return str(self.wish) if self.wish is not None else HEALTHY

    @property
    def broken(self) -> bool:
        """Whether it ended in a way that no caller should know."""
        ended_well = self.ending.is_good and self.outcome is Outcome.DROPPED
        return (self.outcome in _BROKEN and not ended_well) or (
            self.wish is not None and not self.ending.is_courteous
        )

    @property
    def given_up(self) -> bool:
        """Whether the conversation ended though it had to go on."""
        had_to_go_on = self.wish is None or self.wish.is_recoverable
        return had_to_go_on and not self.ending.is_good


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle, the bad end and the worst of some times in seconds; ``None`` for none."""

    p50: float | None
    p95: float | None
    worst: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of ``values`` (nearest rank)."""
        times = Times()
        for value in values:
            times.add(value)
        return times.spread()


class Times:
    """Counts times by their length, to a frame; the longest is kept as it is."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._worst_s: float | None = None

    def add(self, time_s: float) -> None:
        self._counts[round(time_s / _STEP_S)] += 1
        self._worst_s = time_s if self._worst_s is None else max(self._worst_s, time_s)

    def spread(self) -> Spread:
        last = self._counts.total() - 1
        if last < 0:
            return Spread(None, None, None)
        p95 = min(last, int((last + 1) * 0.95))
        return Spread(self._at(last // 2), self._at(p95), self._worst_s)

    def _at(self, rank: int) -> float:
        for step in sorted(self._counts):
            rank -= self._counts[step]
            if rank < 0:
                return min(round(step * _STEP_S, 2), self._worst_s or 0.0)
        raise IndexError(rank)


@dataclass(frozen=True, slots=True)
class FaultRow:
    """All calls of one fault, or of none."""

    fault: str
    calls: int
    greeted: int
    struck: int | None
    silence_s: Spread
    met_silence: int
    broken: int
    given_up: int
    endings: dict[Ending, int]
    outcomes: dict[Outcome, int]
    released_s: float | None
    """The slowest release of a caller who had gone without a proper goodbye."""

    @property
    def is_good(self) -> bool:
        return not (self.met_silence or self.broken or self.given_up)

    @property
    def never_struck(self) -> bool:
        """Whether nothing is proven by it: the moment that the fault waits for never came."""
        return self.fault != HEALTHY and self.struck == 0


@dataclass(frozen=True, slots=True)
class Summary:
    """All calls of one run."""

    calls: int
    greeted: int
    met_silence: int
    broken: int
    given_up: int
    unanswered: int
    first_sound_s: Spread
    reply_s: Spread
    longest_silence_s: float
    outcomes: dict[Outcome, int]
    duration_s: float
    faults: tuple[FaultRow, ...]

    @property
    def is_good(self) -> bool:
        """Whether no caller met silence, nothing broke, and what had to go on went on."""
        return not (self.met_silence or self.broken or self.given_up)


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    greeted: int = 0
    struck: int | None = 0
    met_silence: int = 0
    broken: int = 0
    given_up: int = 0
    silences: Times = field(default_factory=Times)
    endings: Counter[Ending] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    released_s: float | None = None

    def add(self, result: CallResult) -> None:
        self.calls += 1
        self.greeted += result.greeted
        known = self.struck is not None and result.struck is not None
        self.struck = (self.struck or 0) + bool(result.struck) if known else None
        self.met_silence += result.met_silence
        self.broken += result.broken
        self.given_up += result.given_up
        self.silences.add(result.longest_silence_s)
        self.endings[result.ending] += 1
        self.outcomes[result.outcome] += 1
        if result.released_s is not None:
            self.released_s = max(self.released_s or 0.0, result.released_s)

    def row(self, fault: str) -> FaultRow:
        return FaultRow(
            fault=fault,
            calls=self.calls,
            greeted=self.greeted,
            struck=self.struck,
            silence_s=self.silences.spread(),
            met_silence=self.met_silence,
            broken=self.broken,
            given_up=self.given_up,
            endings=dict(self.endings.most_common()),
            outcomes=dict(self.outcomes.most_common()),
            released_s=self.released_s,
        )


class Tally:
    """Sums up results as they come."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self._first = Times()
        self._replies = Times()
        self._unanswered = 0

    def add(self, result: CallResult) -> None:
        self._sums.setdefault(result.fault, _Sum()).add(result)
        if result.first_sound_s is not None:
            self._first.add(result.first_sound_s)
        for reply_s in result.replies_s:
            self._replies.add(reply_s)
        self._unanswered += result.unanswered

    def summary(self, duration_s: float) -> Summary:
        """What it comes to; healthy calls are the first row."""
        names = sorted(self._sums, key=lambda name: (name != HEALTHY, name))
        rows = tuple(self._sums[name].row(name) for name in names)
        outcomes: Counter[Outcome] = Counter()
        for row in rows:
            outcomes.update(row.outcomes)
        return Summary(
            calls=sum(row.calls for row in rows),
            greeted=sum(row.greeted for row in rows),
            met_silence=sum(row.met_silence for row in rows),
            broken=sum(row.broken for row in rows),
            given_up=sum(row.given_up for row in rows),
            unanswered=self._unanswered,
            first_sound_s=self._first.spread(),
            reply_s=self._replies.spread(),
            longest_silence_s=max((row.silence_s.worst or 0.0 for row in rows), default=0.0),
            outcomes=dict(outcomes),
            duration_s=duration_s,
            faults=rows,
        )


def summarise(results: Sequence[CallResult], duration_s: float) -> Summary:
    """Counts and spreads of ``results``."""
    tally = Tally()
    for result in results:
        tally.add(result)
    return tally.summary(duration_s)
