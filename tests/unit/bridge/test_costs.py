"""What each 20 ms of a call may cost, counted and not timed: it must not creep back.

Measured times are in `docs/performance.md`; these counts are the same on every machine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from sessions_app.bridge.session import CallSession
from sessions_app.core import events as ev
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import FRAME_BYTES, FakeProvider, FakeSocket, World

FRAME = b"\1\0" * (FRAME_BYTES // 2)
#: 100 ms of the model's voice.
DELTA = b"\0\x20" * 2400
#: The session's own; its model's, phone's, transfer's and clock's; a conversation, and the next one
#: in reserve.
TASKS = 7


class CountingLoop(clockwork.ClockworkLoop):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks = self.timers = self.tasks = 0

    def call_soon(self, *arguments: Any, **options: Any) -> Any:
        self.callbacks += 1
        return super().call_soon(*arguments, **options)

    def call_at(self, *arguments: Any, **options: Any) -> Any:
        self.timers += 1
        return super().call_at(*arguments, **options)

    def create_task(self, *arguments: Any, **options: Any) -> Any:
        self.tasks += 1
        return super().create_task(*arguments, **options)

    @property
    def asked(self) -> tuple[int, int, int]:
        return self.callbacks, self.timers, self.tasks


def run(story: Callable[[CountingLoop], Any]) -> Any:
    async def told() -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        return await story(loop)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        return runner.run(told())


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """Python functions that are called, by name."""
    names: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(former)


async def a_live_call(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    session = world.session()
    running = asyncio.create_task(session.run())
    session.open_media(world.socket)
    await asyncio.sleep(0.1)
    assert world.provider.emit is not None
    return session, running


def test_a_frame_of_the_caller_wakes_nobody_and_takes_few_steps() -> None:
    async def story(loop: CountingLoop) -> None:
        world = World(FakeProvider())
        session, running = await a_live_call(world)
        session.take_frame(FRAME)
        before, sent = loop.asked, len(world.provider.audio)
        with counted_calls() as names:
            for _ in range(100):
                session.take_frame(FRAME)
        assert loop.asked == before, "callbacks, timers, tasks"
        assert len(world.provider.audio) - sent == 100, "each is with the model at once"
        assert len(names) <= 100 * 14, sorted(set(names))
        await session.close()
        await running

    run(story)


def test_a_piece_of_the_agents_voice_wakes_nobody_while_the_phone_has_enough() -> None:
    async def story(loop: CountingLoop) -> None:
        world = World(FakeProvider())
        session, running = await a_live_call(world)
        emit = world.provider.emit
        assert emit is not None
        emit(ev.ResponseStarted("r1", ""))
        for _ in range(20):  # two seconds: the phone is given one
            emit(ev.AgentAudio("r1", "a1", DELTA))
        await asyncio.sleep(0.1)
        before = loop.asked
        with counted_calls() as names:
            for _ in range(20):
                emit(ev.AgentAudio("r1", "a1", DELTA))
        assert loop.asked == before, "callbacks, timers, tasks"
        assert len(names) <= 20 * 42, sorted(set(names))
        await session.close()
        await running

    run(story)


def test_a_second_of_speech_costs_a_few_turns_of_the_loop_and_no_task() -> None:
    async def story(loop: CountingLoop) -> None:
        world = World(FakeProvider(), socket=FakeSocket())
        session, running = await a_live_call(world)
        emit = world.provider.emit
        assert emit is not None
        emit(ev.ResponseStarted("r1", ""))
        for _ in range(300):
            emit(ev.AgentAudio("r1", "a1", DELTA))
        await asyncio.sleep(2)
        written = len(world.socket.frames)
        callbacks, timers, tasks = loop.asked
        await asyncio.sleep(10)
        assert len(world.socket.frames) - written == pytest.approx(500, abs=30)
        now_callbacks, now_timers, now_tasks = loop.asked
        assert now_tasks == tasks
        # 50 frames a second leave in four batches, and a tick each second tells how far he heard.
        assert now_timers - timers <= 10 * 12
        assert now_callbacks - callbacks <= 10 * 12
        await session.close()
        await running

    run(story)


class Answering(FakeProvider):
    """Says a second of something whenever it is asked."""

    def send(self, command: object) -> None:
        super().send(command)
        if isinstance(command, ev.CreateResponse):
            asyncio.get_running_loop().call_soon(self._answer, command.request_id)

    def hear(self, name: str) -> None:
        """The caller says something, and is answered."""
        assert self.emit is not None
        self.emit(ev.SpeechStarted(f"u.{name}"))
        self.emit(ev.SpeechStopped(f"u.{name}"))
        self.emit(ev.CallerTranscript(f"u.{name}", "And then?", final=True))
        self._answer("", name)

    def _answer(self, request_id: str, name: str = "") -> None:
        name = name or request_id
        emit, response_id = self.emit, f"r.{name}"
        assert emit is not None
        emit(ev.ResponseStarted(response_id, request_id))
        for _ in range(10):
            emit(ev.AgentAudio(response_id, f"i.{name}", DELTA))
        emit(ev.AgentItemDone(response_id, f"i.{name}"))
        emit(ev.ResponseDone(response_id, "completed", "", True, {}))


@pytest.mark.parametrize("seconds", [5, 300])
def test_a_call_has_so_many_tasks_however_long_it_is(seconds: int) -> None:
    async def story(loop: CountingLoop) -> None:
        provider = Answering()
        world = World(provider)
        began = loop.tasks
        session, running = await a_live_call(world)
        for frame in range(seconds * 50):
            if frame % 500 == 100:
                provider.hear(f"{frame}")
            session.take_frame(FRAME)
            await asyncio.sleep(0.02)
        assert session.end_reason is None
        assert loop.tasks - began == TASKS
        await session.close()
        await running

    run(story)


def test_of_a_call_that_is_over_no_sound_is_kept() -> None:
    """By whoever still knows its session."""

    async def story(loop: CountingLoop) -> None:
        world = World(FakeProvider())
        session, running = await a_live_call(world)
        emit = world.provider.emit
        assert emit is not None
        emit(ev.ResponseStarted("r1", ""))
        for _ in range(100):
            emit(ev.AgentAudio("r1", "a1", DELTA))
        session.take_frame(FRAME)
        assert session._outbox._queue and session._inbox._sent
        await session.close()
        await running
        assert not session._outbox._queue
        assert not session._inbox._sent and not session._inbox._waiting

    run(story)
