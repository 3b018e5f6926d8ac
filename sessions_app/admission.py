"""Rows of calls that come in: places for their connects, and calls that are held.

Plain synchronous ORM, as `rows`. What two processes could decide differently in the same moment is
decided under a lock, or by an UPDATE that only one of them can win.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from sessions_app.core.events import EndReason
from sessions_app.core.pacing import Pace
from sessions_app.models import CallEvent, CallRecord, CallState, ConnectPace

#: A held call asks again after each sentence; one that has not for so long has gone.
HOLD_PATIENCE_S = 60.0


class HeldEnough(Exception):
    """As many calls are held as may be."""


def take_place(per_second: int, lead_ms: int = 0) -> int:
    """How long to wait before one more `connect`, fleet-wide. Raises `core.pacing.Crowded`.

    The row is locked until the caller's transaction ends, so what it writes beside is decided
    together with the place.
    """
    if not per_second:
        return lead_ms
    with transaction.atomic():
        row = _locked_pace()
        pace = Pace(per_second, row.taken)
        delay_ms = pace.take(_now_ms(), lead_ms)
        row.taken = pace.taken
        row.save(update_fields=["taken"])
    return delay_ms


def _locked_pace() -> ConnectPace:
    row, _ = ConnectPace.objects.select_for_update().get_or_create(pk=1)
    return row


def _now_ms() -> int:
    """By the database's clock, which is the fleet's; SQLite's is this machine's."""
    if connection.vendor != "postgresql":
        return int(time.time() * 1000)
    with connection.cursor() as cursor:
        # Not `now()`: that is when the transaction began, before the lock was waited for.
        cursor.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000")
        (now_ms,) = cursor.fetchone()
    return int(now_ms)


def create(uuid: str, node: str, base: Mapping[str, Any], per_second: int) -> CallRecord:
    """The row of a call that is taken in, with the place of its connect.

    Raises IntegrityError if another process has made it, `core.pacing.Crowded` if there is no
    place; then neither is left.
    """
    with transaction.atomic():
        delay_ms = take_place(per_second)
        return CallRecord.objects.create(
            uuid=uuid, node=node, **{**base, "connect_delay_ms": delay_ms}
        )


# ---------------------------------------------------------------------- on hold


def hold(uuid: str, node: str, base: Mapping[str, Any], why: str, most: int) -> CallRecord:
    """The row of a call that waits for a slot.

    Raises IntegrityError if the call has a row, and HeldEnough if so many are held already.
    """
    with transaction.atomic():
        _locked_pace()
        if CallRecord.objects.held().count() >= most:
            raise HeldEnough(f"{most} calls are on hold already")
        fields = {**base, "state": CallState.HELD, "hold_round": 1}
        record = CallRecord.objects.create(uuid=uuid, node=node, **fields)
        _note(record, "held", why)
        return record


def hold_on(uuid: str, round_: int) -> bool:
    """One more sentence; False if somebody else has decided about this round."""
    waiting = CallRecord.objects.held().filter(uuid=uuid, hold_round__lte=round_)
    return bool(waiting.update(hold_round=round_ + 1, heartbeat_at=Now()))


def take_from_hold(
    uuid: str, node: str, round_: int, issued_s: int, per_second: int
) -> CallRecord | None:
    """Make a held call a live one of this node; None if somebody else has decided about it.

    Raises `core.pacing.Crowded` if there is no place for its connect.
    """
    with transaction.atomic():
        delay_ms = take_place(per_second)
        record: CallRecord | None = (
            CallRecord.objects.held()
            .select_for_update(of=("self",))
            .select_related("agent")
            .filter(uuid=uuid, hold_round__lte=round_)
            .first()
        )
        if record is None:
            transaction.set_rollback(True)
            return None
        record.connect_delay_ms = delay_ms
        record.state, record.node = CallState.RINGING, node
        record.heartbeat_at = timezone.now()
        record.ticket_generation += 1
        record.ticket_issued_s = issued_s
        record.save()
        _note(record, "taken_from_hold", f"after {round_} sentences")
        return record


def end_hold(uuid: str, round_: int, why: str, delay_ms: int) -> bool:
    """The call could not be taken in; False if somebody else has decided about this round."""
    with transaction.atomic():
        ended = _close_held(
            uuid, EndReason.REFUSED, hold_round__lte=round_, connect_delay_ms=delay_ms
        )
        if ended is not None:
            _note(ended, "refused", why)
    return ended is not None


def close_lost_holds() -> list[str]:
    """Close held calls that ask no more, whose end nobody has told; gives their uuids."""
    silent = CallRecord.objects.held().filter(
        heartbeat_at__lt=Now() - timedelta(seconds=HOLD_PATIENCE_S)
    )
    closed = []
    for uuid in silent.values_list("uuid", flat=True):
        with transaction.atomic():
            if (ended := _close_held(uuid, EndReason.REFUSED)) is not None:
                _note(ended, "refused", "asked no more while on hold")
                closed.append(uuid)
    return closed


def _close_held(
    uuid: str, reason: EndReason, *, connect_delay_ms: int = 0, **still: Any
) -> CallRecord | None:
    waiting = CallRecord.objects.held().filter(uuid=uuid, **still)
    if not waiting.update(
        state=CallState.ENDED,
        end_reason=reason.value,
        ended_at=Now(),
        connect_delay_ms=connect_delay_ms,
    ):
        return None
    ended: CallRecord = CallRecord.objects.get(uuid=uuid)
    return ended


def _note(record: CallRecord, kind: str, detail: str) -> None:
    CallEvent.objects.create(call=record, at=timezone.now(), kind=kind, detail=detail[:500])
