"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what was seen (nothing secret) and how to mend it."""

    what: str
    level: Level
    seen: str
    mend: str = ""


def ok(what: str, seen: str) -> Finding:
    return Finding(what, Level.OK, seen)


def warn(what: str, seen: str, mend: str) -> Finding:
    return Finding(what, Level.WARN, seen, mend)


def fail(what: str, seen: str, mend: str) -> Finding:
    return Finding(what, Level.FAIL, seen, mend)
