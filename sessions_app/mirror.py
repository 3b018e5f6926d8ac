"""The only place where live calls and rows meet.

Whatever happens in a call is noted here in memory, coalesced, and written a few times a second by
a thread of its own, so audio never waits for the database. While the database is away notes are
kept; when it is back the rows catch up, and they end true.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
)
from django.utils import timezone

from sessions_app import rows
from sessions_app.core.events import EndReason, Turn
from sessions_app.logcontext import call_context
from sessions_app.models import CallState
from sessions_app.publish import publish

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Rows follow within about this long, or twice as long when there are many.
FLUSH_EVERY_S = 0.25
#: One call's change begins so long after another's, where there is time.
APART_MOST_S = 0.01
#: What goes on changing (how far a turn has been heard, what the call has cost so far) follows
#: within this, or with whatever else is written of its call.
LATER_S = 5.0
#: After a failed write the next try comes later and later, up to this.
RETRY_MOST_S = 5.0
#: Events kept for one call; a supplier that misbehaves without end is not told without end.
NOTES_MOST = 300
#: Reports of the carrier that wait for the database.
REPORTS_MOST = 10_000
#: Threads that ask the database.
ASKERS = 3
#: Questions to the database under way at once; more of them find it busy at once.
QUERIES_MOST = 64


class DatabaseBusy(OperationalError):
    """Too many questions are waiting for an answer already; it counts as away."""


def _nothing(mirror: CallMirror) -> None:
    return None


@dataclass(eq=False)
class CallMirror:
    """One session's notes for its call's row: what has changed since it was last written."""

    uuid: str
    #: Everything that makes the row, for the case that it could not be made at the answer.
    base: Mapping[str, Any]
    wake: Callable[[CallMirror], None]
    #: The same for what can wait.
    later: Callable[[CallMirror], None] = _nothing
    fields: dict[str, Any] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    notes: list[rows.EventNote] = field(default_factory=list)
    noted: int = 0
    #: Tells this session's turns from those of another session of the same call.
    life: str = field(default_factory=lambda: secrets.token_hex(4))
    opened_at: datetime | None = None

    def _state(self, state: CallState) -> None:
        if self.fields.get("state", 0) < state:
            self.fields["state"] = state

    def answered(self) -> None:
        """The carrier reports the caller's leg as answered."""
        self._state(CallState.ANSWERED)
        self.fields.setdefault("answered_at", timezone.now())
        self.wake(self)

    def media_opened(self) -> None:
        self.opened_at = now = timezone.now()
        self._state(CallState.LIVE)
        # A leg whose media is open has been answered, whether or not an event says so.
        self.fields["media_opened_at"] = now
        self.fields.setdefault("answered_at", now)
        self.wake(self)

    def claimed(self, generation: int) -> None:
        """The media ticket of this generation has been spent."""
        self.fields |= {"ticket_claimed": generation, "ticket_generation": generation}
        self.wake(self)

    def connects_after(self, delay_ms: int) -> None:
        """What the caller was told; the row may have been made with another delay, too late."""
        self.fields["connect_delay_ms"] = delay_ms
        self.wake(self)

    def greeting_heard(self) -> None:
        self.fields["greeting_heard_at"] = timezone.now()
        self.wake(self)

    def turn(self, turn: Turn) -> None:
        turn = replace(turn, item_id=f"{self.life}.{turn.item_id}"[:100])
        self.turns[turn.item_id] = turn
        if turn.final:
            self.wake(self)
        else:
            self.later(self)

    def usage(self, usage: Mapping[str, int]) -> None:
        self.fields["usage"] = dict(usage)
        self.later(self)

    def note(self, kind: str, detail: str = "", at: datetime | None = None) -> None:
        self.noted += 1
        if self.noted <= NOTES_MOST:
            self.notes.append(rows.EventNote(at or timezone.now(), kind[:50], detail[:500]))
            self.wake(self)

    def ended(self, reason: EndReason) -> None:
        """Replaced sessions end nothing: their row goes on with the newcomer."""
        if reason is EndReason.REPLACED:
            self.note("media_replaced")
            return
        self._state(CallState.ENDED)
        self.fields |= {"ended_at": timezone.now(), "end_reason": reason.value}
        self.wake(self)

    def take(self) -> rows.CallChange:
        """Everything noted since the last time; the caller writes it or puts it back."""
        change = rows.CallChange(
            self.uuid,
            self.base,
            self.fields,
            list(self.turns.values()),
            self.notes,
            self.opened_at,
        )
        self.fields, self.turns, self.notes = {}, {}, []
        return change

    def put_back(self, change: rows.CallChange) -> None:
        """It could not be written: older than what was noted since."""
        older, newer = change.fields, self.fields
        self.fields = {**older, **newer}
        if "state" in older:
            self.fields["state"] = max(older["state"], self.fields["state"])
        for name in rows.FIRST_TOLD_COUNTS:
            if name in older:
                self.fields[name] = older[name]
        self.turns = {**{turn.item_id: turn for turn in change.turns}, **self.turns}
        self.notes = change.notes + self.notes


