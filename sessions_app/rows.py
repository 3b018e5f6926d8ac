"""Writing and reading rows of calls: plain synchronous ORM, for threads that may wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet, Value
from django.db.models.functions import Greatest, Now
from django.utils import timezone

from sessions_app.core.events import EndReason, Turn
from sessions_app.models import (
    Agent,
    CallCommand,
    CallEvent,
    CallRecord,
    CallState,
    CommandKind,
    CommandState,
    PhoneNumber,
    TranscriptTurn,
)
from sessions_app.tasks import enqueue_summary

M = TypeVar("M", bound=Model)

#: Answers to commands.
TOLD, HAS_ENDED = "the agent was told", "the call has ended"

#: Set once; a later note of the same moment does not move it.
_FIRST_COUNTS = ("answered_at", "media_opened_at", "greeting_heard_at")
_ONLY_UP = ("state", "ticket_generation", "ticket_claimed")
#: Told by whoever ends the call, and not changed by who comes later.
_OF_THE_END = ("ended_at", "end_reason")
#: Of two notes not written yet, the older one holds.
FIRST_TOLD_COUNTS = _FIRST_COUNTS + _OF_THE_END
#: What a change is decided by. Whatever else of the row is asked for is fetched when it is: to name
#: all its columns takes Django as long as to write a turn.
_DECIDING = (
    "uuid",
    "node",
    "price",
    "carrier_duration_s",
    *_FIRST_COUNTS,
    *_ONLY_UP,
    *_OF_THE_END,
)
_TURN_FIELDS = ["speaker", "text", "from_ms", "to_ms", "interrupted", "final"]


@dataclass(frozen=True, slots=True)
class EventNote:
    at: datetime
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class CarrierReport:
    """What the carrier says of the caller's leg; `fields` are such as price and duration."""

    uuid: str
    at: datetime
    status: str
    fields: dict[str, Any]
    #: The leg is over.
    ended: bool
    #: No session of this process serves the call.
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class CallChange:
    """What has changed in one call, and what the carrier says of it."""

    uuid: str
    #: Makes the row if there is none yet; None: nothing of the call is known here but reports.
    base: Mapping[str, Any] | None
    fields: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    notes: list[EventNote] = field(default_factory=list)
    #: When this session's media opened; its turns count from there, the row's from the first one.
    opened_at: datetime | None = None
    reports: list[CarrierReport] = field(default_factory=list)


def write(change: CallChange, node: str) -> None:
    """Bring one call's row up to date, in one transaction: by what this node says if the call
    belongs to it, by what the carrier says in any case.

    States only move forward; an end that somebody else had to assume (`lost`) is corrected by the
    process that knows better. A report is noted once, however often it comes.
    """
    with transaction.atomic():
        record = _locked(change.uuid)
        new = record is None
        if record is None:
            if change.base is None:
                return
            record = CallRecord(uuid=change.uuid, node=node, **change.base)
            record.heartbeat_at = Now()
        changed: set[str] = set()
        ours, ends = _belongs(record, change, node), False
        if ours:
            if record.node != node:
                record.node = node
                changed.add("node")
            ends = _apply(record, change.fields)
            changed |= change.fields.keys()
        for report in change.reports:
            changed |= _apply_report(record, report)
        if new:
            record.save()
        elif changed:
            record.save(update_fields=changed)
        notes = list(change.notes) if ours else []
        notes += _reports_to_note(record, change.reports, new=new)
        if ours and change.turns:
            _write_turns(record, change)
        CallEvent.objects.bulk_create(
            [CallEvent(call=record, at=n.at, kind=n.kind, detail=n.detail) for n in notes]
        )
        if record.is_live and any(each.ended and each.elsewhere for each in change.reports):
            _tell_of_end(record)
        if ends and record.turns.exclude(text="").exists():
            enqueue_summary(record)


def _belongs(record: CallRecord, change: CallChange, node: str) -> bool:
    """Two processes that had no database may both have begun the call. The caller is where the
    newest ticket was spent; the other one lets go when it finds the call moved.
    """
    newest = change.fields.get("ticket_claimed", 0) > record.ticket_claimed
    return record.node == node or newest


