"""What has struck in which call: a client that connects again meets the same fault only if that was
wanted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from sessions_app.sandbox.faults import Wish

_KEPT_CALLS: Final = 1000


@dataclass(slots=True)
class CallNotes:
    """One call's. Without a name for the call they are those of one connection."""

    struck: dict[str, int] = field(default_factory=dict)
    """How often, by wish."""
    was_cut: bool = False
    """Whether something was being said when it struck, and its rest never came."""
    caller_has_spoken: bool = False

    def take(self, wish: Wish) -> bool:
        """Whether the fault strikes now; counted when it does."""
        key = str(wish)
        if wish.strikes_once and key in self.struck:
            return False
        self.struck[key] = self.struck.get(key, 0) + 1
        return True

    def has_struck(self, wish: Wish) -> bool:
        return str(wish) in self.struck


class Strikes:
    """The notes of the last calls, by uuid; the oldest are forgotten."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, CallNotes] = OrderedDict()

    def of(self, call: str) -> CallNotes:
        """The notes of a call; ``""``: new ones that nobody else sees."""
        if not call:
            return CallNotes()
        notes = self._calls.setdefault(call, CallNotes())
        self._calls.move_to_end(call)
        if len(self._calls) > _KEPT_CALLS:
            self._calls.popitem(last=False)
        return notes

    def look(self, call: str) -> CallNotes | None:
        """The notes of a call if there are any; looking keeps nothing."""
        return self._calls.get(call)
