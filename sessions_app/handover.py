"""Rows of calls that go from one process to another. Plain synchronous ORM, as `rows`."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models.functions import Now
from django.utils import timezone

from sessions_app.core.events import SaveTurn, Speaker, Turn
from sessions_app.core.memory import Memory
from sessions_app.core.past import Past
from sessions_app.core.usage import UsageSum
from sessions_app.models import CallRecord, CommandKind, Node, TranscriptTurn
from sessions_app.rows import TOLD, find_call

#: What a session notes when its socket has broken, and when another takes its place.
MEDIA_BROKE, MEDIA_REPLACED = "media_broke", "media_replaced"


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A call that is this process's from now on, and what was said in it so far."""

    record: CallRecord
    past: Past


def take_over(uuid: str, node: str, generation: int, *, claim: bool) -> TakenOver | None:
    """Make this node the owner of a live call; with `claim`, by spending a ticket just once.

    Gives None if the call is over or the ticket has been spent.
    """
    calls = CallRecord.objects.live().filter(uuid=uuid)
    if claim:
        calls = calls.filter(ticket_claimed__lt=generation, ticket_generation__gte=generation)
        taken = calls.update(ticket_claimed=generation, node=node, heartbeat_at=Now())
    else:
        taken = calls.update(ticket_generation=generation, node=node, heartbeat_at=Now())
    record = find_call(uuid) if taken else None
    return TakenOver(record, _past(record)) if record is not None else None


def _past(record: CallRecord) -> Past:
    """As far as the process that had the call has written it down; of functions it has not."""
    memory = Memory()
    spoken = record.turns.filter(final=True).exclude(text="").order_by("from_ms", "id")
    memory.keep(SaveTurn(_turn(row)) for row in spoken)
    opened_at = record.media_opened_at
    for whisper in record.commands.filter(kind=CommandKind.WHISPER, answer=TOLD):
        told_at = whisper.answered_at or whisper.requested_at
        after_s = (told_at - opened_at).total_seconds() if opened_at else 0.0
        memory.keep_whisper(whisper.text, max(0.0, after_s * 1000))
    connected_s = (timezone.now() - opened_at).total_seconds() if opened_at else 0.0
    return Past(memory, UsageSum(record.usage), max(0.0, connected_s))


def _turn(row: TranscriptTurn) -> Turn:
    return Turn(
        # Without the mark of the session's life, which the mirror puts before it.
        item_id=row.item_id.partition(".")[2],
        speaker=Speaker(row.speaker),
        text=row.text,
        from_ms=row.from_ms,
        to_ms=row.to_ms,
        interrupted=row.interrupted,
        final=row.final,
    )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A live call of another process."""

    record: CallRecord
    #: Where that process has its sockets.
    media_url: str
    #: How often the caller's media has broken, if it is broken now as far as its process has told;
    #: else 0.
    breaks: int


def look(uuid: str, node: str, lost_s: float) -> Elsewhere | None:
    """What is known of a call that a process other than `node` serves; None if there is none."""
    calls = CallRecord.objects.live().exclude(node=node).select_related("agent")
    record = calls.filter(uuid=uuid).first()
    if record is None:
        return None
    alive = Node.objects.alive(lost_s).filter(name=record.node).first()
    if alive is None:
        return None
    told = record.events.filter(kind__in=(MEDIA_BROKE, MEDIA_REPLACED)).order_by("-id")
    newest = told.first()
    broken = newest is not None and newest.kind == MEDIA_BROKE
    breaks = told.filter(kind=MEDIA_BROKE).count() if broken else 0
    return Elsewhere(record, alive.media_url, breaks)
