"""What has the caller really heard? The playback clock of one phone leg.

We write audio faster than real time; the phone plays its queue at one second a second. Everything
written lies on one line of milliseconds, the stream: `written_ms` is its end, `played_ms(now)` how
far the phone has come. Items (turns of the agent) are stretches of that line, padding belongs to
none of them.

The clock never claims more than was heard: it starts late by the way to the ear (`lag_ms`), and a
mark that the phone has not returned yet holds it back, so a phone that stalls is noticed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

#: A mark so much later than its audio should have ended is lost, not late.
MARK_LOST_MS = 2000.0
#: A mark so much later than that means a phone, or a way to it, that stands still.
STALL_MS = 250.0


@dataclass(slots=True)
class _Stretch:
    item_id: str
    start_ms: float
    end_ms: float


@dataclass(slots=True)
class _Mark:
    mark_id: str
    at_ms: float
    #: When it should come back, if the phone does not stall.
    due_s: float
    #: It stands behind nothing that was still to be played: it tells only that the phone is there.
    idle: bool


class Playback:
    """The playback clock. All `now` are seconds of one monotonic clock, passed in."""

    def __init__(self, lag_ms: float = 80.0) -> None:
        self.written_ms = 0.0
        # Where the last thing that can be heard ends, while that is still to come; and when it was,
        # once it has been: the clock may be set anew behind it.
        self._audible_ms: float | None = None
        self._sounded_s: float | None = None
        self._lag_ms = lag_ms
        # From each of these times on, the stream is, or was, played from there without a pause:
        # (seconds, milliseconds of the stream), the one being played first.
        self._runs: list[tuple[float, float]] = [(0.0, 0.0)]
        self._stretches: deque[_Stretch] = deque()
        self._marks: deque[_Mark] = deque()
        # The place of the last mark that came back.
        self._told_ms = 0.0
        # None: no mark came back yet. A phone that never returns one is not waited for.
        self._marks_work: bool | None = None
        # Milliseconds of items whose stretches have been forgotten because they were heard.
        self._heard_ms: dict[str, float] = {}

    def played_ms(self, now: float) -> float:
        """How much of the stream the caller has heard, at most."""
        while self._marks:
            late_ms = (now - self._marks[0].due_s) * 1000
            if late_ms < MARK_LOST_MS:
                # While the phone stalls, only what it has told is certain, and what had been heard
                # before it was asked.
                stalls = self._marks_work and late_ms > STALL_MS and not self._marks[0].idle
                held_ms = self._told_ms if stalls else self._marks[0].at_ms
                return min(self._unheld_ms(now), held_ms)
            self._told_ms = self._marks.popleft().at_ms
            if self._marks_work is None:
                self._marks_work = False
                self._marks.clear()
        return self._unheld_ms(now)

    def _unheld_ms(self, now: float) -> float:
        """How far the phone has come if it does not stall."""
        end_ms = self.written_ms
        for at_s, at_ms in reversed(self._runs):
            if now >= at_s:
                return min(end_ms, at_ms + (now - at_s) * 1000)
            end_ms = at_ms
        return end_ms

    def _plays_at_s(self, at_ms: float) -> float:
        """When the phone comes to that place."""
        run_s, run_ms = next((r for r in reversed(self._runs) if r[1] <= at_ms), self._runs[0])
        return run_s + (at_ms - run_ms) / 1000

    def backlog_ms(self, now: float) -> float:
        """Written and not yet played."""
        return self.written_ms - self.played_ms(now)

    def wrote(
        self,
        item_id: str,
        audio_ms: float,
        now: float,
        padding_ms: float = 0.0,
        *,
        audible: bool = True,
    ) -> None:
        """So much audio of an item, and silence behind it, went to the phone.

        `audible` False: the audio itself is silence too.
        """
        self._note_sounded(now)
        arrives_s = now + self._lag_ms / 1000
        if self._plays_at_s(self.written_ms) < arrives_s:
            # The queue will have run dry, whether or not a mark has told: the phone begins again
            # when this reaches it.
            begun = [r for r in self._runs if r[0] <= now]
            later = [r for r in self._runs if r[0] > now and r[1] < self.written_ms]
            self._runs = [*begun[-1:], *later, (arrives_s, self.written_ms)]
        start, end = self.written_ms, self.written_ms + audio_ms
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.item_id == item_id and last.end_ms == start:
            last.end_ms = end
        else:
            self._stretches.append(_Stretch(item_id, start, end))
            self._heard_ms.setdefault(item_id, 0.0)
        if audible:
            self._audible_ms = end
        self.written_ms = end + padding_ms

    def marked(self, mark_id: str, now: float) -> None:
        """A mark was queued behind everything written so far, which may have been heard long
        ago.
        """
        if self._marks_work is not False:
            played_s = self._plays_at_s(self.written_ms)
            mark = _Mark(mark_id, self.written_ms, max(played_s, now), idle=played_s < now)
            self._marks.append(mark)

    def mark_played(self, mark_id: str, now: float) -> bool:
        """The phone returned a mark: all before it was heard. False for one not waited for."""
        mark = next((m for m in self._marks if m.mark_id == mark_id), None)
        if mark is None:
            return False
        position = mark.at_ms
        while self._marks and self._marks[0].at_ms <= position:
            self._marks.popleft()
        self._marks_work = True
        self._told_ms = position
        if mark.idle:
            return True
        self._note_sounded(now)
        # What was written after a pause begins when it came, however early the mark is.
        later = [r for r in self._runs if r[1] > position or (r[1] == position and r[0] > now)]
        self._runs = [(now, position)]
        for at_s, at_ms in later:
            self._runs.append((max(at_s, self._plays_at_s(at_ms)), at_ms))
        for later_mark in self._marks:
            later_mark.due_s = max(later_mark.due_s, self._plays_at_s(later_mark.at_ms))
        return True

    def heard_ms(self, item_id: str, now: float) -> int:
        """Whole milliseconds of the item that were heard."""
        played = self.played_ms(now)
        heard = self._heard_ms.get(item_id, 0.0)
        for stretch in self._stretches:
            if stretch.item_id == item_id:
                heard += max(0.0, min(played, stretch.end_ms) - stretch.start_ms)
        return int(heard)

    def first_at_s(self, item_id: str) -> float | None:
        """When the phone begins, or began, to play the item; None if nothing of it was written."""
        for stretch in self._stretches:
            if stretch.item_id == item_id:
                return self._plays_at_s(stretch.start_ms)
        return None

    def over(self, item_id: str, now: float) -> bool:
        """Everything written of the item has been heard."""
        played = self.played_ms(now)
        return all(s.end_ms <= played for s in self._stretches if s.item_id == item_id)

    def look_again_s(self) -> float:
        """When everything written will have been played, or the last mark must be given up.

        A mark that comes back earlier is an event of its own.
        """
        if self._marks:
            return self._marks[-1].due_s + MARK_LOST_MS / 1000
        return self._plays_at_s(self.written_ms)

    def sounds_until_s(self) -> float | None:
        """When the last sound written so far has been, or will have been, heard."""
        return self._sounded_s if self._audible_ms is None else self._plays_at_s(self._audible_ms)

    def _note_sounded(self, now: float) -> None:
        """Before the clock is set anew: what has been heard by now was heard when it was."""
        until_s = self.sounds_until_s()
        if self._audible_ms is not None and until_s is not None and until_s <= now:
            self._sounded_s, self._audible_ms = until_s, None

    @property
    def marks_idle(self) -> bool:
        """The phone returns marks, and has returned all of them."""
        return bool(self._marks_work) and not self._marks

    def mark_due_s(self) -> float | None:
        """When a phone that returns marks should have returned the next one."""
        return self._marks[0].due_s if self._marks and self._marks_work else None

    def cleared(self, now: float) -> None:
        """Everything not yet played was dropped from the phone's queue."""
        played = self.played_ms(now)
        self._note_sounded(now)
        for stretch in self._stretches:
            heard = max(0.0, min(played, stretch.end_ms) - stretch.start_ms)
            self._heard_ms[stretch.item_id] = self._heard_ms.get(stretch.item_id, 0.0) + heard
        self._stretches.clear()
        self._marks.clear()
        self.written_ms = self._told_ms = played
        if self._audible_ms is not None:
            self._sounded_s, self._audible_ms = now, None
        self._runs = [(now, played)]

    def forget(self, item_id: str) -> None:
        """The item is settled; nobody will ask for it again."""
        self._heard_ms.pop(item_id, None)
        self._stretches = deque(s for s in self._stretches if s.item_id != item_id)