def _apply_report(record: CallRecord, report: CarrierReport) -> set[str]:
    """Take over what was not known before; gives the names of what has changed."""
    changed = {name for name in report.fields if getattr(record, name) in (None, "")}
    for name in changed:
        setattr(record, name, report.fields[name])
    if report.ended and record.state == CallState.HELD:
        # No process serves it, so nobody else would close it.
        record.state, record.ended_at = CallState.ENDED, report.at
        record.end_reason = EndReason.CALLER_HUNG_UP.value
        changed |= {"state", "ended_at", "end_reason"}
    return changed


def _reports_to_note(
    record: CallRecord, reports: list[CarrierReport], *, new: bool
) -> list[EventNote]:
    """Each status once."""
    told = {each.status for each in reports}
    known: set[str] = set()
    if told and not new:
        noted = CallEvent.objects.filter(call=record, kind="carrier", detail__in=told)
        known.update(noted.values_list("detail", flat=True))
    notes = []
    for each in reports:
        if each.status not in known:
            known.add(each.status)
            notes.append(EventNote(each.at, "carrier", each.status))
    return notes


def _write_turns(record: CallRecord, change: CallChange) -> None:
    offset_ms = _ms_between(record.media_opened_at, change.opened_at)
    TranscriptTurn.objects.bulk_create(
        [_turn_row(record, turn, offset_ms) for turn in change.turns],
        update_conflicts=True,
        unique_fields=["call", "item_id"],
        update_fields=_TURN_FIELDS,
    )


def _tell_of_end(record: CallRecord) -> None:
    """By a command to the process that serves the call still, once."""
    asked = record.commands.filter(kind=CommandKind.CARRIER_ENDED)
    if not asked.exists():
        CallCommand.objects.create(call=record, kind=CommandKind.CARRIER_ENDED)


def _locked(uuid: str) -> CallRecord | None:
    """The call's row, for us alone until the transaction's end."""
    return _only(CallRecord.objects.select_for_update().only(*_DECIDING).filter(uuid=uuid))


def _only(found: QuerySet[M]) -> M | None:
    """The row of a key that is unique. `first()` would have the database sort it, and takes half
    as long again to say so.
    """
    return next(iter(found.order_by()), None)


def _apply(record: CallRecord, fields: dict[str, Any]) -> bool:
    """Take over the fields; True if the call ends by them."""
    was_live = not record.has_ended
    corrected = record.end_reason == EndReason.LOST and fields.get("state") == CallState.ENDED
    for name, value in fields.items():
        if name in _ONLY_UP:
            setattr(record, name, max(getattr(record, name), value))
        elif name in _FIRST_COUNTS:
            setattr(record, name, getattr(record, name) or value)
        elif name not in _OF_THE_END or was_live or corrected:
            setattr(record, name, value)
    return (was_live or corrected) and record.has_ended


def _ms_between(first: datetime | None, later: datetime | None) -> int:
    """How long after the call's media first opened this session's did."""
    if first is None or later is None:
        return 0
    return max(0, round((later - first).total_seconds() * 1000))


def _turn_row(record: CallRecord, turn: Turn, offset_ms: int) -> TranscriptTurn:
    return TranscriptTurn(
        call=record,
        item_id=turn.item_id,
        speaker=turn.speaker.value,
        text=turn.text,
        from_ms=turn.from_ms + offset_ms,
        to_ms=None if turn.to_ms is None else turn.to_ms + offset_ms,
        interrupted=turn.interrupted,
        final=turn.final,
    )


