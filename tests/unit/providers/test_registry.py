"""The voices there are."""

from __future__ import annotations

import pytest

from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.providers.registry import VOICES, needs_external_voice, parse_voice, speaks


@pytest.mark.parametrize("kind", list(VoiceKind))
def test_every_kind_has_voices_and_each_can_be_named(kind: VoiceKind) -> None:
    assert VOICES[kind]
    for voice in VOICES[kind]:
        assert parse_voice(f"{kind}:{voice}") == (kind, voice)


@pytest.mark.parametrize("text", ["", "marin", "openai:", "openai:sarah", "other:marin", ":"])
def test_an_unknown_voice_is_refused_and_the_known_ones_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"openai:marin.*speechmatics:sarah"):
        parse_voice(text)


def test_the_default_agent_has_a_voice_that_exists() -> None:
    agent = AgentProfile()

    assert agent.voice in VOICES[agent.voice_kind]


def test_only_openai_speaks_for_itself() -> None:
    assert not needs_external_voice(VoiceKind.OPENAI)
    assert needs_external_voice(VoiceKind.SPEECHMATICS)


def test_speechmatics_speaks_english_only() -> None:
    assert speaks(VoiceKind.SPEECHMATICS, "en") and speaks(VoiceKind.SPEECHMATICS, "EN-gb")
    assert not speaks(VoiceKind.SPEECHMATICS, "de-DE")
    assert not speaks(VoiceKind.SPEECHMATICS, "enm")
    assert speaks(VoiceKind.OPENAI, "de-DE")
