"""Prepared audio on an agent's page: what there is, for whom the agent is."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from sessions_app.conf import prepared_dir
from sessions_app.core.phrases import Clip, Phrase
from sessions_app.models import Agent
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import wanted
from tests.unit.admin.conftest import signed_in, staff
from tests.unit.prepared.speech import RATE_HZ, speech

Make = Callable[..., Agent]


@pytest.fixture(autouse=True)
def _own_disk(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def record(agent: Agent, *phrases: Phrase) -> None:
    for each in wanted(agent.profile()):
        if each.phrase in phrases:
            clip = Clip(each.phrase, each.text, RATE_HZ, speech(each.text))
            Shelf(prepared_dir()).keep(each, clip)


def page(agent: Agent) -> str:
    return reverse("admin:sessions_app_agent_change", args=[agent.pk])


def sound(agent: Agent, phrase: str) -> str:
    return reverse("admin:sessions_app_agent_prepared", args=[agent.pk, phrase])


def test_the_page_plays_what_there_is_and_tells_what_is_missing(
    alice: User, agent_of: Make
) -> None:
    agent = agent_of(alice, greeting="Good <b>morning</b>.")
    record(agent, Phrase.GREETING)

    html = signed_in(alice).get(page(agent)).content.decode()

    assert "Good &lt;b&gt;morning&lt;/b&gt;." in html and "<b>morning" not in html
    assert html.count("<audio") == 1 and f'src="{sound(agent, "greeting")}"' in html
    assert html.count("not made yet; a neutral recording is used") == 4


def test_an_agent_that_greets_in_its_own_words_has_no_greeting_to_prepare(
    alice: User, agent_of: Make
) -> None:
    html = signed_in(alice).get(page(agent_of(alice, greeting=""))).content.decode()

    assert "Greeting: none" in html


def test_what_is_fetched_is_a_recording_that_plays(alice: User, agent_of: Make) -> None:
    agent = agent_of(alice, greeting="Good morning.")
    record(agent, Phrase.GREETING)

    answer = signed_in(alice).get(sound(agent, "greeting"))

    assert answer.headers["Content-Type"] == "audio/wav"
    assert "private" in answer.headers["Cache-Control"]
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.readframes(10**6) == speech("Good morning.")


@pytest.mark.parametrize("phrase", ["goodbye", "nonsense", "greeting%00", "..%2Fgreeting"])
def test_what_is_not_there_is_not_found(alice: User, agent_of: Make, phrase: str) -> None:
    agent = agent_of(alice, greeting="Good morning.")
    record(agent, Phrase.GREETING)

    assert signed_in(alice).get(sound(agent, phrase)).status_code == 404


def test_only_who_may_see_the_agent_hears_it(alice: User, bob: User, agent_of: Make) -> None:
    agent = agent_of(alice, greeting="Good morning.")
    record(agent, Phrase.GREETING)
    address = sound(agent, "greeting")

    assert signed_in(bob).get(address).status_code == 404
    assert signed_in(staff("clerk")).get(address).status_code == 404
    assert signed_in(alice).post(address).status_code == 405
    outsider = User.objects.create_user("outsider", password="secret")
    assert signed_in(outsider).get(address).status_code == 302


def test_a_page_to_add_an_agent_says_nothing_of_audio(alice: User) -> None:
    html = signed_in(alice).get(reverse("admin:sessions_app_agent_add")).content.decode()

    assert "Prepared audio" not in html
