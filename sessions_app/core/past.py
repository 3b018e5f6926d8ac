"""What a session of a call leaves to the one that takes its place."""

from __future__ import annotations

from dataclasses import dataclass, field

from sessions_app.core.memory import Memory
from sessions_app.core.usage import UsageSum


@dataclass(frozen=True, slots=True)
class Past:
    memory: Memory = field(default_factory=Memory)
    usage: UsageSum = field(default_factory=UsageSum)
    #: How long the caller has been connected so far.
    connected_s: float = 0.0
