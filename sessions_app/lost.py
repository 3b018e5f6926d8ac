"""Rows of calls whose process was lost, or was thought to be. Synchronous ORM, like `rows`."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from sessions_app import rows
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import EndReason
from sessions_app.models import CallEvent, CallRecord, CallState, Node, SummaryState

#: Of the media leg, on the row: Vonage asked what to do, and was given words for the caller.
LED_TO_WORDS = "media_leg_failed"


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call whose row was closed as lost: whose it was, and what its caller can be offered."""

    uuid: str
    node: str
    #: Where the process that had it has its sockets; empty: nobody knows.
    media_url: str
    region_url: str
    called: str
    agent: AgentProfile | None


def reap(lost_s: float) -> list[LostCall]:
    """Close rows whose process has not been heard for so long, and tell of them."""
    return [call for uuid in rows.reap(lost_s) if (call := _lost_call(uuid)) is not None]


def _lost_call(uuid: str) -> LostCall | None:
    record = rows.find_call(uuid)
    if record is None:
        return None
    node = Node.objects.filter(name=record.node).first()
    return LostCall(
        uuid,
        record.node,
        node.media_url if node else "",
        record.region_url,
        record.called,
        record.agent.profile() if record.agent else None,
    )


def reopen(node: str, uuids: list[str]) -> list[str]:
    """Undo what others assumed of calls that live here; gives their uuids.

    `lost` says that the call's process was not heard for a while (it hung, or had no database), and
    that process knows better. No other end is ever undone.
    """
    if not uuids:
        return []
    wrong = CallRecord.objects.filter(
        node=node, uuid__in=uuids, state=CallState.ENDED, end_reason=EndReason.LOST.value
    )
    opened = []
    for found in wrong:
        with transaction.atomic():
            record = wrong.select_for_update().filter(pk=found.pk).first()
            if record is None:
                continue
            record.state = _state_reached(record)
            record.ended_at, record.end_reason, record.heartbeat_at = None, "", Now()
            if record.summary_state == SummaryState.PENDING:
                # The end asks for one, of the whole call.
                record.summary_state, record.summary_due_at = SummaryState.NONE, None
            record.save()
            CallEvent.objects.create(
                call=record, at=timezone.now(), kind="not_lost", detail=f"node {node} has it"
            )
        opened.append(record.uuid)
    return opened


def _state_reached(record: CallRecord) -> CallState:
    if record.media_opened_at is not None:
        return CallState.LIVE
    return CallState.ANSWERED if record.answered_at is not None else CallState.RINGING


def led_to_words(uuid: str) -> bool:
    """Whether Vonage has asked any of our processes what the caller is to hear instead."""
    events = CallEvent.objects.filter(call__uuid=uuid, kind="carrier", detail=LED_TO_WORDS)
    return bool(events.exists())


def note(uuid: str, kind: str, detail: str) -> None:
    """An event on the row of a call that has no session here."""
    call = CallRecord.objects.filter(uuid=uuid).first()
    if call is not None:
        CallEvent.objects.create(call=call, at=timezone.now(), kind=kind, detail=detail[:500])
