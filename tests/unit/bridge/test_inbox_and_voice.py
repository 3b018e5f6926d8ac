"""The caller's sound on its way in, and clauses on their way to a voice."""

from __future__ import annotations

import asyncio

import pytest

from sessions_app.bridge.inbox import EARLY_FRAMES, Inbox
from sessions_app.bridge.voice import VoiceQueue
from sessions_app.core import events as ev
from tests.unit.bridge.clockwork import now, run
from tests.unit.bridge.fakes import FakeVoice, hangs


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * 160


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def test_what_the_caller_said_before_the_model_was_ready_is_not_lost() -> None:
    got: list[bytes] = []
    inbox = Inbox(8000, 8000)
    for number in range(250):
        inbox.put(frame(number))
    with inbox.flowing(got.append):
        assert got == [b"".join(frame(number) for number in range(250))]
    assert inbox.dropped == 0


def test_before_the_model_is_ready_the_oldest_is_dropped_and_counted() -> None:
    got: list[bytes] = []
    inbox = Inbox(8000, 8000)
    for number in range(EARLY_FRAMES + 7):
        inbox.put(frame(number))
    with inbox.flowing(got.append):
        assert b"".join(got) == b"".join(frame(n) for n in range(7, EARLY_FRAMES + 7))
    assert inbox.dropped == 7


def test_each_frame_is_handed_on_as_it_comes() -> None:
    got: list[bytes] = []
    inbox = Inbox(8000, 8000)
    with inbox.flowing(got.append):
        for number in range(3):
            inbox.put(frame(number))
            assert got[-1] == frame(number)
    inbox.put(frame(3))
    assert len(got) == 3, "nobody takes it any more"


def test_the_models_rate_is_what_comes_out() -> None:
    got: list[bytes] = []
    inbox = Inbox(8000, 24_000)
    with inbox.flowing(got.append):
        for number in range(100):
            inbox.put(frame(number))
    assert len(b"".join(got)) == pytest.approx(100 * 960, abs=100)


# ---------------------------------------------------------------------- the voice


