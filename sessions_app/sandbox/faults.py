"""What can go wrong on purpose: the faults, when in a call each applies, and how one is asked for.

A wish is ``NAME``, ``NAME@PHASE``, and with ``!`` at its end the fault strikes every time, not once
per call. A fault of a supplier travels with the call: Vonage hands a SIP header ``X-Sandbox-Fault``
of the caller to the answer webhook as the parameter ``SipHeader_X-Sandbox-Fault``; who answers
passes it on as an HTTP header to the suppliers, beside ``X-Sandbox-Call`` with the call's uuid, by
which the sandbox remembers what has struck. Only the piece that a fault names takes notice of it.
A fault of the phone is done by the simulated caller himself. One of the server's own side is struck
by the sandbox too, where it runs beside a server that has said how; it strikes all its calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

HEADER: Final = "x-sandbox-fault"
CALL_HEADER: Final = "x-sandbox-call"
SIP_PARAMETER: Final = "SipHeader_X-Sandbox-Fault"
_EVERY_TIME: Final = "!"


class Phase(StrEnum):
    """When in a call a fault strikes."""

    BEFORE_GREETING = "before-greeting"
    DURING_GREETING = "during-greeting"
    CALLER_SPEAKING = "caller-speaking"
    AGENT_SPEAKING = "agent-speaking"
    TOOL_RUNNING = "tool-running"
    AT_HANG_UP = "at-hang-up"


class Fault(StrEnum):
    """The faults that can be asked for. ``help`` says in a line what each does."""

    OPENAI_REFUSED = "openai-refused"
    OPENAI_UNAUTHORIZED = "openai-unauthorized"
    OPENAI_QUOTA = "openai-quota"
    OPENAI_SLOW = "openai-slow"
    OPENAI_HANGS = "openai-hangs"
    OPENAI_CLOSES = "openai-closes"
    OPENAI_DROPS = "openai-drops"
    OPENAI_EXPIRES = "openai-expires"
    OPENAI_FREEZES = "openai-freezes"
    OPENAI_DEAF = "openai-deaf"
    OPENAI_MUTE = "openai-mute"
    OPENAI_SILENT = "openai-silent"
    OPENAI_TEXT = "openai-text"
    OPENAI_FAILS_ONCE = "openai-fails-once"
    OPENAI_FAILS = "openai-fails"
    OPENAI_INCOMPLETE = "openai-incomplete"
    OPENAI_SERVER_ERROR = "openai-server-error"
    OPENAI_RATE_LIMIT = "openai-rate-limit"
    OPENAI_INVALID = "openai-invalid"
    OPENAI_UNKNOWN_ERROR = "openai-unknown-error"
    OPENAI_GARBAGE = "openai-garbage"
    OPENAI_TOOL_HANGS = "openai-tool-hangs"
    TTS_REFUSED = "tts-refused"
    TTS_HTML = "tts-html"
    TTS_STALLS = "tts-stalls"
    TTS_CUT = "tts-cut"
    TTS_SLOW = "tts-slow"
    TTS_WAV = "tts-wav"
    REST_REFUSED = "rest-refused"
    REST_SLOW = "rest-slow"
    PHONE_ABORTS = "phone-aborts"
    PHONE_FREEZES = "phone-freezes"
    PHONE_HALF_DEAD = "phone-half-dead"
    PHONE_LUMPS = "phone-lumps"
    PHONE_NEVER_OPENS = "phone-never-opens"
    PHONE_SECOND_SOCKET = "phone-second-socket"
    PHONE_MARKS_LOST = "phone-marks-lost"
    PHONE_EVENTS_SHUFFLED = "phone-events-shuffled"
    PHONE_GONE_BY_EVENT = "phone-gone-by-event"
    PHONE_GONE_BY_SOCKET = "phone-gone-by-socket"
    PHONE_GONE_UNTOLD = "phone-gone-untold"
    SERVER_STALLS = "server-stalls"
    SERVER_DATABASE_AWAY = "server-database-away"
    SERVER_DATABASE_HANGS = "server-database-hangs"
    SERVER_LAYER_AWAY = "server-layer-away"

    @property
    def help(self) -> str:
        """One line for a person who chooses."""
        return FACTS[self].help

    @property
    def is_of_phone(self) -> bool:
        """Whether the caller's side does it, not a supplier."""
        return self.value.startswith("phone-")

    @property
    def is_of_server(self) -> bool:
        """Whether it strikes the whole server, all its calls at once."""
        return self.value.startswith("server-")

    @property
    def is_of_speech(self) -> bool:
        """Whether only an agent with a Speechmatics voice can be struck."""
        return self.value.startswith("tts-")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be known of a fault.

    default: when it strikes unless a phase is asked for; ``None``: in its own time.
    once: it strikes once per call, so that whoever tries again meets a good service.
    recoverable: the conversation has to go on; an apology and the end would be a failure.
    cuts: what is being said stops in the middle, and its rest is owed.
    """

    help: str
    phases: tuple[Phase, ...]
    default: Phase | None
    once: bool = False
    recoverable: bool = False
    cuts: bool = False


_START: Final = (Phase.BEFORE_GREETING,)
_SPOKEN: Final = (Phase.DURING_GREETING, Phase.AGENT_SPEAKING)
_LIVE: Final = tuple(phase for phase in Phase if phase is not Phase.AT_HANG_UP)
_AT_ANY: Final = tuple(Phase)
_MEDIA: Final = (Phase.DURING_GREETING, Phase.CALLER_SPEAKING, Phase.AGENT_SPEAKING)


def _connection(help_: str, **more: bool) -> Facts:
    """The connection to the model is lost somewhere in the call; the next one is good."""
    default = Phase.AGENT_SPEAKING
    return Facts(help_, _AT_ANY, default, once=True, recoverable=True, cuts=True, **more)


def _answer(help_: str, *, cuts: bool = False) -> Facts:
    """One response goes wrong; the next one is good."""
    return Facts(help_, _SPOKEN, Phase.AGENT_SPEAKING, once=True, recoverable=True, cuts=cuts)


def _away(help_: str) -> Facts:
    """The model is not to be had: from the beginning, or from a later phase on."""
    return Facts(help_, _LIVE, Phase.BEFORE_GREETING, cuts=True)


def _speech(help_: str, *, cuts: bool = False) -> Facts:
    """Speech synthesis fails throughout; the model's own voice is there."""
    return Facts(help_, _SPOKEN, None, recoverable=True, cuts=cuts)


