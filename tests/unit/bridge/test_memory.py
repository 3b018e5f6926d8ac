"""An ended call's memory is free at once: nothing of it waits for Python's garbage collector, which
would have to look through every live call to find it, and hold up their audio meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

from sessions_app.bridge.calltasks import CallTasks
from sessions_app.bridge.session import CallSession, weakly
from sessions_app.core import events as ev
from tests.unit.bridge.clockwork import run
from tests.unit.bridge.fakes import FakeProvider, FakeVoice, World, hangs
from tests.unit.bridge.test_session import in_talk
from tests.unit.bridge.test_session_recovery import CLIPS, greet


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    # A record that a test keeps would keep the exception it tells of.
    logging.disable()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


async def the_caller_hangs_up(world: World, session: CallSession) -> None:
    session.handle(ev.MediaClosed(clean=True))
    await session.wait_released()


async def an_operator_closes_it(world: World, session: CallSession) -> None:
    await session.close(ev.EndReason.OPERATOR)


async def the_model_is_lost_and_found(world: World, session: CallSession) -> None:
    world.provider.lost.set()
    await asyncio.sleep(0.1)
    assert world.later[0].opened == 1
    await session.close()


async def a_reserve_is_opened(world: World, session: CallSession) -> None:
    session._model.open_reserve()
    await asyncio.sleep(0.1)
    assert world.later[0].opened == 1
    await session.close()


async def the_voice_is_speaking(world: World, session: CallSession) -> None:
    # The greeting, whose sound never comes.
    assert world.voice is not None and world.voice.asked and not world.voice.ended
    await session.close()


ENDS = [
    the_caller_hangs_up,
    an_operator_closes_it,
    the_model_is_lost_and_found,
    a_reserve_is_opened,
    the_voice_is_speaking,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_of_an_ended_call_waits_for_the_collector(
    end: Callable[[World, CallSession], Awaitable[None]],
) -> None:
    async def one_call() -> tuple[weakref.ref[object], ...]:
        with_voice = end is the_voice_is_speaking
        voice = FakeVoice()
        voice.between = hangs
        world = World(
            FakeProvider(speaks=not with_voice),
            voice=voice if with_voice else None,
            later=[FakeProvider()],
            clips=CLIPS,
        )
        session, running = await in_talk(world)
        if not with_voice:
            greet(world.provider)
        await asyncio.sleep(1)
        await end(world, session)
        await running
        assert world.removed == [session]
        world.removed.clear()
        for provider in (world.provider, *world.later):
            provider.emit = None  # as a real one does
        parts = (session, session._call, session._outbox, session._ticker, session._model)
        return tuple(weakref.ref(part) for part in parts)

    async def story() -> None:
        known = await one_call()
        await asyncio.sleep(0)
        assert [type(part).__name__ for ref in known if (part := ref()) is not None] == []

    run(story())


def test_a_group_that_was_cancelled_lets_nobody_begin() -> None:
    async def story() -> None:
        began = []

        async def latecomer() -> None:
            began.append("late")
            await asyncio.Event().wait()

        async def first(tasks: CallTasks) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                tasks.create_task(latecomer())

        async with CallTasks() as tasks:
            tasks.create_task(first(tasks))
            await asyncio.sleep(0)
            tasks.cancel()
        assert began == []

    run(story())


def test_what_knows_its_owner_weakly_calls_nothing_once_that_is_gone() -> None:
    class Owner:
        def __init__(self, heard: list[str]) -> None:
            self.heard = heard

        def hear(self, word: str) -> None:
            self.heard.append(word)

    heard: list[str] = []
    owner = Owner(heard)
    tell = weakly(owner.hear)
    tell("one")
    del owner
    tell("two")
    assert heard == ["one"]
