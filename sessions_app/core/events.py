"""What can happen in a call, and what can be wanted.

Events go into `Call.handle(event, now)`, commands come out of it. Both are plain frozen data: no
sockets, no clock, no Django. Times are seconds on whatever monotonic clock the shell uses;
durations name their unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why a call ended; stored on its row, so values never change their meaning."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_ENDED = "agent_ended"
    CALLER_SILENT = "caller_silent"
    MAX_DURATION = "max_duration"
    OPERATOR = "operator"
    MEDIA_LOST = "media_lost"
    MEDIA_SILENT = "media_silent"
    MEDIA_NEVER_OPENED = "media_never_opened"
    PROVIDER_FAILED = "provider_failed"
    REPLACED = "replaced"
    REFUSED = "refused"
    DRAINED = "drained"
    SHUTDOWN = "shutdown"
    INTERNAL_ERROR = "internal_error"
    LOST = "lost"
    TRANSFERRED = "transferred"


class Purpose(StrEnum):
    """Why a response was asked for; travels in its metadata, so that it can be recognised."""

    GREETING = "greeting"
    ANSWER = "answer"
    NUDGE = "nudge"
    GOODBYE = "goodbye"


class Speaker(StrEnum):
    CALLER = "caller"
    AGENT = "agent"


# --------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class MediaOpened:
    """The phone's audio arrives and ours can be heard from now on."""


@dataclass(frozen=True, slots=True)
class MediaClosed:
    """The phone's socket has gone; nobody hears us. `clean`: it was closed, not broken. `for_good`:
    there will be no other.
    """

    clean: bool
    for_good: bool = False


@dataclass(frozen=True, slots=True)
class MediaAwaited:
    """The carrier says that the phone's socket broke, and is told to make another: the caller is
    there, and will be back within `for_s`. If that is true, this socket is gone, or will be
    noticed to be.
    """

    for_s: float


@dataclass(frozen=True, slots=True)
class MediaMuted:
    """The platform says whether it forwards the caller's audio (`muted` False: it does)."""

    muted: bool


@dataclass(frozen=True, slots=True)
class CallerAnswered:
    """The carrier reports that the caller's leg is up: from now on he listens."""


@dataclass(frozen=True, slots=True)
class CallerGone:
    """The carrier reports that the caller's leg is over."""


@dataclass(frozen=True, slots=True)
class EndRequested:
    """Somebody who may (an operator, a drain) wants the call over now.

    `hang_up` False: the caller's leg is not ours to end, another process serves it.
    `politely`: the caller is told first.
    """

    reason: EndReason
    hang_up: bool = True
    politely: bool = False


@dataclass(frozen=True, slots=True)
class Whispered:
    """A supervisor tells the agent something that the caller does not hear."""

    text: str


@dataclass(frozen=True, slots=True)
class CallerAudible:
    """Our own ear, which needs no model: the caller began to speak, or has stopped.

    `spoken_ms`: how much of it was loud, once he has stopped.
    """

    speaking: bool
    spoken_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Transferred:
    """The carrier has taken the caller's leg elsewhere, as we asked."""


@dataclass(frozen=True, slots=True)
class TransferFailed:
    reason: str


@dataclass(frozen=True, slots=True)
class DtmfPressed:
    digit: str


@dataclass(frozen=True, slots=True)
class MarkPlayed:
    """The phone has played everything that was queued before this mark."""

    mark_id: str


@dataclass(frozen=True, slots=True)
class ItemWritten:
    """The last frame of an item has been sent to the phone."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline named by `Call.next_deadline()` has come, or came so long ago."""

    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProviderReady:
    """The model's session is configured and takes audio.

    `life_s`: how long it lasts from now on, as far as its service tells.
    """

    life_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReserveOpened:
    """Another session is there beside the one that goes on; the next `Reconnect` takes it."""


@dataclass(frozen=True, slots=True)
class ReserveFailed:
    """It could not be made; the one there is goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class ProviderLost:
    """The model's session ended or could not be made."""

    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak. `item_id` names the turn this will become."""

    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    item_id: str


@dataclass(frozen=True, slots=True)
class CallerTranscript:
    """What the caller said. `final` False: `text` is a piece to append."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class CallerTranscriptFailed:
    item_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The model began to answer; `request_id` is ours if we asked for it, else empty."""

    response_id: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """Speech for the caller: s16le mono at the provider's rate, any even number of bytes."""

    response_id: str
    item_id: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class AgentText:
    """Words of the agent: beside audio its transcript, in text mode what is to be spoken."""

    response_id: str
    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class AgentItemDone:
    """No more audio or text will come for this item."""

    response_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model wants a function run; `arguments` is its own JSON text, unchecked."""

    response_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """`status` is completed, cancelled, failed or incomplete; `usage` is the provider's own."""

    response_id: str
    status: str
    reason: str = ""
    retryable: bool = True
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A `CreateResponse` was turned down. `busy`: because another response is running."""

    request_id: str
    busy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ProviderNotice:
    """Something worth a note on the row that changes nothing."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class TranscriptionUsage:
    usage: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SpokenAudio:
    """Synthesised speech for one clause of an item: s16le mono at the voice's rate."""

    item_id: str
    clause: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class ClauseSpoken:
    """All audio of that clause has been handed over."""

    item_id: str
    clause: int


@dataclass(frozen=True, slots=True)
class ClauseFailed:
    item_id: str
    clause: int
    reason: str


