"""Who is still there? Decides whose leg the carrier is asked about, and what its answers mean.

Told which sessions live here and when, it names one leg at a time; who asks, and what becomes of
the answer, is `bridge.reconciler`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Ghost(StrEnum):
    """Something that is over on one side and lives on at another, as health counts it."""

    SESSION_WITHOUT_LEG = "session_without_leg"
    LEG_WITHOUT_SESSION = "leg_without_session"
    ROW_WITHOUT_SESSION = "row_without_session"
    ROW_OF_LOST_PROCESS = "row_of_lost_process"
    ROW_CLOSED_TOO_EARLY = "row_closed_too_early"
    TWO_OWNERS = "two_owners"


class LegState(StrEnum):
    """What the carrier says of a caller's leg."""

    UP = "up"
    OVER = "over"
    #: It knows no such leg: never did, has forgotten it, or another of its regions has it.
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    LEAVE = "leave"
    #: The caller has gone; the session is to end.
    END_SESSION = "end_session"
    #: The caller is there and nobody serves him; his leg is to be led to words.
    RESCUE_LEG = "rescue_leg"


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A live session as it looks from outside."""

    uuid: str
    age_s: float
    #: How long ago the phone last sent anything; infinite: its media has not opened.
    media_age_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things are left alone, in seconds."""

    #: A phone that has sent nothing for so long, or not opened its media, is suspect.
    suspect_after_s: float = 5.0
    #: One leg that is suspect is asked about no more often than this.
    suspect_every_s: float = 5.0
    #: The same for a leg that nothing speaks against.
    healthy_every_s: float = 60.0
    #: Vonage's webhook has so long to lead the leg of a lost call to words by itself.
    orphan_after_s: float = 5.0
    #: A leg that cannot be helped by then is given up.
    orphan_most_s: float = 120.0


class Inquiry:
    """Remembers who was asked about when, and what was heard."""

    def __init__(self, pace: Pace | None = None) -> None:
        self._pace = pace or Pace()
        self._asked_s: dict[str, float] = {}
        #: Legs that the carrier did not know when it was last asked.
        self._unknown: set[str] = set()
        #: Calls whose row was closed as lost, and when that was.
        self._orphans: dict[str, float] = {}

    def orphaned(self, uuid: str, now: float) -> None:
        """The row of a call was closed as lost: is its caller still on the line?"""
        self._orphans[uuid] = now

    def is_orphan(self, uuid: str) -> bool:
        return uuid in self._orphans

    def settled(self, uuid: str) -> None:
        """Nothing is left to be done for this orphan."""
        self._orphans.pop(uuid, None)

    def next(self, sessions: Iterable[SessionSeen], now: float) -> str | None:
        """Whose leg is to be asked about now: of a lost call, else of a suspect session, else of
        the one that was not asked about for longest. None: nobody's is due.
        """
        live = list(sessions)
        self._forget({seen.uuid for seen in live}, now)
        waiting = [(0, self._orphan_due_s(*orphan), orphan[0]) for orphan in self._orphans.items()]
        for seen in live:
            waiting.append((1 if self._suspect(seen) else 2, self._due_s(seen, now), seen.uuid))
        due = [each for each in waiting if each[1] <= now]
        if not due:
            return None
        _, _, uuid = min(due)
        self._asked_s[uuid] = now
        return uuid

    def _orphan_due_s(self, uuid: str, since_s: float) -> float:
        asked_s = self._asked_s.get(uuid, -math.inf)
        return max(since_s + self._pace.orphan_after_s, asked_s + self._pace.suspect_every_s)

    def _due_s(self, seen: SessionSeen, now: float) -> float:
        if self._suspect(seen):
            return self._asked_s.get(seen.uuid, -math.inf) + self._pace.suspect_every_s
        return self._asked_s.get(seen.uuid, now - seen.age_s) + self._pace.healthy_every_s

    def judge(self, uuid: str, leg: LegState, seen: SessionSeen | None) -> Verdict:
        """What is to be done, now that the carrier has answered. `seen`: its session, if any."""
        if seen is None:
            if uuid in self._orphans and leg is LegState.UP:
                return Verdict.RESCUE_LEG
            self.settled(uuid)
            return Verdict.LEAVE
        self.settled(uuid)
        was_unknown = uuid in self._unknown
        self._unknown.discard(uuid)
        if leg is LegState.OVER:
            return Verdict.END_SESSION
        if leg is LegState.UNKNOWN and self._suspect(seen):
            # A phone that is heard is there, whatever a carrier asked in the wrong region says;
            # and a leg so new that the carrier's own view lags is asked about twice.
            if was_unknown:
                return Verdict.END_SESSION
            self._unknown.add(uuid)
        return Verdict.LEAVE

    def _suspect(self, seen: SessionSeen) -> bool:
        return min(seen.age_s, seen.media_age_s) >= self._pace.suspect_after_s

    def _forget(self, live: set[str], now: float) -> None:
        """Keep nothing of calls that are gone."""
        for uuid, since_s in list(self._orphans.items()):
            if now - since_s > self._pace.orphan_most_s:
                del self._orphans[uuid]
        for uuid in self._asked_s.keys() - live - self._orphans.keys():
            del self._asked_s[uuid]
        self._unknown &= live
