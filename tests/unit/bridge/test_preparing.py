"""Which agents a process prepares audio for, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from sessions_app.bridge import preparing
from sessions_app.models import Agent
from sessions_app.prepared.keeper import Help, Keeper


class Rows:
    """The mirror's questions, asked at once; can be away."""

    def __init__(self) -> None:
        self.away: Exception | None = None

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        found = ask()
        if self.away is not None:
            raise self.away
        return found


@pytest.fixture
def manager() -> Any:
    return SimpleNamespace(
        mirror=Rows(),
        shelf=None,
        draining=False,
        full=False,
        conf=SimpleNamespace(prepare_audio=True, heartbeat_s=3.0),
    )


def names(roll: preparing._Roll) -> list[str] | None:
    """Without a loop, since nothing waits here: on this thread's own connection."""
    with pytest.raises(StopIteration) as done:
        roll.changed().send(None)
    agents = done.value.value
    return None if agents is None else [agent.name for agent in agents]


@pytest.mark.django_db
def test_agents_are_read_when_one_was_saved_or_deleted(manager: Any) -> None:
    roll = preparing._Roll(manager)

    assert names(roll) == ["Receptionist"]
    assert names(roll) is None

    ann = Agent.objects.create(name="Ann", instructions="Be kind.")
    assert names(roll) == ["Receptionist", "Ann"]
    ann.greeting = "Hello."
    ann.save()
    assert names(roll) == ["Receptionist", "Ann"]
    ann.delete()
    assert names(roll) == ["Receptionist"]
    assert names(roll) is None


@pytest.mark.django_db
@pytest.mark.parametrize("away", [OperationalError("gone"), TimeoutError()])
def test_a_change_is_not_missed_while_the_database_is_away(manager: Any, away: Exception) -> None:
    roll = preparing._Roll(manager)
    names(roll)
    Agent.objects.create(name="Ann", instructions="Be kind.")

    manager.mirror.away = away
    assert names(roll) is None

    manager.mirror.away = None
    assert names(roll) == ["Receptionist", "Ann"]


@pytest.mark.django_db
def test_agents_are_read_anew_now_and_then(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(preparing.time, "monotonic", lambda: now_s)
    roll = preparing._Roll(manager)
    names(roll)

    Agent.objects.update(greeting="Changed without a trace.")
    assert names(roll) is None

    now_s += 61
    assert names(roll) == ["Receptionist"]


def test_live_calls_come_first(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    helps: list[Help] = []
    every: list[float] = []

    async def run(self: Keeper, every_s: float) -> None:
        helps.append(self._help)
        every.append(every_s)

    monkeypatch.setattr(Keeper, "run", run)
    asyncio.run(preparing.keep(manager))
    (found,) = helps

    assert every == [3.0] and found.may_make()
    for holder, name, value in (
        (manager, "draining", True),
        (manager, "full", True),
        (manager.conf, "prepare_audio", False),
    ):
        before = getattr(holder, name)
        setattr(holder, name, value)
        assert not found.may_make()
        setattr(holder, name, before)
    assert found.may_make()
