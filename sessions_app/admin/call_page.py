"""One call as its page tells it: plain values for the template, read from the rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from sessions_app.admin.whisper import WhisperForm
from sessions_app.admin.words import Row, clock, rows, shown_caller, state_badge
from sessions_app.core.events import Speaker
from sessions_app.models import CallRecord, CommandKind, CommandState, SummaryState

EVENTS_SHOWN = 300
#: How soon the page asks again; 0: nothing will change any more.
LIVE_POLL_MS, ASKED_POLL_MS, SETTLING_POLL_MS = 2000, 500, 5000


@dataclass(frozen=True, slots=True)
class TurnLine:
    """One stretch of speech, on the call's clock."""

    pk: int
    speaker: str
    who: str
    at: str
    text: str
    interrupted: bool
    unfinished: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of the call; `after` is counted from the ringing."""

    label: str
    at: datetime
    after: str


@dataclass(frozen=True, slots=True)
class EventLine:
    at: datetime
    after: str
    kind: str
    detail: str


def elapsed_s(call: CallRecord) -> int:
    """How long the call lasted, or goes on already, from its answer."""
    done = call.duration_s
    if done is not None:
        return max(done, 0)
    start = call.answered_at or call.media_opened_at or call.ringing_at
    return max(round((timezone.now() - start).total_seconds()), 0)


def poll_ms(call: CallRecord) -> int:
    """While a call goes on its page follows it, closely while somebody waits for an answer;
    afterwards until everything has its result.
    """
    if call.is_live:
        asked = call.commands.filter(state=CommandState.ASKED).exists()
        return ASKED_POLL_MS if asked else LIVE_POLL_MS
    waiting = call.summary_state in (SummaryState.PENDING, SummaryState.RUNNING)
    return SETTLING_POLL_MS if waiting else 0


def is_asked(call: CallRecord, kind: CommandKind, text: str = "") -> bool:
    """Somebody has asked for it and the call's process has not answered yet."""
    return call.commands.filter(kind=kind, text=text, state=CommandState.ASKED).exists()


def context(
    call: CallRecord,
    *,
    may_hang_up: bool,
    may_see_number: bool,
    may_whisper: bool,
    full_numbers: bool = False,
) -> dict[str, Any]:
    """Everything that the page and its refreshed parts show of `call`."""
    asked = is_asked(call, CommandKind.HANG_UP) if call.is_live else False
    return {
        "call": call,
        "badge": state_badge(call.state),
        "elapsed": clock(elapsed_s(call)),
        "poll_ms": poll_ms(call),
        "caller": call.caller if full_numbers and call.caller else shown_caller(call.caller),
        "full_numbers": full_numbers,
        "number_is_hidden": may_see_number
        and not full_numbers
        and shown_caller(call.caller) != call.caller != "",
        "agent_name": call.agent_name or (call.agent.name if call.agent else ""),
        "steps": _steps(call),
        "turns": _turns(call),
        "events": _events(call),
        "events_shown": EVENTS_SHOWN,
        "usage": _usage(call),
        "cost": _cost(call),
        "summary": rows(call.summary) if isinstance(call.summary, dict) else [],
        "commands": list(call.commands.select_related("requested_by")[:100]),
        "hang_up_asked": asked,
        "may_hang_up": may_hang_up and call.is_live and not asked,
        "whisper": WhisperForm() if may_whisper and call.is_live else None,
    }


def _after(call: CallRecord, at: datetime) -> str:
    return f"+{clock((at - call.ringing_at).total_seconds())}"


def _steps(call: CallRecord) -> list[Step]:
    moments = [
        ("Ringing", call.ringing_at),
        ("Answered", call.answered_at),
        ("Audio opened", call.media_opened_at),
        ("Greeting heard", call.greeting_heard_at),
        ("Ended", call.ended_at),
    ]
    return [Step(name, at, _after(call, at)) for name, at in moments if at]


def _turns(call: CallRecord) -> list[TurnLine]:
    names = {Speaker.CALLER.value: "Caller", Speaker.AGENT.value: call.agent_name or "Agent"}
    return [
        TurnLine(
            pk=turn.pk,
            speaker=turn.speaker,
            who=names.get(turn.speaker, turn.speaker),
            at=clock(turn.from_ms / 1000),
            text=turn.text,
            interrupted=turn.interrupted,
            unfinished=not turn.final and call.is_live,
        )
        for turn in call.turns.all()
    ]


def _events(call: CallRecord) -> list[EventLine]:
    newest = list(call.events.order_by("-at", "-id")[:EVENTS_SHOWN])
    return [
        EventLine(event.at, _after(call, event.at), event.kind.replace("_", " "), event.detail)
        for event in reversed(newest)
    ]


def _usage(call: CallRecord) -> list[Row]:
    """The provider's counts that are not nought, `input_token_details.audio_tokens` for one."""
    counts = call.usage if isinstance(call.usage, dict) else {}
    told = {key.replace("_token_details", ""): value for key, value in counts.items() if value}
    return rows({key.replace("_details", ""): value for key, value in told.items()})


def _cost(call: CallRecord) -> list[Row]:
    found = []
    if call.price is not None:
        price = f"{call.price:f}"
        found.append(Row("Vonage", (f"€ {price.rstrip('0').rstrip('.') or '0'}",)))
    if call.carrier_duration_s is not None:
        found.append(Row("Billed time", (clock(call.carrier_duration_s),)))
    return found
