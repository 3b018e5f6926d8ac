"""What an agent is, to a call: frozen when the call is answered, so edits apply to the next one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class VoiceKind(StrEnum):
    OPENAI = "openai"
    SPEECHMATICS = "speechmatics"


class TurnDetection(StrEnum):
    SERVER_VAD = "server_vad"
    SEMANTIC_VAD = "semantic_vad"


class WhenBusy(StrEnum):
    """What a caller gets whom the agent cannot serve now."""

    #: Words, then the agent's person if it has one.
    APOLOGISE = "apologise"
    #: The agent's person, after a short sentence.
    PERSON = "person"
    #: Words until there is room, for a while; then as `APOLOGISE`.
    HOLD = "hold"


def main_language(tag: str) -> str:
    """The language itself of a BCP 47 tag: `en` of `en-GB`."""
    return tag.partition("-")[0].lower()


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """An agent's settings at the moment a call was answered. `model` empty: the site's default."""

    name: str = "Receptionist"
    greeting: str = "Hello, how can I help you?"
    instructions: str = "You are a friendly receptionist."
    language: str = "en-GB"
    voice_kind: VoiceKind = VoiceKind.OPENAI
    voice: str = "marin"
    model: str = ""
    turn_detection: TurnDetection = TurnDetection.SERVER_VAD
    vad_threshold: float = 0.5
    vad_prefix_ms: int = 300
    vad_silence_ms: int = 500
    max_call_s: int = 0
    nudge_after_s: float = 10.0
    nudges_max: int = 2
    apology: str = ""
    fallback_number: str = ""
    when_busy: WhenBusy = WhenBusy.APOLOGISE