class Choir:
    def __init__(self, voice: FakeVoice | None = None, **options: float) -> None:
        self.voice = voice or FakeVoice()
        self.events: list[ev.Event] = []
        self.backlog_ms = 0.0
        self.queue = VoiceQueue(
            self.voice, self.events.append, backlog_ms=lambda: self.backlog_ms, **options
        )

    def ask(self, *texts: str, item: str = "i") -> None:
        for number, text in enumerate(texts):
            self.queue.speak(ev.SpeakClause(item, number, text))

    async def __aenter__(self) -> Choir:
        self._task = asyncio.create_task(self._speak())
        return self

    async def _speak(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self.queue.run(tasks)

    async def __aexit__(self, *_: object) -> None:
        await stop(self._task)


def test_clauses_are_spoken_one_after_the_other() -> None:
    async def story() -> None:
        async with Choir() as choir:
            choir.ask("one", "two", "three")
            await asyncio.sleep(1)
            assert choir.voice.asked == ["one", "two", "three"]
            order = [(type(e).__name__, e.clause) for e in choir.events]  # type: ignore[union-attr]
            assert order == [
                (kind, n)
                for n in range(3)
                for kind in ("SpokenAudio", "SpokenAudio", "ClauseSpoken")
            ]

    run(story())


def test_a_stop_drops_what_waits_and_ends_the_request_under_way() -> None:
    async def story() -> None:
        async with Choir() as choir:
            choir.voice.between = hangs
            choir.ask("one", "two")
            await asyncio.sleep(0.1)
            choir.queue.stop()
            choir.voice.between = asyncio.Event().set  # type: ignore[assignment]
            await asyncio.sleep(0.1)
            assert choir.voice.asked == ["one"]
            assert choir.voice.ended == ["one"]
            assert choir.events == []

    run(story())


def test_what_is_asked_right_after_a_stop_is_spoken() -> None:
    async def story() -> None:
        async with Choir() as choir:
            hanging = asyncio.Event()

            async def waits() -> None:
                await hanging.wait()

            choir.voice.between = waits
            choir.ask("one", item="old")
            await asyncio.sleep(0.1)
            choir.queue.stop()
            hanging.set()
            choir.ask("new", item="new")
            await asyncio.sleep(0.1)
            assert {e.item_id for e in choir.events} == {"new"}  # type: ignore[union-attr]

    run(story())


def test_a_stop_that_comes_from_what_the_voice_itself_said_ends_it() -> None:
    async def story() -> None:
        choir = Choir(FakeVoice(pieces=50))

        def emit(event: ev.Event) -> None:
            choir.events.append(event)
            if len(choir.events) == 3:
                choir.queue.stop()

        async def yields() -> None:
            await asyncio.sleep(0)

        choir.voice.between = yields
        choir.queue = VoiceQueue(choir.voice, emit, backlog_ms=lambda: 0.0)
        async with choir:
            choir.ask("one", "two")
            await asyncio.sleep(1)
            assert len(choir.events) == 3
            assert choir.voice.ended == ["one"]

    run(story())


def test_a_clause_that_fails_is_told_and_the_next_is_spoken() -> None:
    async def story() -> None:
        async with Choir(FakeVoice(failing="two")) as choir:
            choir.ask("one", "two", "three")
            await asyncio.sleep(1)
            failed = [event for event in choir.events if isinstance(event, ev.ClauseFailed)]
            assert failed == [ev.ClauseFailed("i", 1, "HTTP 500")]
            assert ev.ClauseSpoken("i", 2) in choir.events
            assert ev.ClauseSpoken("i", 1) not in choir.events

    run(story())


@pytest.mark.parametrize(("pieces", "told"), [(20, "at once"), (3, "at its end")])
def test_silence_in_place_of_speech_is_a_failure_and_reaches_nobody(pieces: int, told: str) -> None:
    async def story() -> None:
        async with Choir(FakeVoice(pieces=pieces)) as choir:
            choir.voice.sound = b"\0\0"
            choir.ask("one")
            await asyncio.sleep(1)
            assert choir.events == [ev.ClauseFailed("i", 0, "silence instead of speech")]

    run(story())


def test_a_pause_within_a_clause_is_heard_where_it_was() -> None:
    async def story() -> None:
        async with Choir(FakeVoice(pieces=6)) as choir:
            sounds = iter([b"\0\0", b"\0\x10", b"\0\0", b"\0\0", b"\0\x10", b"\0\0"])

            async def next_sound() -> None:
                choir.voice.sound = next(sounds)

            choir.voice.between = next_sound
            choir.ask("one")
            await asyncio.sleep(1)
            spoken = b"".join(e.pcm for e in choir.events if isinstance(e, ev.SpokenAudio))
            wanted = [b"\0\0", b"\0\x10", b"\0\0", b"\0\0", b"\0\x10", b"\0\0"]
            assert spoken == b"".join(sound * 1600 for sound in wanted)
            assert choir.events[-1] == ev.ClauseSpoken("i", 0)

    run(story())


def test_no_clause_is_fetched_while_enough_is_on_its_way() -> None:
    async def story() -> None:
        async with Choir(ahead_ms=6000) as choir:
            choir.backlog_ms = 9000
            choir.ask("one")
            began = now()

            def drain() -> None:
                choir.backlog_ms = 5000

            asyncio.get_running_loop().call_at(began + 4, drain)
            await asyncio.sleep(2.9)
            assert choir.voice.asked == []
            await asyncio.sleep(4)
            assert choir.voice.asked == ["one"]

    run(story())


def test_the_end_of_a_call_ends_the_request_under_way() -> None:
    async def story() -> None:
        async with Choir() as choir:
            choir.voice.between = hangs
            choir.ask("one")
            await asyncio.sleep(0.1)
        assert choir.voice.ended == ["one"]
        assert len(asyncio.all_tasks()) == 1

    run(story())
