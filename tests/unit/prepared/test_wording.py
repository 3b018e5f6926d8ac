"""Which words each agent's voice is to say, and under which name they are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.core.phrases import Phrase
from sessions_app.prepared.wording import HOUSE, Wanted, wanted
from tests.unit.prepared.speech import ANN, SARAH


def texts(agent: AgentProfile) -> dict[Phrase, str]:
    return {each.phrase: each.text for each in wanted(agent)}


def one(agent: AgentProfile, phrase: Phrase) -> Wanted:
    (found,) = [each for each in wanted(agent) if each.phrase is phrase]
    return found


def test_an_agent_says_its_own_greeting_and_the_houses_words() -> None:
    assert texts(ANN) == {Phrase.GREETING: ANN.greeting, **HOUSE["en"]}
    assert all(each.exact for each in wanted(ANN))


@pytest.mark.parametrize("greeting", ["", "  \n", "…!"])
def test_an_agent_without_a_greeting_has_none_to_prepare(greeting: str) -> None:
    assert Phrase.GREETING not in texts(replace(ANN, greeting=greeting))


def test_the_agents_own_apology_is_said_instead_of_the_houses() -> None:
    assert texts(replace(ANN, apology="So sorry."))[Phrase.APOLOGY] == "So sorry."


def test_a_language_the_house_has_words_for_hears_those() -> None:
    agent = replace(ANN, language="fr-CA")

    assert texts(agent)[Phrase.ONE_MOMENT] == HOUSE["fr"][Phrase.ONE_MOMENT]
    assert one(agent, Phrase.ONE_MOMENT).instructions.startswith("Say exactly: ")


def test_any_other_language_is_left_to_the_model_but_not_the_operators_words() -> None:
    agent = replace(ANN, language="pl", greeting="Dzień dobry.", apology="Przepraszam.")

    free = {each.phrase for each in wanted(agent) if not each.exact}

    assert free == {Phrase.ONE_MOMENT, Phrase.STILL_HERE, Phrase.GOODBYE}
    assert "language pl" in one(agent, Phrase.GOODBYE).instructions
    assert one(agent, Phrase.GREETING).instructions == "Say exactly: Dzień dobry."


def test_speechmatics_speaks_english_whatever_the_agents_language() -> None:
    assert texts(replace(SARAH, language="fr"))[Phrase.ONE_MOMENT] == "One moment, please."


@pytest.mark.parametrize(
    "changed",
    [
        replace(ANN, greeting="Good evening, this is Ann."),
        replace(ANN, voice="cedar"),
        replace(ANN, voice_kind=VoiceKind.SPEECHMATICS),
        replace(ANN, language="en-US"),
    ],
)
def test_another_text_voice_or_language_is_another_file(changed: AgentProfile) -> None:
    assert one(changed, Phrase.GREETING).name != one(ANN, Phrase.GREETING).name


def test_the_same_words_in_the_same_voice_are_one_file() -> None:
    other = replace(ANN, name="Bob", instructions="Be brief.", greeting="Hello, Bob here.")

    assert one(other, Phrase.GOODBYE).name == one(ANN, Phrase.GOODBYE).name
    assert len({each.name for each in wanted(ANN)}) == len(Phrase)
