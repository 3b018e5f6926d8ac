"""Which voices there are, and whose they are."""

from __future__ import annotations

from sessions_app.core.agent import VoiceKind, main_language
from sessions_app.providers.openai.wire import VOICES as OPENAI_VOICES
from sessions_app.providers.speechmatics.tts import VOICES as SPEECHMATICS_VOICES

VOICES = {VoiceKind.OPENAI: OPENAI_VOICES, VoiceKind.SPEECHMATICS: SPEECHMATICS_VOICES}


def parse_voice(text: str) -> tuple[VoiceKind, str]:
    """Read `kind:voice`, such as `openai:marin`; a `ValueError` names what is allowed."""
    kind, _, voice = text.strip().lower().partition(":")
    for known, voices in VOICES.items():
        if kind == known and voice in voices:
            return known, voice
    allowed = ", ".join(f"{known}:{voice}" for known, voices in VOICES.items() for voice in voices)
    raise ValueError(f"voice {text!r} is not known; wanted one of {allowed}")


def needs_external_voice(kind: VoiceKind) -> bool:
    """Whether the model is to answer in words, which another service speaks."""
    return kind is not VoiceKind.OPENAI


def speaks(kind: VoiceKind, language: str) -> bool:
    """Whether voices of this kind speak the language, a BCP 47 tag such as `en-GB`."""
    return kind is VoiceKind.OPENAI or main_language(language) == "en"


__all__ = [
    "OPENAI_VOICES",
    "SPEECHMATICS_VOICES",
    "VOICES",
    "needs_external_voice",
    "parse_voice",
    "speaks",
]
