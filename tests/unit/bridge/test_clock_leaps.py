"""A process that was suspended wakes up, and its clock has leapt: who still lives goes on, who
does not is ended all the same."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.bridge.session import CallSession
from sessions_app.bridge.ticker import CATCH_UP_S
from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import FRAME_BYTES, FakeProvider, FakeSocket, World

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


@pytest.mark.parametrize("stood_still_s", [1.3, 1.7, 1.9, 2.2, 2.4, 3.0])
@pytest.mark.parametrize("something_first", [True, False])
def test_a_phone_whose_marks_were_not_read_in_time_is_not_given_up(
    stood_still_s: float, something_first: bool
) -> None:
    async def story() -> None:
        world = World(FakeProvider(), person="44207")
        session = world.session(LIMITS)
        running = asyncio.create_task(session.run())
        session.open_media(world.socket)
        await asyncio.sleep(0.1)
        assert world.provider.emit is not None
        (request,) = world.provider.of(ev.CreateResponse)
        assert isinstance(request, ev.CreateResponse)
        world.provider.emit(ev.ResponseStarted("r1", request.request_id))
        world.provider.emit(ev.AgentAudio("r1", "i1", b"\0\x10" * 24_000 * 8))
        for _ in range(120):
            session.take_frame(FRAME)
            await asyncio.sleep(0.02)
            answer_marks(session, world.socket, until_s=clockwork.now() - 0.95)
        assert world.socket.kinds().count("mark") > 2
        leap(stood_still_s)
        if something_first:
            # Of all that waited in the sockets, something is read before the rest.
            session.handle(ev.ProviderNotice("any", ""))
        await asyncio.sleep(0.05)
        session.take_frame(FRAME)
        answer_marks(session, world.socket, until_s=clockwork.now())
        for _ in range(50):
            session.take_frame(FRAME)
            await asyncio.sleep(0.02)
            answer_marks(session, world.socket, until_s=clockwork.now() - 0.95)
        assert world.transferred == 0
        await session.close()
        await running

    clockwork.run(story())


def answer_marks(session: CallSession, socket: FakeSocket, *, until_s: float) -> None:
    """The phone returns the marks that were sent until then."""
    for at_s, kind, what in list(socket.sent):
        if kind == "mark" and at_s <= until_s:
            session.handle(ev.MarkPlayed(str(what)))