# ---------------------------------------------------------------------- answering


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers a number: the agent (None: nobody), and whose call it is."""

    agent: Agent | None
    user_id: int | None


def find_route(called: str, agent_name: str = "") -> Route:
    """The agent of the number, else the default one; the number's owner, else the agent's.

    `agent_name` is asked for by calls from this service's own pages only.
    """
    agents = Agent.objects.select_related(None)
    if agent_name and (agent := agents.filter(name=agent_name).first()):
        return Route(agent, agent.owner_id)
    number = _only(PhoneNumber.objects.select_related("agent").filter(number=called))
    if number is not None:
        return Route(number.agent, number.owner_id or number.agent.owner_id)
    default = _only(agents.filter(is_default=True))
    return Route(default, default.owner_id if default else None)


def find_call(uuid: str) -> CallRecord | None:
    return _only(CallRecord.objects.select_related("agent").filter(uuid=uuid))


def keep_ticket(uuid: str, generation: int, issued_s: int, delay_ms: int) -> None:
    """Put a newer ticket on its call's row, and when its connect is to be."""
    with transaction.atomic():
        CallRecord.objects.filter(uuid=uuid, ticket_generation__lt=generation).update(
            ticket_generation=generation, ticket_issued_s=issued_s, connect_delay_ms=delay_ms
        )


def spend_ticket(uuid: str, generation: int) -> bool:
    """Spend a ticket on its call's row; False if it or a newer one has been spent.

    A call whose row is still to be made has nobody to compete with.
    """
    calls = CallRecord.objects.filter(uuid=uuid)
    with transaction.atomic():
        spent = calls.filter(ticket_claimed__lt=generation).update(
            ticket_claimed=generation,
            ticket_generation=Greatest("ticket_generation", Value(generation)),
        )
        return bool(spent) or not calls.exists()


# ---------------------------------------------------------------------- staying true


def heartbeat(node: str, uuids: list[str]) -> None:
    """These live calls of this node are alive, by the database's clock.

    A live row of this node that no session backs is not among them, and is reaped in time.
    """
    calls = CallRecord.objects.live().filter(node=node, uuid__in=uuids)
    calls.update(heartbeat_at=Now())


def reap(lost_s: float) -> list[str]:
    """Close rows whose process has not been heard for so long; gives their uuids."""
    uuids = []
    for record in CallRecord.objects.silent_for(lost_s):
        with transaction.atomic():
            # One that is locked has been written to this very moment, or its process was stopped in
            # the middle of that: the database gives it up in a while, and nobody waits meanwhile.
            silent = CallRecord.objects.silent_for(lost_s).select_for_update(skip_locked=True)
            if not silent.filter(pk=record.pk).exists():
                continue
            CallRecord.objects.filter(pk=record.pk).update(
                state=CallState.ENDED, end_reason=EndReason.LOST.value, ended_at=Now()
            )
            uuids.append(record.uuid)
            CallEvent.objects.create(
                call=record, at=timezone.now(), kind="lost", detail=f"node {record.node}"
            )
            _answer_commands(record, "the call's process was lost")
            record.refresh_from_db()
            if record.turns.exclude(text="").exists():
                enqueue_summary(record)
    return uuids


def end_former_life(node: str, began: datetime) -> None:
    """Give up live rows under this node's own name that are older than this process: another
    process had the name, and has gone. The next `reap` closes them.
    """
    former = CallRecord.objects.live().filter(node=node, ringing_at__lt=began)
    former.update(heartbeat_at=began - timedelta(days=1))


def _answer_commands(record: CallRecord, answer: str) -> None:
    record.commands.filter(state=CommandState.ASKED).update(
        state=CommandState.DONE, answer=answer, answered_at=timezone.now()
    )


def asked_of(node: str) -> list[CallCommand]:
    """Commands for calls of this node that wait for its answer, oldest first."""
    waiting = CallCommand.objects.filter(state=CommandState.ASKED, call__node=node)
    return list(waiting.select_related("call").order_by("requested_at", "id")[:100])


def answer_command(command: CallCommand, state: CommandState, answer: str) -> None:
    CallCommand.objects.filter(pk=command.pk, state=CommandState.ASKED).update(
        state=state, answer=answer, answered_at=timezone.now()
    )


def moved_away(node: str, uuids: list[str]) -> list[str]:
    """Which of these calls another process serves now."""
    if not uuids:
        return []
    calls = CallRecord.objects.filter(uuid__in=uuids).exclude(node=node)
    return list(calls.values_list("uuid", flat=True))


def find_by_conversation(conversation_uuid: str) -> CallRecord | None:
    found: CallRecord | None = (
        CallRecord.objects.filter(conversation_uuid=conversation_uuid)
        .select_related("agent")
        .first()
        if conversation_uuid
        else None
    )
    return found
