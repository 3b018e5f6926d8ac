"""What can go wrong on purpose: one call's fault, named in the header ``X-Sandbox-Fault``.

Vonage hands a SIP header ``X-Sandbox-Fault`` of the caller to the answer webhook as the parameter
``SipHeader_X-Sandbox-Fault``; who answers passes it on as an HTTP header to the suppliers. A fault
is honoured only by the piece it names; the others take no notice.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

HEADER: Final = "x-sandbox-fault"
SIP_PARAMETER: Final = "SipHeader_X-Sandbox-Fault"


class Fault(StrEnum):
    """The faults that can be asked for. ``help`` says in a line what each does."""

    OPENAI_REFUSED = "openai-refused"
    OPENAI_UNAUTHORIZED = "openai-unauthorized"
    OPENAI_QUOTA = "openai-quota"
    OPENAI_SLOW = "openai-slow"
    OPENAI_HANGS = "openai-hangs"
    OPENAI_CLOSES = "openai-closes"
    OPENAI_MUTE = "openai-mute"
    OPENAI_FAILS_ONCE = "openai-fails-once"
    OPENAI_FAILS = "openai-fails"
    OPENAI_GARBAGE = "openai-garbage"
    OPENAI_EXPIRES = "openai-expires"
    TTS_REFUSED = "tts-refused"
    TTS_HTML = "tts-html"
    TTS_STALLS = "tts-stalls"
    TTS_CUT = "tts-cut"
    REST_REFUSED = "rest-refused"
    REST_SLOW = "rest-slow"

    @property
    def help(self) -> str:
        """One line for a person who chooses."""
        return _HELP[self]

    @classmethod
    def read(cls, value: str) -> Fault | None:
        """The fault of that name; ``None`` for an empty or unknown one (an unknown fault breaks
        nothing).
        """
        try:
            return cls(value.strip().lower())
        except ValueError:
            return None


_HELP: Final[dict[Fault, str]] = {
    Fault.OPENAI_REFUSED: "the realtime handshake is refused with 503",
    Fault.OPENAI_UNAUTHORIZED: "the realtime handshake is refused with 401 invalid_api_key",
    Fault.OPENAI_QUOTA: "the realtime handshake is refused with 429 insufficient_quota",
    Fault.OPENAI_SLOW: "session.created comes only after three seconds",
    Fault.OPENAI_HANGS: "the realtime socket opens and never says anything",
    Fault.OPENAI_CLOSES: "the realtime socket closes with 1011 within the second response",
    Fault.OPENAI_MUTE: "after the greeting no response is ever made",
    Fault.OPENAI_FAILS_ONCE: "the first response ends with status failed, the next are good",
    Fault.OPENAI_FAILS: "every response ends with status failed",
    Fault.OPENAI_GARBAGE: "unknown events, bad JSON and binary frames among the good events",
    Fault.OPENAI_EXPIRES: "the session ends with session_expired and close 1001 after seconds",
    Fault.TTS_REFUSED: "speech synthesis answers 503",
    Fault.TTS_HTML: "speech synthesis answers 200 with a page of HTML",
    Fault.TTS_STALLS: "speech synthesis stops sending in the middle of a sentence",
    Fault.TTS_CUT: "the connection to speech synthesis drops in the middle of a sentence",
    Fault.REST_REFUSED: "Vonage's REST answers 500",
    Fault.REST_SLOW: "Vonage's REST answers only after several seconds",
}