class Mirror:
    """All calls' notes of this process, the thread that writes them, and one for questions."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mirror-writer")
        self._asker = ThreadPoolExecutor(ASKERS, thread_name_prefix="mirror-asker")
        self._asking = 0
        self._changed: dict[CallMirror, None] = {}
        #: What can wait, and until when; the first to be due comes first.
        self._later: dict[CallMirror, float] = {}
        #: Calls whose changes are on their way to the database.
        self._in_hand: list[str] = []
        self._reports: deque[rows.CarrierReport] = deque(maxlen=REPORTS_MOST)
        self._wake = asyncio.Event()
        self._stopping = False
        self._flushing = asyncio.Lock()
        #: What was wrong with the last write; empty when it went well.
        self.trouble = ""

    def open_threads(self) -> None:
        """Start the threads and have each open its connection, lest they do so one by one during
        calls. Returns at once; a database that is away is found out soon enough.
        """
        together = threading.Barrier(ASKERS)

        def open_own() -> None:
            with suppress(threading.BrokenBarrierError, DatabaseError):
                together.wait(timeout=5)
                _fresh(connection.ensure_connection)

        for _ in range(ASKERS):
            self._asker.submit(open_own)

    # ------------------------------------------------------------------ questions

    async def query(self, ask: Callable[[], T], timeout_s: float) -> T:
        """Run an ORM function in a thread of the mirror's own.

        Raises DatabaseError, or TimeoutError when there is no answer in time.
        """
        if self._asking >= QUERIES_MOST:
            raise DatabaseBusy("too many questions are waiting for the database")
        self._asking += 1

        def answered(future: asyncio.Future[T]) -> None:
            self._asking -= 1
            if not future.cancelled():
                # An error that comes after the asker has left is nobody's.
                future.exception()

        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._asker, _fresh, ask)
        future.add_done_callback(answered)
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(future)

    # ------------------------------------------------------------------ notes

    def open(self, uuid: str, base: Mapping[str, Any]) -> CallMirror:
        """The notes of a call that begins or goes on."""
        return CallMirror(uuid, base, self._write_now, self._write_later)

    def _write_now(self, mirror: CallMirror) -> None:
        self._later.pop(mirror, None)
        self._changed[mirror] = None
        self._wake.set()

    def _write_later(self, mirror: CallMirror) -> None:
        if mirror not in self._changed:
            self._later.setdefault(mirror, asyncio.get_running_loop().time() + LATER_S)

    def report(self, report: rows.CarrierReport) -> None:
        """What the carrier says of a leg; written behind what is known of its call so far."""
        self._reports.append(report)
        self._wake.set()

    def unwritten(self) -> list[str]:
        """Calls of which the database does not know everything yet, their end perhaps. From any
        thread.
        """
        waiting = [*list(self._changed), *list(self._later)]
        return [*self._in_hand, *(mirror.uuid for mirror in waiting)]

    def stop(self) -> None:
        """Let `run` return once what it is writing has been written."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Write changes as they come, until stopped."""
        loop, delay_s = asyncio.get_running_loop(), FLUSH_EVERY_S
        while not self._stopping:
            await self._until_due()
            await asyncio.sleep(delay_s)
            began_s = loop.time()
            if await self._write_due(began_s, over_s=FLUSH_EVERY_S):
                delay_s = max(0.0, began_s + FLUSH_EVERY_S - loop.time())
            else:
                delay_s = min(RETRY_MOST_S, max(FLUSH_EVERY_S, delay_s * 2))

    async def _until_due(self) -> None:
        """There is something to be written now."""
        while not self._wake.is_set():
            due_s = next(iter(self._later.values()), math.inf)
            now = asyncio.get_running_loop().time()
            if due_s <= now:
                return
            # What is noted meanwhile is due no sooner than this.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(due_s - now, LATER_S)):
                    await self._wake.wait()

    async def flush(self) -> bool:
        """Write everything noted so far and tell whoever watches; False if it was not possible."""
        return await self._write_due(math.inf)

    async def _write_due(self, until_s: float, over_s: float = 0.0) -> bool:
        """Write what has changed, and what can wait until then; see `_write`."""
        async with self._flushing:
            self._wake.clear()
            for mirror in [each for each, due_s in self._later.items() if due_s <= until_s]:
                del self._later[mirror]
                self._changed[mirror] = None
            self._in_hand = [mirror.uuid for mirror in self._changed]
            mirrors, self._changed = self._changed, {}
            batch: list[tuple[CallMirror | None, rows.CallChange]]
            batch = [(mirror, mirror.take()) for mirror in mirrors]
            batch += [(None, change) for change in self._join_reports(batch)]
            changes = [change for _, change in batch]
            writing = asyncio.get_running_loop().run_in_executor(
                self._writer, _fresh, lambda: _write(changes, self.node, over_s)
            )

            def settle(done: asyncio.Future[tuple[int, str]]) -> int:
                """What was not written is noted again."""
                failed = done.cancelled() or done.exception() is not None
                written = 0 if failed else done.result()[0]
                for mirror, change in batch[written:]:
                    if mirror is not None:
                        mirror.put_back(change)
                        self._changed[mirror] = None
                left = [report for _, change in batch[written:] for report in change.reports]
                self._reports.extendleft(reversed(left))
                self._in_hand = []
                return written

            try:
                _, trouble = await asyncio.shield(writing)
            except asyncio.CancelledError:
                # Nobody waits any more, but the thread goes on: what it makes of it counts.
                writing.add_done_callback(settle)
                raise
            written = settle(writing)
            await self._publish(changes[:written])
            if trouble and not self.trouble:
                logger.warning("rows cannot be written now, they will catch up: %s", trouble)
            elif self.trouble and not trouble:
                logger.info("rows are being written again")
            self.trouble = trouble
            if trouble:
                self._wake.set()
            return not trouble

    def _join_reports(
        self, batch: list[tuple[CallMirror | None, rows.CallChange]]
    ) -> list[rows.CallChange]:
        """Each report goes with what is written of its call anyway; else it is a change of its
        own, which is given.
        """
        by_call = {change.uuid: change for _, change in batch}
        alone = []
        for report in self._reports:
            change = by_call.get(report.uuid)
            if change is None:
                change = by_call[report.uuid] = rows.CallChange(report.uuid, None)
                alone.append(change)
            change.reports.append(report)
        self._reports.clear()
        return alone

    async def _publish(self, changes: list[rows.CallChange]) -> None:
        for change in changes:
            for message in _messages(change):
                if not await publish(change.uuid, message):
                    # The layer is away: the pages read the rows, nobody else waits for it.
                    return

    async def write(self, change: Callable[[], T]) -> T:
        """Run an ORM function in the writer's thread, in order with everything noted."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, _fresh, change)

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Write what is left, and let the threads go without waiting for a dead database."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.flush():  # noqa: ASYNC110  # a try is due, not an event
                    await asyncio.sleep(FLUSH_EVERY_S)
        except TimeoutError:
            logger.warning("the last changes of some calls were not written")
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._asker.shutdown(wait=False, cancel_futures=True)


def _messages(change: rows.CallChange) -> Iterator[dict[str, Any]]:
    """What those who watch a call are told of a change; see `publish`."""
    if state := change.fields.get("state"):
        name = CallState(state).name.lower()
        reason = change.fields.get("end_reason", "")
        yield {"type": "call.state", "state": name, "reason": reason}
    for turn in change.turns:
        yield {"type": "call.turn", "turn": asdict(turn)}
    for note in change.notes:
        yield {"type": "call.note", "kind": note.kind, "detail": note.detail}


def _fresh(run: Callable[[], T]) -> T:
    """Run with this thread's own connection, made anew if it has died meanwhile.

    The threads live as long as the process, so unlike a request's they keep their connection.
    """
    close_old_connections()
    try:
        return run()
    finally:
        connection.close_at = None


def _write(
    changes: list[rows.CallChange],
    node: str,
    over_s: float = 0.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, str]:
    """Write each change in a transaction of its own; gives how many were, and what stopped it.

    They are spread over some time: Python runs one thread at once, and one that has much to do has
    half of the loop's time for as long as it lasts, while webhooks and audio queue up behind it.

    A change that the database refuses for what it is would be refused for ever: it is told and
    dropped, so that it holds up nobody else's; what the carrier says of the call, and what we say,
    do not fall together.
    """
    began_s, apart_s = clock(), min(APART_MOST_S, over_s / max(1, len(changes)))
    for at, change in enumerate(changes):
        if (early_s := began_s + at * apart_s - clock()) > 0:
            sleep(early_s)
        try:
            if not _accepted(change, node) and change.base is not None and change.reports:
                _accepted(replace(change, reports=[]), node)
                _accepted(rows.CallChange(change.uuid, None, reports=change.reports), node)
        except (OperationalError, InterfaceError) as away:
            return at, str(away).strip() or "away"
    return len(changes), ""


def _accepted(change: rows.CallChange, node: str) -> bool:
    try:
        rows.write(change, node)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        with call_context(change.uuid):
            logger.exception("a change of the row was refused and dropped")
        return False
    return True