def _server(help_: str) -> Facts:
    """Something of the server's own fails for a while; no conversation ends of it."""
    return Facts(help_, _AT_ANY, Phase.AGENT_SPEAKING, once=True, recoverable=True)


def _gone(help_: str) -> Facts:
    return Facts(help_, (Phase.AT_HANG_UP,), Phase.AT_HANG_UP)


FACTS: Final[dict[Fault, Facts]] = {
    Fault.OPENAI_REFUSED: _away("the realtime handshake is refused with 503"),
    Fault.OPENAI_UNAUTHORIZED: _away("the realtime handshake is refused with 401 invalid_api_key"),
    Fault.OPENAI_QUOTA: _away("the realtime handshake is refused with 429 insufficient_quota"),
    Fault.OPENAI_HANGS: _away("the realtime socket opens and never says anything"),
    Fault.OPENAI_SLOW: Facts(
        "the realtime socket says nothing for three seconds, then all of it",
        _AT_ANY,
        Phase.BEFORE_GREETING,
        once=True,
        recoverable=True,
    ),
    Fault.OPENAI_CLOSES: _connection("the realtime socket closes with 1011"),
    Fault.OPENAI_DROPS: _connection("the realtime connection is dropped without a close"),
    Fault.OPENAI_EXPIRES: Facts(
        "the session ends with session_expired and close 1001 (without a phase: after seconds)",
        _AT_ANY,
        None,
        once=True,
        recoverable=True,
        cuts=True,
    ),
    Fault.OPENAI_FREEZES: _connection("the realtime socket stays open and says nothing more"),
    Fault.OPENAI_DEAF: Facts(
        "the model hears nothing more of the caller and tells of nothing",
        (Phase.BEFORE_GREETING, Phase.CALLER_SPEAKING),
        Phase.CALLER_SPEAKING,
        once=True,
        recoverable=True,
    ),
    Fault.OPENAI_MUTE: Facts(
        "after the greeting no response is ever made", (Phase.AGENT_SPEAKING,), Phase.AGENT_SPEAKING
    ),
    Fault.OPENAI_SILENT: _answer("a response's audio is digital silence"),
    Fault.OPENAI_TEXT: _answer("a response comes in text where speech was wanted"),
    Fault.OPENAI_FAILS_ONCE: Facts(
        "a response ends with status failed (without a phase: the first), the next are good",
        _SPOKEN,
        None,
        once=True,
        recoverable=True,
    ),
    Fault.OPENAI_FAILS: Facts("every response ends with status failed", _SPOKEN, None),
    Fault.OPENAI_INCOMPLETE: _answer("a response ends incomplete in mid-sentence", cuts=True),
    Fault.OPENAI_SERVER_ERROR: _answer("an error event (server_error) instead of a response"),
    Fault.OPENAI_RATE_LIMIT: _answer("an error event (rate_limit_exceeded) instead of a response"),
    Fault.OPENAI_INVALID: _answer("an error event (invalid_value) instead of a response"),
    Fault.OPENAI_UNKNOWN_ERROR: _answer(
        "an error event of a kind that nobody knows instead of a response"
    ),
    Fault.OPENAI_GARBAGE: Facts(
        "unknown events, bad JSON and binary frames among the good events",
        _AT_ANY,
        Phase.BEFORE_GREETING,
        once=True,
        recoverable=True,
    ),
    Fault.OPENAI_TOOL_HANGS: Facts(
        "a tool call is begun and never completed",
        (Phase.TOOL_RUNNING,),
        Phase.TOOL_RUNNING,
        once=True,
    ),
    Fault.TTS_REFUSED: _speech("speech synthesis answers 503"),
    Fault.TTS_HTML: _speech("speech synthesis answers 200 with a page of HTML"),
    Fault.TTS_STALLS: _speech(
        "speech synthesis stops sending in the middle of a sentence", cuts=True
    ),
    Fault.TTS_CUT: _speech(
        "the connection to speech synthesis drops in the middle of a sentence", cuts=True
    ),
    Fault.TTS_SLOW: _speech("speech synthesis begins only after several seconds"),
    Fault.TTS_WAV: _speech("speech synthesis sends a WAV file where bare samples were wanted"),
    Fault.REST_REFUSED: _gone("Vonage's REST answers 500"),
    Fault.REST_SLOW: _gone("Vonage's REST answers only after several seconds"),
    Fault.PHONE_ABORTS: Facts(
        "the media connection is reset; the caller is still there",
        _AT_ANY,
        Phase.AGENT_SPEAKING,
        once=True,
        recoverable=True,
        cuts=True,
    ),
    Fault.PHONE_FREEZES: Facts(
        "the media socket stays open, sends nothing and reads nothing",
        _MEDIA,
        Phase.AGENT_SPEAKING,
        once=True,
        recoverable=True,
        cuts=True,
    ),
    Fault.PHONE_HALF_DEAD: Facts(
        "the caller's frames come in, but what is sent to him is swallowed, marks included",
        _MEDIA,
        Phase.AGENT_SPEAKING,
        once=True,
        recoverable=True,
        cuts=True,
    ),
    Fault.PHONE_LUMPS: Facts(
        "the caller's frames come half a second at once",
        _START,
        Phase.BEFORE_GREETING,
        recoverable=True,
    ),
    Fault.PHONE_NEVER_OPENS: Facts(
        "after the NCCO no media socket is ever opened", _START, Phase.BEFORE_GREETING
    ),
    Fault.PHONE_SECOND_SOCKET: Facts(
        "the answer webhook is asked again in mid-call, and its NCCO followed",
        _MEDIA,
        Phase.AGENT_SPEAKING,
        recoverable=True,
        cuts=True,
    ),
    Fault.PHONE_MARKS_LOST: Facts(
        "the marks of what was played never come back",
        _START,
        Phase.BEFORE_GREETING,
        recoverable=True,
    ),
    Fault.PHONE_EVENTS_SHUFFLED: Facts(
        "event webhooks come twice, late and out of order",
        _START,
        Phase.BEFORE_GREETING,
        recoverable=True,
    ),
    Fault.PHONE_GONE_BY_EVENT: _gone("the caller's hang-up is told by the event webhook only"),
    Fault.PHONE_GONE_BY_SOCKET: _gone("the caller's hang-up closes the socket and is not told"),
    Fault.PHONE_GONE_UNTOLD: _gone("the caller hangs up and nobody tells: the frames just stop"),
    Fault.SERVER_STALLS: _server("the server's event loop stands still for a second and a half"),
    Fault.SERVER_DATABASE_AWAY: _server("the database refuses everything for five seconds"),
    Fault.SERVER_DATABASE_HANGS: _server("the database answers nothing for five seconds"),
    Fault.SERVER_LAYER_AWAY: _server("the channel layer refuses everything for five seconds"),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """One fault as it was asked for. Its text is what travels with the call."""

    fault: Fault
    at: Phase | None = None
    is_forced: bool = False
    """Asked for with ``!``: it strikes every time."""

    @classmethod
    def parse(cls, text: str) -> Wish:
        """Reads ``NAME[@PHASE][!]``. Raises ``ValueError``: what was read, what is wanted."""
        bare = text.strip().lower()
        forced = bare.endswith(_EVERY_TIME)
        name, at, phase = bare.removesuffix(_EVERY_TIME).partition("@")
        if name not in tuple(Fault):
            raise ValueError(f"read {name!r}, wanted some of: {', '.join(Fault)}")
        fault = Fault(name)
        if at and phase not in FACTS[fault].phases:
            wanted = ", ".join(FACTS[fault].phases)
            raise ValueError(f"read {phase!r} for {name}, wanted one of: {wanted}")
        return cls(fault, Phase(phase) if at else None, forced)

    @classmethod
    def read(cls, text: str) -> Wish | None:
        """The same for what came in by wire: an empty or unknown wish breaks nothing."""
        try:
            return cls.parse(text)
        except ValueError:
            return None

    def __str__(self) -> str:
        at = f"@{self.at}" if self.at else ""
        return f"{self.fault}{at}{_EVERY_TIME if self.is_forced else ''}"

    @property
    def phase(self) -> Phase | None:
        """When it strikes; ``None``: in its own time."""
        return self.at or FACTS[self.fault].default

    @property
    def strikes_once(self) -> bool:
        return FACTS[self.fault].once and not self.is_forced

    @property
    def is_recoverable(self) -> bool:
        """Whether the conversation has to go on."""
        facts = FACTS[self.fault]
        return facts.recoverable and self.strikes_once == facts.once

    @property
    def cuts_speech(self) -> bool:
        """Whether it stops the agent in the middle of what he says."""
        at_speech = self.phase in (None, Phase.DURING_GREETING, Phase.AGENT_SPEAKING)
        return FACTS[self.fault].cuts and at_speech


#: Those of the server strike all its calls; the others leave the calls beside theirs alone.
OF_SERVER: Final = tuple(fault for fault in Fault if fault.is_of_server)
OF_A_CALL: Final = tuple(fault for fault in Fault if not fault.is_of_server)


def in_every_phase(faults: tuple[Fault, ...] = OF_A_CALL) -> list[Wish]:
    """Each in every phase to which it applies."""
    return [Wish(fault, phase) for fault in faults for phase in FACTS[fault].phases]
