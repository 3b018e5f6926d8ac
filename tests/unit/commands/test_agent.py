from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError

from sessions_app.models import Agent
from tests.unit.commands.running import output_of

pytestmark = pytest.mark.django_db


def test_a_fresh_installation_has_a_default_receptionist() -> None:
    agent = Agent.objects.get()

    assert (agent.name, agent.is_default) == ("Receptionist", True)
    assert (agent.voice, agent.language) == ("openai:marin", "en-GB")
    assert agent.greeting and agent.instructions
    agent.full_clean()


def test_a_name_is_enough_for_a_new_agent() -> None:
    assert output_of("agent", "Sales") == "Created agent 'Sales' (openai:marin, en-GB).\n"

    agent = Agent.objects.get(name="Sales")
    assert "Sales" in agent.instructions
    assert not agent.is_default
    agent.full_clean()


def test_everything_can_be_given() -> None:
    User.objects.create_user("kim")

    output_of(
        "agent",
        "Sales",
        "--greeting=Hi!",
        "--instructions=Sell.",
        "--voice=speechmatics:sarah",
        "--language=en-US",
        "--model=gpt-x",
        "--owner=kim",
        "--fallback-number=+44 20 7946 0001",
        "--nudge-after=5.5",
        "--nudges=3",
        "--max-call=600",
        "--apology=Sorry.",
        "--turn-detection=semantic_vad",
        "--vad-threshold=0.7",
        "--vad-prefix=200",
        "--vad-silence=400",
    )

    agent = Agent.objects.get(name="Sales")
    assert agent.owner is not None and agent.owner.username == "kim"
    assert agent.fallback_number == "442079460001"
    assert (agent.greeting, agent.instructions, agent.apology) == ("Hi!", "Sell.", "Sorry.")
    assert (agent.voice, agent.language, agent.model) == ("speechmatics:sarah", "en-US", "gpt-x")
    assert (agent.nudge_after_s, agent.nudges_max, agent.max_call_s) == (5.5, 3, 600)
    assert (agent.turn_detection, agent.vad_threshold) == ("semantic_vad", 0.7)
    assert (agent.vad_prefix_ms, agent.vad_silence_ms) == (200, 400)


def test_only_what_is_given_changes_and_history_keeps_the_rest() -> None:
    output_of("agent", "Sales", "--instructions=Sell.", "--greeting=Hi!")

    told = output_of("agent", "Sales", "--greeting=Hello!", "--instructions=Sell.")

    assert told == "Changed agent 'Sales': greeting.\n"
    agent = Agent.objects.get(name="Sales")
    assert (agent.greeting, agent.instructions) == ("Hello!", "Sell.")
    assert [past.greeting for past in agent.history.all()] == ["Hello!", "Hi!"]
    assert agent.history.first().history_change_reason == "manage.py agent"


def test_the_same_again_changes_nothing() -> None:
    command = ("agent", "Sales", "--greeting=Hi!", "--fallback-number=+44 20 7946 0001")
    output_of(*command)

    assert output_of(*command) == "Agent 'Sales' is unchanged.\n"
    assert Agent.objects.get(name="Sales").history.count() == 1


def test_instructions_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sell.txt"
    file.write_text("Sell, 50 % off.\n")

    output_of("agent", "Sales", f"--instructions=@{file}")

    assert Agent.objects.get(name="Sales").instructions == "Sell, 50 % off."


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandError, match=r"--instructions: read '@/no/such', wanted a text.*No"):
        output_of("agent", "Sales", "--instructions=@/no/such")
    assert not Agent.objects.filter(name="Sales").exists()


def test_a_new_default_takes_over_from_the_former() -> None:
    told = output_of("agent", "Sales", "--default")

    assert "'Receptionist' answers every other number no more" in told
    assert Agent.objects.get(is_default=True).name == "Sales"
    assert not Agent.objects.get(name="Receptionist").is_default

    assert "Changed agent 'Receptionist': default" in output_of(
        "agent", "Receptionist", "--default"
    )
    assert Agent.objects.get(is_default=True).name == "Receptionist"


def test_a_takeover_that_fails_takes_nothing() -> None:
    with pytest.raises(CommandError):
        output_of("agent", "Sales", "--default", "--instructions=")

    assert Agent.objects.get(is_default=True).name == "Receptionist"


def test_there_may_be_no_default() -> None:
    assert output_of("agent", "Receptionist", "--no-default").startswith("Changed")
    assert not Agent.objects.filter(is_default=True).exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--voice=openai:bob", "invalid choice: 'openai:bob'.*openai:marin"),
        ("--language=English please", "--language: As en-GB or fr"),
        ("--fallback-number=reception", "--fallback-number: 'reception' is not a phone number"),
        ("--nudge-after=0.5", "--nudge-after: .*greater than or equal to 2"),
        ("--nudge-after=soon", "--nudge-after: invalid float value: 'soon'"),
        ("--vad-threshold=1.5", "--vad-threshold: .*less than or equal to 1"),
        ("--owner=nobody", "--owner: read 'nobody', wanted the name of a user"),
        ("--instructions=", "--instructions: .*blank"),
    ],
)
def test_what_is_wrong_is_told_by_its_option(option: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        output_of("agent", "Sales", option)
    assert not Agent.objects.filter(name="Sales").exists()


def test_a_voice_that_does_not_speak_the_language_is_told() -> None:
    with pytest.raises(CommandError, match="--voice: Speechmatics voices speak English only"):
        output_of("agent", "Sales", "--voice=speechmatics:theo", "--language=fr")
