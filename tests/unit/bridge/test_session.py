"""A session's life and its end: everything it opened is released, whatever fails on the way."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace

import pytest

from sessions_app.bridge import session as session_module
from sessions_app.bridge.release import STEP_TIMEOUT_S
from sessions_app.bridge.session import CallSession
from sessions_app.core import events as ev
from sessions_app.core.audio import audible
from sessions_app.core.errors import ProviderError
from sessions_app.core.limits import Limits
from sessions_app.mirror import CallMirror
from tests.unit.bridge.clockwork import now, run
from tests.unit.bridge.fakes import (
    Act,
    FakeProvider,
    FakeSocket,
    FakeVoice,
    Lines,
    World,
    fails,
    fine,
    hangs,
    log_lines,
    raises,
    slow,
    until,
)

START = "[uuid-1] 🧹 Starting session cleanup..."
PROVIDER = "[uuid-1] ✓ Closed OpenAI WebSocket"
VONAGE = "[uuid-1] ✓ Closed Vonage WebSocket"
SPEECH = "[uuid-1] ✓ Closed Speechmatics HTTP client"
DONE = "[uuid-1] ✅ Session cleanup completed - all resources released"
STEPS = (START, PROVIDER, VONAGE, SPEECH, DONE)

#: Every step of a release, each at its bound.
RELEASE_MOST_S = STEP_TIMEOUT_S + session_module.HANG_UP_TIMEOUT_S + 0.1


def steps(lines: Lines) -> list[str]:
    return [line for line in lines.lines if line in STEPS]


async def in_talk(
    world: World, limits: Limits | None = None
) -> tuple[CallSession, asyncio.Task[None]]:
    """A session whose model is ready and whose phone is there."""
    session = world.session(limits)
    task = asyncio.create_task(session.run())
    session.open_media(world.socket)
    await asyncio.sleep(0.1)
    return session, task


async def alone() -> None:
    """No task of a session is left."""
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_log_tells_every_step_of_the_end_in_order() -> None:
    async def story() -> None:
        world = World(FakeProvider(speaks=False), voice=FakeVoice())
        with log_lines() as lines:
            session, task = await in_talk(world)
            await session.close(ev.EndReason.OPERATOR)
            await task
        assert steps(lines) == list(STEPS)
        assert not [n for n in lines.levels.values() if n > logging.INFO]
        assert world.removed == [session]
        assert world.socket.closed == world.provider.closed == 1
        assert world.voice is not None
        assert world.voice.closed == 1
        assert session.end_reason is ev.EndReason.OPERATOR
        await alone()

    run(story())


def test_only_what_was_opened_is_said_to_be_closed() -> None:
    async def story() -> None:
        world = World(FakeProvider(opening=hangs))
        with log_lines() as lines:
            session = world.session()
            task = asyncio.create_task(session.run())
            await asyncio.sleep(0.1)
            await session.close()
            await task
        assert steps(lines) == [START, DONE]
        assert world.provider.closed == 1, "a half-open connection is closed too"
        await alone()

    run(story())


@pytest.mark.parametrize("heard", [True, False])
def test_a_spare_voice_speaks_for_a_model_that_only_writes_and_is_closed_in_any_case(
    heard: bool,
) -> None:
    async def story() -> None:
        world = World(FakeProvider(), spare_voice=FakeVoice())
        with log_lines() as lines:
            session, task = await in_talk(world)
            emit = world.provider.emit
            assert emit is not None and world.spare_voice is not None
            for number in range(1 if heard else 3):
                await until(lambda n=number: len(world.provider.of(ev.CreateResponse)) > n)
                request = world.provider.of(ev.CreateResponse)[-1]
                assert isinstance(request, ev.CreateResponse)
                emit(ev.ResponseStarted(f"r{number}", request.request_id))
                emit(ev.AgentText(f"r{number}", f"i{number}", "Hello there."))
                if heard:
                    emit(ev.AgentAudio(f"r{number}", f"i{number}", b"\0\x10" * 24_000))
                emit(ev.AgentItemDone(f"r{number}", f"i{number}"))
                emit(ev.ResponseDone(f"r{number}", "completed"))
            await asyncio.sleep(1)
            await session.close()
            await task
        assert world.spare_voice.asked == ([] if heard else ["Hello there."])
        assert world.provider.of(ev.ChangeVoice) == ([] if heard else [ev.ChangeVoice(own=False)])
        assert world.socket.frames
        assert (SPEECH in lines.lines) is not heard
        assert world.spare_voice.closed == 1
        await alone()

    run(story())


@pytest.mark.parametrize("trouble", [raises, hangs, slow])
@pytest.mark.parametrize("step", ["provider", "socket", "voice", "hang up"])
def test_a_step_that_fails_or_hangs_is_told_and_the_others_still_run(
    step: str, trouble: Act
) -> None:
    async def story() -> None:
        world = World(
            FakeProvider(closing=trouble if step == "provider" else fine, speaks=False),
            FakeSocket(closing=trouble if step == "socket" else fine),
            FakeVoice(closing=trouble if step == "voice" else fine),
            hanging_up=trouble if step == "hang up" else fine,
        )
        with log_lines() as lines:
            session, task = await in_talk(world)
            began = now()
            session.handle(ev.EndRequested(ev.EndReason.OPERATOR))
            await session.wait_released()
            await task
            assert now() - began < RELEASE_MOST_S
        failed = {"provider": PROVIDER, "socket": VONAGE, "voice": SPEECH, "hang up": ""}[step]
        if trouble is slow:
            failed = ""
        assert steps(lines) == [line for line in STEPS if line != failed]
        warnings = [line for line, level in lines.levels.items() if level == logging.WARNING]
        assert len(warnings) == (trouble is not slow)
        assert (world.provider.closed, world.socket.closed, world.hung_up) == (1, 1, 1)
        assert world.removed == [session]
        await alone()

    run(story())


def test_everything_hanging_at_once_is_still_over_in_seconds() -> None:
    async def story() -> None:
        world = World(
            FakeProvider(closing=hangs, speaks=False),
            FakeSocket(closing=hangs),
            FakeVoice(closing=hangs),
            hanging_up=hangs,
        )
        session, task = await in_talk(world)
        began = now()
        session.handle(ev.EndRequested(ev.EndReason.OPERATOR))
        await task
        assert now() - began < RELEASE_MOST_S
        assert [note.kind for note in world.mirror.notes] == ["hang_up_failed"]
        await alone()

    run(story())


def test_a_mirror_that_fails_keeps_nobody_from_going_on() -> None:
    class Broken(CallMirror):
        def ended(self, reason: ev.EndReason) -> None:
            raise RuntimeError("broken on purpose")

    async def story() -> None:
        world = World(FakeProvider(), mirror=Broken("uuid-1", {}, lambda mirror: None))
        session, task = await in_talk(world)
        async with asyncio.timeout(30):
            await session.close()
        assert world.removed == [session]
        await asyncio.wait([task])
        task.exception()
        await alone()

    run(story())


# ---------------------------------------------------------------------- close()


def test_close_from_one_of_the_sessions_own_tasks_only_asks_for_the_end() -> None:
    async def story() -> None:
        closed = asyncio.Event()
        session: CallSession | None = None

        async def reading() -> None:
            await asyncio.sleep(1)
            assert session is not None
            await session.close(ev.EndReason.OPERATOR)
            closed.set()

        world = World(FakeProvider(reading=reading))
        session, task = await in_talk(world)
        async with asyncio.timeout(30):
            await task
        assert closed.is_set()
        assert session.end_reason is ev.EndReason.OPERATOR
        assert world.socket.closed == 1
        await alone()

    run(story())


def test_close_may_be_called_by_many_at_once_and_all_wait_for_the_release() -> None:
    async def story() -> None:
        world = World(FakeProvider(closing=slow))
        with log_lines() as lines:
            session, task = await in_talk(world)
            await asyncio.gather(*(session.close() for _ in range(20)))
            assert world.removed == [session]
            await task
        assert steps(lines) == [START, PROVIDER, VONAGE, DONE]
        assert world.provider.closed == 1
        await alone()

    run(story())


def test_one_who_gives_up_waiting_for_a_close_stops_nobody_elses() -> None:
    async def story() -> None:
        world = World(FakeProvider(closing=slow))
        session, task = await in_talk(world)
        impatient = asyncio.create_task(session.close())
        await asyncio.sleep(0.1)
        impatient.cancel()
        await session.close()
        assert world.removed == [session]
        await task

    run(story())


def test_close_after_the_end_returns_at_once() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        await session.close()
        await task
        await session.close(ev.EndReason.OPERATOR)
        assert session.end_reason is ev.EndReason.SHUTDOWN
        assert world.provider.closed == 1

    run(story())


def test_close_before_the_session_began_lets_it_begin_and_end() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        with log_lines() as lines:
            session = world.session()
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(1)
            assert not closing.done()
            await session.run()
            await closing
        assert steps(lines) == [START, DONE]
        assert world.provider.opened == 0

    run(story())


def test_close_from_another_threads_loop_waits_there() -> None:
    """On the real clock: two loops cannot share one that is moved by hand."""

    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        came_back = threading.Event()

        def elsewhere() -> None:
            asyncio.run(session.close(ev.EndReason.OPERATOR))
            assert world.removed == [session]
            came_back.set()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        async with asyncio.timeout(10):
            await task
            await until(came_back.is_set)
        thread.join(5)
        assert session.end_reason is ev.EndReason.OPERATOR

    asyncio.run(story())


def test_the_first_reason_counts() -> None:
    async def story() -> None:
        world = World(FakeProvider(closing=slow))
        session, task = await in_talk(world)
        session.handle(ev.CallerGone())
        await session.close(ev.EndReason.OPERATOR)
        await task
        assert session.end_reason is ev.EndReason.CALLER_HUNG_UP
        assert world.hung_up == 0

    run(story())


# ---------------------------------------------------------------------- faults


def test_a_cancelled_session_releases_everything() -> None:
    async def story() -> None:
        world = World(FakeProvider(speaks=False), voice=FakeVoice())
        with log_lines() as lines:
            session, task = await in_talk(world)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert steps(lines) == list(STEPS)
        assert session.end_reason is ev.EndReason.SHUTDOWN
        assert world.removed == [session]
        await session.close()
        await alone()

    run(story())


def test_a_session_cancelled_while_it_is_released_still_takes_every_step() -> None:
    async def story() -> None:
        world = World(FakeProvider(closing=slow, speaks=False), voice=FakeVoice())
        session, task = await in_talk(world)
        session.handle(ev.CallerGone())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert world.voice is not None
        assert (world.socket.closed, world.voice.closed) == (1, 1)
        assert world.removed == [session]
        await alone()

    run(story())


def test_a_fault_of_ours_ends_the_call_and_releases_everything() -> None:
    async def reading() -> None:
        raise KeyError("a bug")

    async def story() -> None:
        world = World(FakeProvider(reading=reading))
        with log_lines() as lines:
            session, task = await in_talk(world)
            await task
        assert session.end_reason is ev.EndReason.INTERNAL_ERROR
        assert steps(lines) == [START, PROVIDER, VONAGE, DONE]
        assert [line for line, level in lines.levels.items() if level == logging.ERROR]
        await alone()

    run(story())


@pytest.mark.parametrize("where", ["opening", "reading"])
def test_a_fault_of_ours_anywhere_in_the_model_ends_the_call(where: str) -> None:
    async def fault() -> None:
        raise KeyError("a bug")

    async def story() -> None:
        world = World(FakeProvider(**{where: fault}))  # type: ignore[arg-type]
        session, task = await in_talk(world)
        await task
        assert session.end_reason is ev.EndReason.INTERNAL_ERROR
        assert world.socket.closed == 1
        await alone()

    run(story())


def test_a_model_that_cannot_be_reached_ends_the_call_and_is_told() -> None:
    async def refuses() -> None:
        raise ProviderError("HTTP 401: invalid_api_key", retryable=False)

    async def story() -> None:
        world = World(FakeProvider(opening=refuses))
        session, task = await in_talk(world)
        await task
        assert session.end_reason is ev.EndReason.PROVIDER_FAILED
        assert world.fares == ["HTTP 401: invalid_api_key"]
        assert world.socket.closed == 1
        assert world.hung_up == 0, "the carrier goes on with what was planned for this"

    run(story())


@pytest.mark.parametrize("failed", [True, False])
def test_a_session_that_is_given_up_without_an_answer_is_told(failed: bool) -> None:
    """Each failure may pass; that nothing comes of one session after the other does not."""

    def fail(provider: FakeProvider, request: object) -> None:
        assert provider.emit is not None and isinstance(request, ev.CreateResponse)
        provider.emit(ev.ResponseStarted(request.request_id, request.request_id))
        provider.emit(ev.ResponseDone(request.request_id, "failed", "server_error"))

    async def story() -> None:
        world = World(FakeProvider(), later=[FakeProvider()])
        session, task = await in_talk(world)
        while not task.done():
            await asyncio.sleep(0.1)
            for provider in (world.provider, *world.later) if failed else ():
                requests = provider.of(ev.CreateResponse)
                provider.commands.clear()
                for request in requests:
                    fail(provider, request)
        await task
        assert session.end_reason is ev.EndReason.PROVIDER_FAILED
        assert set(world.fares) == {"server_error" if failed else "it began no answer"}

    run(story())


def test_a_model_that_is_never_ready_is_not_waited_for_without_end() -> None:
    async def story() -> None:
        world = World(FakeProvider(opening=hangs))
        began = now()
        session, task = await in_talk(world)
        await task
        assert session.end_reason is ev.EndReason.PROVIDER_FAILED
        assert now() - began < 15

    run(story())


def test_a_model_that_is_lost_and_cannot_be_had_again_ends_the_call() -> None:
    async def story() -> None:
        gone = fails(ProviderError("HTTP 503", retryable=True))
        world = World(FakeProvider(), later=[FakeProvider(opening=gone)])
        session, task = await in_talk(world)
        world.provider.lost.set()
        await task
        assert session.end_reason is ev.EndReason.PROVIDER_FAILED
        assert world.fares == ["connection closed: 1006", "HTTP 503"]
        assert [world.provider.closed, world.later[0].closed] == [1, 1]

    run(story())


def test_a_model_that_lets_us_in_and_answers_nobody_is_told_of_one_that_answers_too() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        emit = world.provider.emit
        assert world.fares == [] and emit is not None
        emit(ev.ResponseStarted("r0"))
        emit(ev.AgentAudio("r0", "i0", b"\0\x10"))
        emit(ev.AgentAudio("r0", "i0", b"\0\x10"))
        emit(ev.ResponseDone("r0", "cancelled"))
        assert world.fares == [""], "one answer, though it was not heard to its end"
        for number, (status, retryable) in enumerate([("failed", True), ("failed", False)]):
            emit(ev.ResponseStarted(f"f{number}"))
            emit(ev.ResponseDone(f"f{number}", status, retryable=retryable))
        assert world.fares == ["", "its responses fail"]
        await session.close()
        await task

    run(story())


def test_a_phone_that_takes_nothing_ends_the_call() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        world.socket.sending = hangs
        assert world.provider.emit is not None
        world.provider.emit(ev.ResponseStarted("r1", "r1"))
        world.provider.emit(ev.AgentAudio("r1", "i1", b"\1\0" * 24_000))
        await task
        assert session.end_reason is ev.EndReason.MEDIA_LOST

    run(story())


def test_where_a_voice_fails_the_model_speaks_itself_in_the_same_call() -> None:
    async def story() -> None:
        world = World(FakeProvider(speaks=False), voice=FakeVoice(pieces=0, failing="Hello"))
        session, task = await in_talk(world)
        assert "voice_failed" in [note.kind for note in world.mirror.notes]
        assert world.provider.of(ev.ChangeVoice) == [ev.ChangeVoice(own=True)]
        (request,) = world.provider.of(ev.CreateResponse)
        assert isinstance(request, ev.CreateResponse) and "Hello there." in request.instructions
        emit = world.provider.emit
        assert emit is not None
        emit(ev.ResponseStarted("r1", request.request_id))
        emit(ev.AgentText("r1", "i1", "Hello there."))
        emit(ev.AgentAudio("r1", "i1", b"\0\x10" * 24_000))
        emit(ev.AgentItemDone("r1", "i1"))
        await asyncio.sleep(2)
        assert len(world.socket.frames) == 50, "one second at the model's rate"
        await session.close()
        await task
        await alone()

    run(story())


# ---------------------------------------------------------------------- in between


def test_a_call_is_carried_both_ways() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        for _ in range(50):
            session.take_frame(b"\1\0" * 160)
            await asyncio.sleep(0.02)
        assert len(b"".join(world.provider.audio)) == pytest.approx(50 * 960, abs=100)
        (request,) = world.provider.of(ev.CreateResponse)
        assert isinstance(request, ev.CreateResponse)
        emit = world.provider.emit
        assert emit is not None
        emit(ev.ResponseStarted("r1", request.request_id))
        emit(ev.AgentText("r1", "i1", "Hello there."))
        emit(ev.AgentAudio("r1", "i1", b"\0\x10" * 24_000))
        emit(ev.AgentItemDone("r1", "i1"))
        emit(ev.ResponseDone("r1", "completed"))
        await asyncio.sleep(4)
        assert len(world.socket.frames) == 50
        (turn,) = world.mirror.turns.values()
        assert (turn.text, turn.final) == ("Hello there.", True)
        assert "greeting_heard_at" in world.mirror.fields
        await session.close()
        await task

    run(story())


def test_of_a_caller_who_sends_nothing_in_mid_word_the_model_and_our_ear_hear_silence() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        for number in range(60):
            loud = number >= 20  # there is a background before there is a voice
            session.take_frame((b"\0\x20" if loud else b"\1\0") * 160)
            await asyncio.sleep(0.02)
        assert session._ear.speaking
        emit = world.provider.emit
        assert emit is not None
        emit(ev.SpeechStarted("u1"))
        world.provider.audio.clear()
        heard_s = session._call.heard_caller_s
        await asyncio.sleep(3)
        fed = b"".join(world.provider.audio)
        assert len(fed) == pytest.approx(2 * 700 * 48, abs=200) and not audible(fed[2000:])
        assert not session._ear.speaking
        assert session._call.heard_caller_s == heard_s, "it is no sign of life"
        await session.close()
        await task

    run(story())


def test_a_frame_of_a_strange_size_is_told_once_and_left_out() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world)
        for _ in range(5):
            session.take_frame(b"\1\0" * 200)
        await asyncio.sleep(0.1)
        assert world.provider.audio == []
        assert session.bad_frames == 5
        assert [note.kind for note in world.mirror.notes] == ["bad_media_frame"]
        await session.close()
        await task

    run(story())


def test_a_silent_phone_ends_the_call_and_the_leg() -> None:
    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world, Limits(media_silence_s=20))
        session.handle(ev.SpeechStarted("u1"))
        await task
        assert session.end_reason is ev.EndReason.MEDIA_SILENT
        assert world.hung_up == 1

    run(story())


@pytest.mark.parametrize("ending", ["said", "provider asked", "keys"])
def test_waiting_costs_no_processor(ending: str) -> None:
    """A deadline that stays in the past would tick without end."""

    async def story() -> None:
        world = World(FakeProvider())
        session, task = await in_talk(world, Limits(media_silence_s=1000))
        emit = world.provider.emit
        assert emit is not None
        ticks = 0
        handle = session.handle

        def counts(event: ev.Event) -> None:
            nonlocal ticks
            ticks += isinstance(event, ev.Tick)
            handle(event)

        session.handle = counts  # type: ignore[method-assign]
        emit(ev.ResponseStarted("r1", "r1"))
        if ending == "said":
            emit(ev.ToolCalled("r1", "c1", "end_call", "{}"))
            emit(ev.ResponseDone("r1", "completed"))
        elif ending == "keys":
            emit(ev.AgentAudio("r1", "i1", b"\1\0" * 24_000))
            session.handle(ev.DtmfPressed("1"))
        else:
            emit(ev.ToolCalled("r1", "c1", "no_such", "{}"))
        await asyncio.sleep(11)
        assert ticks < 60
        await session.close()
        await task

    run(story())


def test_a_model_that_cannot_even_be_made_is_the_makers_business() -> None:
    async def story() -> None:
        world = World(FakeProvider())

        def broken() -> FakeProvider:
            raise ValueError("no such voice")

        with pytest.raises(ValueError, match="no such voice"):
            CallSession("uuid-1", setup=replace(world.setup(), provider=broken))
        await alone()

    run(story())
