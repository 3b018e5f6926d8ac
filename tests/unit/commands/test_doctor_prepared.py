"""What the doctor says of audio that should exist before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from sessions_app.conf import prepared_dir
from sessions_app.core.phrases import Clip
from sessions_app.diagnosis import examination, prepared
from sessions_app.diagnosis.finding import Finding, Level
from sessions_app.models import Agent
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import wanted
from tests.unit.prepared.speech import RATE_HZ, speech


@pytest.fixture(autouse=True)
def _own_disk(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.PREPARE_AUDIO = True


def record(agent: Agent) -> None:
    for each in wanted(agent.profile()):
        clip = Clip(each.phrase, each.text, RATE_HZ, speech(each.text))
        Shelf(prepared_dir()).keep(each, clip)


def found() -> Finding:
    (finding,) = prepared.audio()
    return finding


@pytest.mark.django_db
def test_every_agent_with_its_own_audio_is_good() -> None:
    record(Agent.objects.get())

    assert found().level is Level.OK


@pytest.mark.django_db
def test_what_is_missing_or_spoilt_is_counted_and_named() -> None:
    agent = Agent.objects.get()
    record(agent)
    spoilt = prepared_dir() / wanted(agent.profile())[1].name
    spoilt.write_bytes(spoilt.read_bytes()[:50])

    assert found().level is Level.WARN
    assert "1 of 5" in found().seen and repr(agent.name) in found().seen
    assert str(prepared_dir()) in found().mend


@pytest.mark.django_db
def test_it_says_when_nothing_is_to_be_made(settings: Any) -> None:
    settings.PREPARE_AUDIO = False

    assert found().level is Level.WARN and "PREPARE_AUDIO" in found().mend


def test_nothing_is_said_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(Agent.objects, "all", away)

    assert prepared.audio() == []


def test_it_is_part_of_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Finding("prepared audio", Level.OK, "fine")
    for name in ("settings_are_right", "rows"):
        monkeypatch.setattr(examination.local, name, list)
    for name in ("database", "redis", "disk"):
        monkeypatch.setattr(examination.local, name, lambda: Finding("x", Level.OK, ""))
    monkeypatch.setattr(examination.prepared, "audio", lambda: [told])

    async def nothing(_: object) -> list[Finding]:
        return []

    monkeypatch.setattr(examination, "_outside", nothing)
    monkeypatch.setattr(examination.Needs, "of_agents", lambda: None)

    assert told in examination.examine()
