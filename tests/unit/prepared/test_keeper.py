"""Who sees to it that clips exist: found when an agent is saved, made politely, tried again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sessions_app.core.agent import AgentProfile
from sessions_app.core.errors import ProviderError
from sessions_app.core.phrases import Phrase
from sessions_app.prepared import keeper as keeper_module
from sessions_app.prepared.keeper import RETRY_MOST_S, RETRY_S, SWEEP_EVERY_S, Help, Keeper
from sessions_app.prepared.mouths import Spoken
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.turn import turn
from sessions_app.prepared.wording import Wanted, wanted
from tests.unit.bridge.fakes import log_lines
from tests.unit.prepared.speech import ANN, RATE_HZ, SARAH, Mouths, speech

BOB = replace(ANN, name="Bob", voice="cedar", greeting="Bob speaking, hello.")


class House:
    """A keeper whose agents, suppliers and clock belong to the test."""

    def __init__(self, directory: Path, *agents: AgentProfile) -> None:
        self.agents: list[AgentProfile] | None = list(agents)
        self.changed = True
        self.may_make = True
        self.now_s = 1000.0
        self.mouths = Mouths()
        self.shelf = Shelf(directory)
        self.keeper = Keeper(
            self.shelf,
            Help(self._agents, self.mouths.of, lambda: self.may_make),
            clock=lambda: self.now_s,
        )

    async def _agents(self) -> list[AgentProfile] | None:
        changed, self.changed = self.changed, False
        return self.agents if changed else None

    def save(self, *agents: AgentProfile) -> None:
        self.agents, self.changed = list(agents), True

    def round(self) -> bool:
        return asyncio.run(self.keeper.round())

    def settle(self) -> None:
        """Rounds until nothing is left to do now."""
        for _ in range(50):
            if not self.round():
                return
        raise AssertionError("it never ends")

    def own(self, agent: AgentProfile) -> set[Phrase]:
        return {each.phrase for each in wanted(agent) if self.shelf.own(each) is not None}


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., House]:
    return lambda *agents: House(tmp_path / "prepared", *agents)


def test_every_agent_gets_its_clips_one_agent_at_a_time(house: Callable[..., House]) -> None:
    h = house(ANN, SARAH)

    assert h.round() and h.own(ANN) == set(Phrase) and not h.own(SARAH)
    assert h.round() and h.own(SARAH) == set(Phrase)
    assert not h.round()
    assert h.mouths.opened == ["Ann", "Sarah"]


def test_what_is_there_already_is_not_made_again(house: Callable[..., House]) -> None:
    house(ANN).settle()

    again = house(ANN)
    again.settle()

    assert again.own(ANN) == set(Phrase) and again.mouths.opened == []


def test_a_saved_agent_gets_only_what_is_new(house: Callable[..., House]) -> None:
    h = house(ANN)
    h.settle()
    edited = replace(ANN, greeting="Good evening, this is Ann.")

    h.save(edited)
    h.settle()

    assert [each.text for each in h.mouths.asked[5:]] == [edited.greeting]
    assert h.own(edited) == set(Phrase)
    assert Phrase.GREETING not in h.own(ANN), "what nobody says any more is not kept in memory"


def test_a_supplier_that_is_away_is_told_once_and_asked_ever_more_seldom(
    house: Callable[..., House],
) -> None:
    h = house(ANN, BOB)
    h.mouths.away = ProviderError("no connection", retryable=True)
    times: list[float] = []

    async def an_hour() -> None:
        for _ in range(3600 // int(RETRY_S)):
            if await h.keeper.round():
                times.append(h.now_s)
            h.now_s += RETRY_S

    with log_lines() as lines:
        asyncio.run(an_hour())

    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:3] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert waits == sorted(waits) and waits[-1] == RETRY_MOST_S
    assert set(h.mouths.opened) == {"Ann"}, "away for one is away for all its voices"
    assert len([line for line in lines.lines if "cannot be made now" in line]) == 1

    h.mouths.away = None
    h.now_s += RETRY_MOST_S
    h.settle()
    assert h.own(ANN) == h.own(BOB) == set(Phrase)


def test_one_agent_with_wrong_settings_holds_up_nobody(house: Callable[..., House]) -> None:
    h = house(ANN, BOB)

    def refuse(each: Wanted) -> Spoken:
        if each.voice == ANN.voice:
            raise ProviderError("no such model", retryable=False)
        return Mouths.well(each)

    h.mouths.answer = refuse
    h.settle()

    assert h.own(BOB) == set(Phrase) and not h.own(ANN)
    assert h.mouths.opened == ["Ann", "Bob"]


def test_the_other_supplier_is_asked_all_the_same(house: Callable[..., House]) -> None:
    h = house(ANN, SARAH)

    def openai_is_away(each: Wanted) -> Spoken:
        if each.voice_kind is ANN.voice_kind:
            raise ProviderError("no connection", retryable=True)
        return Mouths.well(each)

    h.mouths.answer = openai_is_away
    h.settle()

    assert h.own(SARAH) == set(Phrase) and not h.own(ANN)


def test_a_phrase_that_a_voice_will_not_say_is_given_up(house: Callable[..., House]) -> None:
    h = house(ANN)

    def stubborn(each: Wanted) -> Spoken:
        words = "No." if each.phrase is Phrase.GREETING else each.text
        return Spoken(RATE_HZ, speech(each.text), words)

    h.mouths.answer = stubborn
    h.settle()
    h.now_s += 1e6
    h.settle()

    assert h.mouths.opened == ["Ann"]
    assert h.own(ANN) == set(Phrase) - {Phrase.GREETING}


def test_nothing_is_made_while_calls_need_the_supplier(house: Callable[..., House]) -> None:
    house(ANN).settle()
    h = house(ANN, BOB)
    h.may_make = False

    h.settle()
    assert h.mouths.opened == [] and h.own(ANN) == set(Phrase), "what exists is used"

    h.may_make = True
    h.settle()
    assert h.mouths.opened == ["Bob"]


def test_a_disk_that_takes_nothing_keeps_no_clip_from_calls(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    h = House(tmp_path / "file" / "prepared", ANN)

    with log_lines() as lines:
        h.settle()
        h.settle()

    assert h.own(ANN) == set(Phrase) and h.mouths.opened == ["Ann"]
    assert len([line for line in lines.lines if "cannot be" in line]) <= 3

    (tmp_path / "file").unlink()
    h.settle()
    assert len(list((tmp_path / "file" / "prepared").glob("*.wav"))) == 5


def test_old_files_are_swept_now_and_then_but_not_without_agents(
    house: Callable[..., House],
) -> None:
    h = house()
    h.shelf.directory.mkdir(parents=True)
    old = h.shelf.directory / "greeting-of-long-ago.wav"
    old.write_bytes(b"?")
    os.utime(old, (0, 0))

    h.settle()
    assert old.exists()

    h.save(ANN)
    h.settle()
    assert not old.exists()

    old.write_bytes(b"?")
    os.utime(old, (0, 0))
    h.settle()
    assert old.exists(), "not at every round"
    h.now_s += SWEEP_EVERY_S
    h.settle()
    assert not old.exists()


def test_a_round_that_fails_is_told_and_not_the_last(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    h = house(ANN)
    rounds: list[float] = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise asyncio.CancelledError

    failing = iter([True, False, False])
    answer = h.mouths.answer

    def breaks_once(each: Wanted) -> Spoken:
        if next(failing, False):
            raise ZeroDivisionError
        return answer(each)

    h.mouths.answer = breaks_once
    monkeypatch.setattr(keeper_module.asyncio, "sleep", sleep)
    with log_lines() as lines, pytest.raises(asyncio.CancelledError):
        asyncio.run(h.keeper.run(7.0))

    assert rounds == [7.0, keeper_module.PAUSE_S, 7.0]
    assert h.own(ANN) == set(Phrase)
    assert any("a round of preparing audio failed" in line for line in lines.lines)


# ---------------------------------------------------------------------- several processes


def test_one_process_makes_and_the_other_finds(house: Callable[..., House]) -> None:
    one, other = house(ANN), house(ANN)

    with ExitStack() as elsewhere:
        assert elsewhere.enter_context(turn(one.shelf.directory))
        assert not one.round(), "another has the turn"
        assert one.mouths.opened == []

    one.settle()
    other.settle()

    assert other.own(ANN) == set(Phrase)
    assert (one.mouths.opened, other.mouths.opened) == (["Ann"], [])


def test_the_turn_of_a_dead_process_is_over(tmp_path: Path) -> None:
    hold = f"""
import pathlib, signal
from sessions_app.prepared.turn import turn
with turn(pathlib.Path({str(tmp_path)!r})) as mine:
    print(mine, flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        with turn(tmp_path) as mine:
            assert not mine
        holder.kill()

    with turn(tmp_path) as mine:
        assert mine
