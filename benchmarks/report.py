"""The tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.figures import Rung

_HEAD = (
    "calls", "system", "CPU ms per call-second", "× bare", "of its core",
    "frame → model p50 / p99 ms", "answer → phone p50 / p99 ms",
    "`speech_started` → `clear` p50 / p99 ms", "greeting p50 / p99 ms", "dry", "kB per call",
    "load late p99 ms",
)  # fmt: skip


def relay_table(rungs: Sequence[Rung]) -> str:
    """One row for each system and number of calls; the medians of its rounds."""
    rows = []
    for calls in dict.fromkeys(rung.calls for rung in rungs):
        level = [rung for rung in rungs if rung.calls == calls]
        floor = _median(rung.cpu_ms_per_call_s for rung in level if rung.system == "bare")
        for system in dict.fromkeys(rung.system for rung in level):
            rows.append(_row([rung for rung in level if rung.system == system], floor))
    return table(_HEAD, rows)


def _row(rounds: Sequence[Rung], floor: float) -> tuple[str, ...]:
    cpu_ms = _median(rung.cpu_ms_per_call_s for rung in rounds)
    share = _median(rung.core_share for rung in rounds)
    overloaded = any(rung.saturated for rung in rounds)
    return (
        str(rounds[0].calls),
        rounds[0].system,
        f"{cpu_ms:.2f}",
        "–" if math.isnan(floor) else f"{cpu_ms / floor:.2f}",
        f"{share:.0%}" + (" (saturated)" if overloaded else ""),
        *(
            pair([getattr(rung, name) for rung in rounds])
            for name in ("to_model_ms", "to_phone_ms", "clear_ms", "greeting_ms")
        ),
        f"{_median(rung.dry for rung in rounds):g}",
        f"{_median(rung.kb_per_call for rung in rounds):.0f}",
        f"{_median(rung.load_late_ms for rung in rounds):.1f}",
    )


def pair(values: Sequence[tuple[float, float]]) -> str:
    """The medians of a median and a 99th percentile, of several rounds."""
    middle, late = (_median(each[at] for each in values) for at in (0, 1))
    return "–" if math.isnan(middle) else f"{middle:.1f} / {late:.1f}"


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal, too."""
    widths = [max(len(line[at]) for line in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + " |"
        )

    return "\n".join([line(head), line(["-" * w for w in widths]), *(line(row) for row in rows)])