Event = (
    MediaOpened
    | MediaClosed
    | MediaAwaited
    | MediaMuted
    | CallerAnswered
    | CallerGone
    | CallerAudible
    | Transferred
    | TransferFailed
    | EndRequested
    | Whispered
    | DtmfPressed
    | MarkPlayed
    | ItemWritten
    | Tick
    | ProviderReady
    | ReserveOpened
    | ReserveFailed
    | ProviderLost
    | SpeechStarted
    | SpeechStopped
    | CallerTranscript
    | CallerTranscriptFailed
    | ResponseStarted
    | AgentAudio
    | AgentText
    | AgentItemDone
    | ToolCalled
    | ResponseDone
    | RequestRefused
    | ProviderNotice
    | TranscriptionUsage
    | SpokenAudio
    | ClauseSpoken
    | ClauseFailed
)

#: What a session of the model tells. One that has been given up may go on telling; nobody listens.
FromModel = (
    SpeechStarted
    | SpeechStopped
    | CallerTranscript
    | CallerTranscriptFailed
    | ResponseStarted
    | AgentAudio
    | AgentText
    | AgentItemDone
    | ToolCalled
    | RequestRefused
)

# --------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """Ask the model to speak. `instructions` are added to the session's own, never replacing."""

    request_id: str
    purpose: Purpose
    instructions: str = ""
    tools: bool = True


@dataclass(frozen=True, slots=True)
class CancelResponse:
    response_id: str


@dataclass(frozen=True, slots=True)
class CutItem:
    """The caller heard only this much of an item: make the model's memory agree.

    `heard_ms` 0 means none of it; `heard_text` is the part of its words that was heard.
    """

    item_id: str
    heard_ms: int
    heard_text: str


@dataclass(frozen=True, slots=True)
class AddAgentWords:
    """Tell the model what was said in its name: without it, or before it had to begin anew."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class AddCallerWords:
    """Tell the model what the caller said before it had to begin anew, or did without speaking."""

    text: str


@dataclass(frozen=True, slots=True)
class AddWhisper:
    """Tell the model what it should know or do and the caller has not heard."""

    text: str


@dataclass(frozen=True, slots=True)
class AddToolCall:
    """Tell the model of a function that it called before it had to begin anew."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerTool:
    """The one answer to one `ToolCalled`; `output` is JSON text."""

    call_id: str
    output: str


@dataclass(frozen=True, slots=True)
class ChangeVoice:
    """From now on the model answers in its own voice, or in words for another service to speak,
    since the other way has failed.
    """

    own: bool


ProviderCommand = (
    CreateResponse
    | CancelResponse
    | CutItem
    | AddAgentWords
    | AddCallerWords
    | AddWhisper
    | AddToolCall
    | AnswerTool
    | ChangeVoice
)


@dataclass(frozen=True, slots=True)
class OpenReserve:
    """Make another session of the model beside the one there is."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Give up the model's session, if there is one, for the one in reserve, or make another."""


@dataclass(frozen=True, slots=True)
class RetainAudio:
    """Whether the caller's audio is kept after it was sent, for a session that begins anew."""

    retain: bool


@dataclass(frozen=True, slots=True)
class FeedSilence:
    """The phone sends nothing: whoever listens to the caller hears so much silence of him."""

    audio_ms: int


@dataclass(frozen=True, slots=True)
class TransferToPerson:
    """Have the carrier apologise, and lead the caller to the agent's person if it has one."""


@dataclass(frozen=True, slots=True)
class ConnectAgain:
    """Have the carrier connect the caller to another socket of this call; after too many that
    broke, to the agent's person, as `TransferToPerson`.
    """


@dataclass(frozen=True, slots=True)
class AskPhone:
    """Set a mark behind what was written: one that comes back tells that the phone is there."""


@dataclass(frozen=True, slots=True)
class Play:
    """Queue this audio for the phone; s16le mono at the rate it was made in."""

    item_id: str
    pcm: bytes
    rate_hz: int


@dataclass(frozen=True, slots=True)
class FinishItem:
    """Pad what is left of the item to a whole frame and set a mark behind it."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ClearPhone:
    """Drop everything queued, here and on the phone, now."""


@dataclass(frozen=True, slots=True)
class SpeakClause:
    """Have a clause synthesised; clauses are spoken in the order they are asked for."""

    item_id: str
    clause: int
    text: str


@dataclass(frozen=True, slots=True)
class StopSpeaking:
    """Drop every clause asked for and not yet handed over."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of somebody speaking, as the transcript stores it.

    `from_ms` and `to_ms` are on the call's clock (0: the media socket opened); `to_ms` is None
    while the turn goes on. `final` False: more of it may come.
    """

    item_id: str
    speaker: Speaker
    text: str
    from_ms: int
    to_ms: int | None
    interrupted: bool
    final: bool


@dataclass(frozen=True, slots=True)
class SaveTurn:
    turn: Turn


@dataclass(frozen=True, slots=True)
class GreetingHeard:
    """The first sound of the agent has been played to the caller."""


@dataclass(frozen=True, slots=True)
class SaveUsage:
    """Sums so far, in the provider's own units; see `core/usage.py`."""

    usage: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Note:
    """An event for the call's row: `kind` is a short word, `detail` holds nothing secret."""

    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EndCall:
    """The call is over. `hang_up`: the caller's leg is still up and must be ended by us."""

    reason: EndReason
    hang_up: bool


Command = (
    ProviderCommand
    | OpenReserve
    | Reconnect
    | RetainAudio
    | FeedSilence
    | TransferToPerson
    | ConnectAgain
    | AskPhone
    | Play
    | FinishItem
    | ClearPhone
    | SpeakClause
    | StopSpeaking
    | SaveTurn
    | GreetingHeard
    | SaveUsage
    | Note
    | EndCall
)
