"""A process that was suspended wakes up, and its clock has leapt: who still lives goes on, who
does not is ended all the same."""

from __future__ import annotations

import asyncio

from sessions_app.bridge.session import CATCH_UP_S
from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import FRAME_BYTES, FakeProvider, World

FRAME = b"\0" * FRAME_BYTES
LIMITS = Limits(media_silence_s=30.0)


def leap(seconds: float) -> None:
    """What a suspended process sees: its clock is further than it can have come."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, clockwork.ClockworkLoop)
    loop._hands.now += seconds


def test_a_call_whose_phone_still_sends_outlives_a_leap() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session = world.session(LIMITS)
        running = asyncio.create_task(session.run())
        session.open_media(world.socket)
        for _ in range(50):
            session.take_frame(FRAME)
            await asyncio.sleep(0.02)
        leap(60)
        # The frames that waited in the socket are read a moment after the timers.
        await asyncio.sleep(CATCH_UP_S / 2)
        session.take_frame(FRAME)
        for _ in range(100):
            await asyncio.sleep(0.02)
            session.take_frame(FRAME)
        assert session.end_reason is None
        await session.close()
        await running

    clockwork.run(story())


def test_a_call_whose_phone_is_gone_ends_after_a_leap() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session = world.session(LIMITS)
        running = asyncio.create_task(session.run())
        session.open_media(world.socket)
        session.take_frame(FRAME)
        await asyncio.sleep(1)
        leap(60)
        woke_s = clockwork.now()
        async with asyncio.timeout(30):
            await session.wait_released()
        assert session.end_reason is ev.EndReason.MEDIA_SILENT
        assert clockwork.now() - woke_s < CATCH_UP_S + 3
        await running

    clockwork.run(story())


def test_a_call_whose_time_is_up_ends_however_it_passed() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session = world.session(Limits(max_s=300.0, media_silence_s=30.0))
        running = asyncio.create_task(session.run())
        session.open_media(world.socket)
        leap(400)
        for _ in range(100):
            session.take_frame(FRAME)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(10):
            await session.wait_released()
        assert session.end_reason is ev.EndReason.MAX_DURATION
        await running

    clockwork.run(story())
