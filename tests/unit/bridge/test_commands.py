"""What is asked of calls by rows: each once, and none behind another call's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from sessions_app import rows
from sessions_app.bridge import housekeeping
from sessions_app.core import events as ev
from sessions_app.models import CommandKind, CommandState
from tests.unit.bridge.clockwork import run


class Session:
    """What commands need of one."""

    def __init__(self, *, released_after_s: float = 0.0, over: bool = False) -> None:
        self.over = over
        self.handled: list[ev.Event] = []
        self._released_after_s = released_after_s

    def handle(self, event: ev.Event) -> None:
        self.handled.append(event)

    async def wait_released(self) -> None:
        await asyncio.sleep(self._released_after_s)


class Desk:
    """The rows of commands, and the manager that reads and answers them."""

    def __init__(self, sessions: dict[str, Session]) -> None:
        self.asked: list[Any] = []
        self.answers: dict[int, tuple[CommandState, str]] = {}
        #: How long the database takes to give what it had read when it was asked.
        self.reading_s = self.writing_s = 0.0
        self.mirror = self
        self.node = "here"
        self.sessions = sessions
        self.calls = 1
        self.replacing: set[str] = set()
        #: So many writes fail first.
        self.failures = 0

    def get(self, uuid: str) -> Session | None:
        return self.sessions.get(uuid)

    def replaces(self, uuid: str) -> bool:
        return uuid in self.replacing

    def get_active_session_count(self) -> int:
        return self.calls

    def command(self, uuid: str, kind: CommandKind, text: str = "") -> int:
        pk = len(self.asked) + 1
        call = SimpleNamespace(uuid=uuid)
        self.asked.append(SimpleNamespace(pk=pk, call=call, kind=kind, text=text))
        return pk

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        found = [each for each in self.asked if each.pk not in self.answers]
        await asyncio.sleep(self.reading_s)
        return found

    async def flush(self) -> bool:
        await asyncio.sleep(self.writing_s)
        return True

    async def write(self, change: Callable[[], Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise OperationalError("the connection was lost")
        change()

    async def obeying(self, for_s: float) -> None:
        obeying = asyncio.create_task(housekeeping.obey(self))  # type: ignore[arg-type]
        await asyncio.sleep(for_s)
        assert not obeying.done()
        obeying.cancel()
        await asyncio.wait([obeying])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    def make(**sessions: Session) -> Desk:
        made = Desk(sessions)

        def answer(command: Any, state: CommandState, words: str) -> None:
            assert command.pk not in made.answers, "answered twice"
            made.answers[command.pk] = (state, words)

        monkeypatch.setattr(rows, "answer_command", answer)
        return made

    return make


def test_a_whisper_does_not_wait_for_another_calls_hang_up(desk: Callable[..., Desk]) -> None:
    slow, quick = Session(released_after_s=8), Session()
    here = desk(slow=slow, quick=quick)
    here.command("slow", CommandKind.HANG_UP)
    whisper = here.command("quick", CommandKind.WHISPER, "Be kind.")
    run(here.obeying(2))
    assert here.answers == {whisper: (CommandState.DONE, "the agent was told")}
    assert quick.handled == [ev.Whispered("Be kind.")]


def test_what_takes_its_time_is_done_once(desk: Callable[..., Desk]) -> None:
    slow = Session(released_after_s=5)
    here = desk(slow=slow)
    here.command("slow", CommandKind.HANG_UP)
    run(here.obeying(9))
    assert slow.handled == [ev.EndRequested(ev.EndReason.OPERATOR)]
    assert here.answers == {1: (CommandState.DONE, "hung up")}


def test_what_is_answered_while_it_is_read_again_is_not_done_again(
    desk: Callable[..., Desk],
) -> None:
    session = Session()
    here = desk(it=session)
    here.reading_s, here.writing_s = 0.3, 0.7
    for text in ("one", "two"):
        here.command("it", CommandKind.WHISPER, text)
    run(here.obeying(10))
    assert session.handled == [ev.Whispered("one"), ev.Whispered("two")]


@pytest.mark.parametrize("session", [None, Session(over=True)])
def test_nobody_is_told_when_the_call_has_ended(
    desk: Callable[..., Desk], session: Session | None
) -> None:
    here = desk(**({"it": session} if session else {}))
    here.command("it", CommandKind.WHISPER, "Too late.")
    run(here.obeying(2))
    assert here.answers == {1: (CommandState.DONE, "the call has ended")}
    assert session is None or session.handled == []


def test_what_was_done_and_could_not_be_told_is_told_and_not_done_again(
    desk: Callable[..., Desk],
) -> None:
    session = Session()
    here = desk(it=session)
    here.failures = 3
    here.command("it", CommandKind.WHISPER, "once")
    run(here.obeying(5))
    assert session.handled == [ev.Whispered("once")]
    assert here.answers == {1: (CommandState.DONE, "the agent was told")}


@pytest.mark.parametrize("kind", [CommandKind.WHISPER, CommandKind.HANG_UP])
@pytest.mark.parametrize("gone", [True, False])
def test_a_session_that_takes_anothers_place_is_asked_in_its_stead(
    desk: Callable[..., Desk], kind: CommandKind, gone: bool
) -> None:
    newcomer = Session()
    here = desk(**({} if gone else {"it": Session(over=True)}))
    here.replacing.add("it")
    here.command("it", kind, "Be kind.")

    async def story() -> None:
        obeying = asyncio.create_task(here.obeying(6))
        await asyncio.sleep(3)
        assert here.answers == {}
        here.sessions["it"] = newcomer
        here.replacing.clear()
        await obeying

    run(story())
    assert len(newcomer.handled) == 1
    answer = "hung up" if kind is CommandKind.HANG_UP else "the agent was told"
    assert here.answers == {1: (CommandState.DONE, answer)}


def test_what_is_asked_as_the_last_call_ends_is_answered(desk: Callable[..., Desk]) -> None:
    here = desk()

    async def story() -> None:
        obeying = asyncio.create_task(here.obeying(6))
        await asyncio.sleep(2)
        here.calls = 0
        await asyncio.sleep(1)
        here.command("it", CommandKind.WHISPER, "Too late.")
        await obeying

    run(story())
    assert here.answers == {1: (CommandState.DONE, "the call has ended")}


def test_what_this_release_does_not_know_is_refused_and_does_nothing(
    desk: Callable[..., Desk],
) -> None:
    session = Session()
    here = desk(it=session)
    here.command("it", "sing")  # type: ignore[arg-type]
    run(here.obeying(2))
    assert session.handled == []
    assert here.answers == {1: (CommandState.REFUSED, "this process does not know what sing is")}


def test_a_command_that_fails_costs_no_other(
    desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Session):
        def handle(self, event: ev.Event) -> None:
            raise RuntimeError("scripted")

    quick = Session()
    here = desk(broken=Broken(), quick=quick)
    here.command("broken", CommandKind.WHISPER, "…")
    here.command("quick", CommandKind.WHISPER, "Be kind.")
    run(here.obeying(2))
    assert set(here.answers) == {2}
    assert "a command failed" in caplog.text
