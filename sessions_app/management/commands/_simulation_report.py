"""What a run of simulated calls is told as: a table, JSON, Markdown, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError

from sessions_app.management.commands._rows import as_table
from sessions_app.sandbox.soak import Figures, Slope
from sessions_app.sandbox.tally import FaultRow, Spread, Summary

BEGINS: Final = "<!-- simulate_calls: figures begin -->"
ENDS: Final = "<!-- simulate_calls: figures end -->"
_COLUMNS: Final = (
    "fault", "calls", "struck", "greeted", "silence", "worst", "in the end", "ended", "left",
    "verdict",
)  # fmt: skip
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run has shown."""

    summary: Summary
    left: Mapping[str, int]
    """Calls that were live when they had to be gone, by fault."""
    is_soak: bool = False
    before: Figures = field(default_factory=Figures)
    after: Figures = field(default_factory=Figures)
    slope: Slope | None = None
    seed: int | None = None

    @property
    def wrong(self) -> list[str]:
        """What is wrong, in words; empty when all is well."""
        s = self.summary
        counts = (
            (s.met_silence, "met silence"),
            (s.broken, "broke"),
            (s.given_up, "ended though the conversation had to go on"),
            (sum(self.left.values()), "left something behind"),
        )
        wrong = [f"{count} {what}" for count, what in counts if count]
        if self.is_soak:
            wrong += [f"{by} more {name}" for name, by in self.after.above(self.before).items()]
            if self.slope is not None and self.slope.is_growing:
                wrong.append(f"memory grew by {self.slope.growth_bytes / _MIB:.1f} MiB")
        return wrong

    # --- forms ---

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "summary": asdict(self.summary) | {"is_good": not self.wrong},
            "left_behind": dict(self.left),
        }
        if self.is_soak:
            told["process"] = {
                "before": asdict(self.before),
                "after": asdict(self.after),
                "memory": asdict(self.slope) if self.slope else None,
            }
        return told | ({"seed": self.seed} if self.seed is not None else {})

    def as_text(self) -> str:
        totals = as_table(self._totals(), ("", " ")).strip("\n")
        return f"{totals}\n\n{as_table(self._rows(), _COLUMNS)}"

    def as_markdown(self) -> str:
        rows = [[str(row[name]) for name in _COLUMNS] for row in self._rows()]
        lines = [list(_COLUMNS), ["---"] * len(_COLUMNS), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        totals = "\n".join(f"- {row['']}: {row[' ']}" for row in self._totals())
        return f"{table}\n\n{totals}"

    # --- pieces ---

    def _totals(self) -> list[dict[str, object]]:
        s = self.summary
        rows: list[tuple[str, object]] = [
            ("calls", f"{s.calls} in {s.duration_s:.1f} s"),
            ("greeted", s.greeted),
            ("met silence", s.met_silence),
            ("broke", s.broken),
            ("did not go on", s.given_up),
            ("questions unanswered", s.unanswered),
            ("left behind", sum(self.left.values())),
            ("faults that never struck", sum(row.never_struck for row in s.faults)),
            ("longest silence", f"{s.longest_silence_s:.2f} s"),
            ("first sound", _spread(s.first_sound_s)),
            ("reply", _spread(s.reply_s)),
        ]
        outcomes = sorted(s.outcomes.items(), key=lambda item: -item[1])
        rows += [(f"ended: {outcome}", count) for outcome, count in outcomes]
        if self.seed is not None:
            rows.append(("seed", self.seed))
        if self.is_soak:
            rows += self._process()
        return [{"": name, " ": value} for name, value in rows]

    def _process(self) -> list[tuple[str, object]]:
        rows: list[tuple[str, object]] = []
        grown = self.after.above(self.before)
        for name in ("fds", "tasks", "threads"):
            old, new = getattr(self.before, name), getattr(self.after, name)
            known = old is not None and new is not None
            verdict = f"{old} before, {new} after" + (": not flat" if name in grown else "")
            rows.append((f"idle {name}", verdict if known else "not known"))
        return [*rows, ("memory", self._memory())]

    def _memory(self) -> str:
        old, new, slope = self.before.rss_bytes, self.after.rss_bytes, self.slope
        if old is None or new is None:
            return "not known"
        told = f"{old / _MIB:.0f} MiB before, {new / _MIB:.0f} MiB after"
        if slope is None:
            return f"{told}; too few calls to tell a slope"
        verdict = "GROWING" if slope.is_growing else "flat"
        return (
            f"{told}; {slope.bytes_per_call:+.0f} bytes a call over the last {slope.calls} calls "
            f"(surely above {slope.surely_bytes_per_call:+.0f}): {verdict}"
        )

    def _rows(self) -> list[dict[str, object]]:
        return [
            {
                "fault": row.fault,
                "calls": row.calls,
                "struck": "–" if row.fault == "none" else "?" if row.struck is None else row.struck,
                "greeted": row.greeted,
                "silence": _seconds(row.silence_s.p50),
                "worst": _seconds(row.silence_s.worst),
                "in the end": _counted(row.endings, row.calls),
                "ended": _counted(row.outcomes, row.calls) + _released(row),
                "left": self.left.get(row.fault, 0),
                "verdict": _verdict(row, self.left.get(row.fault, 0)),
            }
            for row in self.summary.faults
        ]


def write_markdown(path: Path, report: Report) -> None:
    """Puts the figures between the marks in the file, or makes it. Raises CommandError."""
    block = f"{BEGINS}\n{report.as_markdown()}\n{ENDS}"
    try:
        old = path.read_text() if path.exists() else f"# Reliability\n\n{BEGINS}\n{ENDS}\n"
        head, begins, rest = old.partition(BEGINS)
        _, ends, tail = rest.partition(ENDS)
        if not begins or not ends:
            raise CommandError(f"{path}: read no marks, wanted {BEGINS} and {ENDS} in it")
        path.write_text(f"{head}{block}{tail}")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


def _seconds(time_s: float | None) -> str:
    return "–" if time_s is None else f"{time_s:.2f} s"


def _counted(counts: Mapping[Any, int], calls: int) -> str:
    """``went on``, or with numbers where not all calls went the same way."""
    return ", ".join(str(what) if n == calls else f"{n} {what}" for what, n in counts.items())


def _released(row: FaultRow) -> str:
    return "" if row.released_s is None else f", released after {row.released_s:.1f} s"


def _verdict(row: FaultRow, left: int) -> str:
    wrong = (
        (row.met_silence, "silence"),
        (row.broken, "broke"),
        (row.given_up, "did not go on"),
        (left, "left behind"),
    )
    told = ", ".join(what for count, what in wrong if count)
    return told or ("never struck" if row.never_struck else "good")


def _spread(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None or spread.worst is None:
        return "none"
    return f"{spread.p50:.2f} s half, {spread.p95:.2f} s of 95 %, {spread.worst:.2f} s worst"
