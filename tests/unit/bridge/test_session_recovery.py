"""A session whose model goes away: another conversation with it, or a way out."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.bridge.inbox import Inbox
from sessions_app.bridge.model import Model
from sessions_app.bridge.session import CallSession
from sessions_app.core import events as ev
from sessions_app.core.errors import ProviderError
from sessions_app.core.phrases import Clip, Clips, Phrase
from tests.unit.bridge.clockwork import run
from tests.unit.bridge.fakes import (
    FakeProvider,
    World,
    fails,
    fine,
    hangs,
    log_lines,
    slow,
    until,
)
from tests.unit.bridge.test_session import alone, in_talk, steps

LOUD = b"\0\x10"
CLIPS = Clips(
    Clip(phrase, phrase.value, 8000, LOUD * 8000)
    for phrase in (Phrase.ONE_MOMENT, Phrase.STILL_HERE, Phrase.APOLOGY, Phrase.GOODBYE)
)


def greet(provider: FakeProvider) -> None:
    """The model says its greeting, whole."""
    assert provider.emit is not None
    (request,) = provider.of(ev.CreateResponse)
    assert isinstance(request, ev.CreateResponse)
    for event in (
        ev.ResponseStarted("r1", request.request_id),
        ev.AgentText("r1", "i1", "Hello there."),
        ev.AgentAudio("r1", "i1", LOUD * 12_000),
        ev.AgentItemDone("r1", "i1"),
        ev.ResponseDone("r1", "completed"),
    ):
        provider.emit(event)


def test_the_next_session_knows_what_was_heard_and_greets_nobody_again() -> None:
    async def story() -> None:
        second = FakeProvider()
        world = World(FakeProvider(), later=[second], clips=CLIPS)
        session, task = await in_talk(world)
        greet(world.provider)
        await asyncio.sleep(4)
        world.provider.lost.set()
        await asyncio.sleep(0.1)
        assert second.opened == 1 and world.provider.closed == 1
        assert second.commands == [ev.AddAgentWords("past_0", "Hello there.")]
        assert session.end_reason is None
        assert world.fares == [""]
        await session.close()
        await task
        assert second.closed == 1

    run(story())


def test_a_former_session_that_hangs_while_closing_holds_up_neither_the_next_nor_the_end() -> None:
    async def story() -> None:
        second = FakeProvider()
        world = World(FakeProvider(closing=hangs), later=[second], clips=CLIPS)
        session, task = await in_talk(world)
        world.provider.lost.set()
        await asyncio.sleep(0.1)
        assert second.opened == 1
        began = asyncio.get_running_loop().time()
        with log_lines() as lines:
            await session.close()
            await task
        assert asyncio.get_running_loop().time() - began < 5
        assert steps(lines)[-1].endswith("all resources released")
        assert world.provider.closed >= 1 and second.closed == 1

    run(story())


def test_what_the_caller_said_unanswered_is_sent_to_the_next_session_too() -> None:
    async def story() -> None:
        second = FakeProvider()
        world = World(FakeProvider(), later=[second], clips=CLIPS)
        session, task = await in_talk(world)
        greet(world.provider)
        await asyncio.sleep(2)
        assert world.provider.emit is not None
        world.provider.emit(ev.SpeechStarted("u1"))
        for _ in range(50):
            session.take_frame(LOUD * 160)
            await asyncio.sleep(0.02)
        world.provider.lost.set()
        for _ in range(10):
            session.take_frame(LOUD * 160)
            await asyncio.sleep(0.02)
        sent_ms = len(b"".join(second.audio)) / 48
        assert 1150 <= sent_ms <= 1250, "one second before the loss, and what came after it"
        await session.close()
        await task

    run(story())


def test_what_was_answered_is_not_sent_again() -> None:
    inbox = Inbox(8000, 8000)
    sent: list[bytes] = []
    with inbox.flowing(sent.append):
        for _ in range(100):
            inbox.put(LOUD * 160)
    inbox.rewind()
    sent.clear()
    with inbox.flowing(sent.append):
        inbox.put(b"\1\0" * 160)
    assert sent == [b"\1\0" * 160]


def test_a_caller_who_cannot_be_served_is_led_to_the_person() -> None:
    async def story() -> None:
        refused = fails(ProviderError("HTTP 401", retryable=False))
        world = World(FakeProvider(), later=[FakeProvider(opening=refused)], clips=CLIPS)
        world.person = "442079460111"
        session, task = await in_talk(world)
        greet(world.provider)
        await asyncio.sleep(2)
        world.provider.lost.set()
        await task
        assert world.transferred == 1
        assert session.end_reason is ev.EndReason.TRANSFERRED
        assert world.hung_up == 0

    run(story())


def test_where_the_transfer_fails_the_caller_hears_an_apology_and_is_hung_up_on() -> None:
    async def story() -> None:
        world = World(
            FakeProvider(),
            clips=CLIPS,
            transferring=fails(RuntimeError("Vonage PUT call: HTTP 500")),
        )
        world.person = "442079460111"
        session, task = await in_talk(world)
        greet(world.provider)
        await asyncio.sleep(2)
        frames = len(world.socket.frames)
        session.handle(ev.ProviderLost("insufficient_quota", retryable=False))
        await until(lambda: world.transferred == 1)
        await task
        assert session.end_reason is ev.EndReason.PROVIDER_FAILED
        assert world.hung_up == 1
        assert len(world.socket.frames) - frames >= 50, "the apology was not heard"

    run(story())


def test_a_phone_that_returns_no_mark_any_more_is_to_be_connected_again() -> None:
    async def story() -> None:
        world = World(FakeProvider(), clips=CLIPS)
        session, task = await in_talk(world)
        greet(world.provider)
        await until(lambda: "mark" in world.socket.kinds())
        session.handle(ev.MarkPlayed("m1"))
        while not world.connected_again:
            session.take_frame(bytes(session.setup.frame_bytes))
            await asyncio.sleep(0.02)
        assert not session.over and [note.kind for note in world.mirror.notes] == [
            "media_half_dead"
        ]
        frames = len(world.socket.frames)
        await session.close(ev.EndReason.REPLACED)
        await task
        assert world.connected_again == 1 and len(world.socket.frames) == frames
        assert (world.transferred, world.hung_up) == (0, 0)

    run(story())


async def renewing(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    """A call whose session lasts five seconds, and that has been greeted."""
    world.provider.life_s = 5.0
    session, task = await in_talk(world)
    greet(world.provider)
    return session, task


def test_a_session_is_renewed_by_one_that_was_opened_beside_it() -> None:
    async def story() -> None:
        second = FakeProvider(opening=slow)
        world = World(FakeProvider(), later=[second], clips=CLIPS)
        session, task = await renewing(world)
        opened_s = 0.0
        while second.emit is None:
            session.take_frame(bytes(320))
            await asyncio.sleep(0.02)
            if second.opened and not opened_s:
                opened_s = asyncio.get_running_loop().time()
            assert world.provider.closed == 0 or second.opened, "there was a time without any"
        await asyncio.sleep(0.1)
        assert world.provider.closed == 1 and second.closed == 0
        assert second.commands == [ev.AddAgentWords("past_0", "Hello there.")]
        assert "silence_broken" not in [note.kind for note in world.mirror.notes]
        await session.close()
        await task
        assert second.closed == 1
        await alone()

    run(story())


def test_a_renewal_that_fails_leaves_the_session_there_is() -> None:
    async def story() -> None:
        gone = fails(ProviderError("HTTP 503", retryable=True))
        later = [FakeProvider(opening=gone), FakeProvider()]
        world = World(FakeProvider(), later=later, clips=CLIPS)
        session, task = await renewing(world)
        await asyncio.sleep(4.5)
        assert later[0].closed == 1 and world.provider.closed == 0
        assert "renewal_failed" in [note.kind for note in world.mirror.notes]
        await asyncio.sleep(5)
        assert later[1].opened == 1 and world.provider.closed == 1
        assert session.end_reason is None
        await session.close()
        await task
        await alone()

    run(story())


@pytest.mark.parametrize("when", ["it opens", "it is there"])
def test_what_is_in_reserve_is_closed_with_the_call(when: str) -> None:
    async def story() -> None:
        second = FakeProvider(opening=hangs if when == "it opens" else fine)
        world = World(FakeProvider(), later=[second], clips=CLIPS)
        session, task = await renewing(world)
        await asyncio.sleep(3.5)
        session.handle(ev.SpeechStarted("u1"))  # no moment to change places
        session._model.open_reserve()
        await asyncio.sleep(0.1)
        await session.close()
        await task
        assert second.closed == world.provider.closed == 1
        await alone()

    run(story())


async def converse(model: Model) -> None:
    async with asyncio.TaskGroup() as tasks:
        await model.run(Inbox(8000, 24_000), tasks)


def test_a_session_that_breaks_while_its_follower_opens_is_replaced_and_that_one_closed() -> None:
    async def story() -> None:
        told: list[ev.Event] = []
        gate = asyncio.Event()

        async def late() -> None:
            await gate.wait()

        first, second, third = FakeProvider(), FakeProvider(opening=late), FakeProvider()
        providers = iter([first, second, third])
        model = Model(lambda: next(providers), told.append, lambda trouble, answered=True: None)
        running = asyncio.create_task(converse(model))
        await asyncio.sleep(0.1)
        model.open_reserve()
        await asyncio.sleep(0.1)
        model.reconnect()
        await asyncio.sleep(0.1)
        gate.set()
        await asyncio.sleep(0.1)
        assert [p.closed for p in (first, second, third)] == [1, 1, 0]
        assert told == [ev.ProviderReady(None)] * 2
        running.cancel()
        await asyncio.wait([running])
        await model.close()
        assert third.closed == 1

    run(story())


@pytest.mark.parametrize("why", ["renewed", "dropped", "refused what it was asked"])
def test_a_session_that_owes_no_answer_has_not_failed(why: str) -> None:
    """Else a network that is gone for a moment would turn callers away from a good service."""

    async def story() -> None:
        fares: list[str] = []
        first = FakeProvider()
        providers = iter([first, FakeProvider()])

        def note(trouble: str, *, answered: bool = True) -> None:
            fares.append(trouble)

        def tell(event: ev.Event) -> None:
            if isinstance(event, ev.ProviderLost):
                model.reconnect()

        model = Model(lambda: next(providers), tell, note)
        running = asyncio.create_task(converse(model))
        await asyncio.sleep(0.1)
        if why == "renewed":
            model.open_reserve()
            await asyncio.sleep(0.1)
            model.reconnect()
        elif why == "dropped":
            first.lost.set()
        else:
            model.send(ev.CreateResponse("r1", ev.Purpose.ANSWER))
            assert first.emit is not None
            first.emit(ev.RequestRefused("r1", busy=False, reason="invalid_value"))
            model.reconnect()
        await asyncio.sleep(0.1)
        assert fares == ["", ""], "let in, twice"
        running.cancel()
        await asyncio.wait([running])
        await model.close()

    run(story())


def test_a_session_that_has_been_given_up_tells_nothing_any_more() -> None:
    async def story() -> None:
        told: list[ev.Event] = []
        first, second = FakeProvider(), FakeProvider()
        providers = iter([first, second])
        model = Model(lambda: next(providers), told.append, lambda trouble, answered=True: None)
        running = asyncio.create_task(converse(model))
        await asyncio.sleep(0.1)
        first.lost.set()
        # It has broken, and nobody has been told yet, in the moment it is given up.
        model.reconnect()
        assert first.emit is not None
        first.emit(ev.SpeechStarted("u1"))
        await asyncio.sleep(0.1)
        assert told == [ev.ProviderReady(None), ev.ProviderReady(None)]
        running.cancel()
        await asyncio.wait([running])
        await model.close()
        assert first.closed and second.closed

    run(story())
