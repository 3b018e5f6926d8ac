"""What a run from outside found, as a table or as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from tests.load.measure import CallResult


@dataclass(slots=True)
class Round:
    """A number of calls made together or one after the other."""

    name: str
    calls: list[CallResult] = field(default_factory=list)
    #: From the last hang-up until the server counted no live call, and the resources afterwards.
    idle_after_s: float | None = None
    fds_before: int = 0
    fds_after: int = 0
    rss_mib: float = 0.0
    cpu_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def all_problems(self) -> list[str]:
        return [
            *self.problems,
            *(f"{call.uuid}: {text}" for call in self.calls for text in call.problems),
        ]


def table(rounds: list[Round]) -> str:
    """Rows of figures for people."""
    head = f"{'round':<16}{'calls':>6}{'answer':>13}{'greeting':>13}{'clear':>13}{'gaps':>9}"
    head += f"{'idle s':>8}{'fds':>10}{'MiB':>6}{'cpu/call':>9}"
    lines = [head, f"{'':<16}{'':>6}{'med/worst':>13}{'med/worst':>13}{'med/worst':>13}"]
    for each in rounds:
        calls = each.calls
        idle = "never" if each.idle_after_s is None else f"{each.idle_after_s:.2f}"
        gaps_ms = max((call.gaps_ms for call in calls), default=0.0)
        lines.append(
            f"{each.name:<16}{len(calls):>6}"
            f"{_spread(call.answer_ms for call in calls):>13}"
            f"{_spread(call.greeting_ms for call in calls):>13}"
            f"{_spread(call.clear_ms for call in calls):>13}"
            f"{gaps_ms:>9.0f}{idle:>8}{f'{each.fds_before}->{each.fds_after}':>10}"
            f"{each.rss_mib:>6.0f}{each.cpu_s / max(len(calls), 1):>9.3f}"
        )
    lines.append("milliseconds where nothing else is said; gaps: the worst call's silences")
    return "\n".join(lines)


def as_json(rounds: list[Round]) -> str:
    return json.dumps([asdict(each) for each in rounds], indent=1)


def _spread(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.0f}/{max(known):.0f}" if known else "-"
