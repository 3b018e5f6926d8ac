"""What the phone is sent: exact frames, about a second ahead, nothing stale after a clear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.bridge.outbox import (
    CLOSE_TOLD_S,
    LEAD_MS,
    MARK_EVERY_MS,
    QUEUE_MOST_MS,
    SEND_TIMEOUT_S,
    Outbox,
)
from sessions_app.core import events as ev
from sessions_app.core.playback import Playback
from tests.unit.bridge.clockwork import now, run
from tests.unit.bridge.fakes import FRAME_BYTES, RATE_HZ, FakeSocket, hangs, raises

FRAME_MS = 20.0


class Desk:
    """An outbox at work, and a phone that plays in real time and returns marks."""

    def __init__(self, *, marks: bool = True, rate_hz: int = RATE_HZ) -> None:
        self.playback = Playback()
        self.events: list[ev.Event] = []
        self.socket = FakeSocket()
        self.outbox = Outbox(
            self.playback,
            phone_rate_hz=RATE_HZ,
            frame_bytes=FRAME_BYTES,
            emit=self.events.append,
            wrote=lambda: None,
            clock=asyncio.get_running_loop().time,
        )
        self._marks, self._rate_hz = marks, rate_hz
        self.socket.sending = self._plays

    def play(self, item_id: str, sound: bytes) -> None:
        self.outbox.play(item_id, sound, self._rate_hz)

    async def _plays(self) -> None:
        """Returns a mark when it has been played to."""
        at, kind, what = self.socket.sent[-1]
        if kind == "mark" and self._marks:
            due = self._ends_at_s() + 0.03 - at
            asyncio.get_running_loop().call_later(
                due, lambda: self.playback.mark_played(str(what), now())
            )

    def _ends_at_s(self) -> float:
        free = 0.0
        for at, kind, _ in self.socket.sent:
            if kind == "audio":
                free = max(free, at + 0.03) + FRAME_MS / 1000
            elif kind == "clear":
                free = at
        return free

    def unplayed_ms(self, at: float) -> float:
        return max(0.0, (self._ends_at_s() - at) * 1000)

    async def __aenter__(self) -> Desk:
        self._task = asyncio.create_task(self.outbox.run(self.socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def written(self) -> list[str]:
        return [event.item_id for event in self.events if isinstance(event, ev.ItemWritten)]


def pcm(audio_ms: float, sample: bytes = b"\1\0") -> bytes:
    return sample * round(audio_ms * RATE_HZ / 1000)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_frames_are_exact_and_carry_every_sample_in_order(sizes: list[int]) -> None:
    async def story() -> None:
        async with Desk() as desk:
            sound = b"".join(n.to_bytes(2, "little") for n in range(1, sum(sizes) + 1))
            at = 0
            for size in sizes:
                desk.play("a", sound[at : at + size * 2])
                at += size * 2
            desk.outbox.finish("a")
            await asyncio.sleep(sum(sizes) / RATE_HZ + 3)
            assert all(len(frame) == FRAME_BYTES for frame in desk.socket.frames)
            joined = b"".join(desk.socket.frames)
            assert joined[: len(sound)] == sound
            assert set(joined[len(sound) :]) <= {0}
            assert len(joined) - len(sound) < FRAME_BYTES
            assert desk.written() == ["a"]

    run(story())


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_sound_of_another_rate_keeps_its_length(rate_hz: int) -> None:
    async def story() -> None:
        async with Desk(rate_hz=rate_hz) as desk:
            for _ in range(30):
                desk.play("a", b"\1\0" * (rate_hz // 30))
            desk.outbox.finish("a")
            await asyncio.sleep(5)
            assert desk.playback.heard_ms("a", now()) == pytest.approx(1000, abs=5)

    run(story())


def test_the_phone_is_about_a_second_ahead_and_never_runs_dry() -> None:
    async def story() -> None:
        async with Desk() as desk:
            desk.play("a", pcm(20_000))
            began = now()
            await asyncio.sleep(0.2)
            while now() < began + 19:
                assert 100 < desk.unplayed_ms(now()) <= LEAD_MS + 100
                await asyncio.sleep(0.1)

    run(story())


def test_no_timer_runs_for_each_frame() -> None:
    async def story() -> None:
        async with Desk() as desk:
            desk.play("a", pcm(20_000))
            await asyncio.sleep(25)
            assert len(desk.socket.frames) == 1000
            moments = {at for at, kind, _ in desk.socket.sent if kind == "audio"}
            assert len(moments) <= 20_000 / 200

    run(story())


def test_marks_come_often_and_one_stands_behind_each_item() -> None:
    async def story() -> None:
        async with Desk() as desk:
            desk.play("a", pcm(3000))
            desk.outbox.finish("a")
            await asyncio.sleep(6)
            kinds = desk.socket.kinds()
            assert kinds[-1] == "mark"
            since = 0.0
            for kind in kinds:
                since = 0.0 if kind == "mark" else since + FRAME_MS
                assert since <= MARK_EVERY_MS
            ids = [what for _, kind, what in desk.socket.sent if kind == "mark"]
            assert len(set(ids)) == len(ids)

    run(story())


def test_items_follow_each_other_each_padded_by_itself() -> None:
    async def story() -> None:
        async with Desk() as desk:
            desk.play("a", pcm(30, b"\1\0"))
            desk.play("b", pcm(30, b"\2\0"))
            desk.outbox.finish("a")
            desk.outbox.finish("b")
            await asyncio.sleep(2)
            frames = desk.socket.frames
            assert [frame[0] for frame in frames] == [1, 1, 2, 2]
            assert frames[1] == pcm(10, b"\1\0") + bytes(160)
            assert desk.written() == ["a", "b"]
            assert desk.playback.heard_ms("a", now()) == 30
            assert desk.playback.heard_ms("b", now()) == 30

    run(story())


def test_what_is_queued_before_the_phone_is_there_is_sent_when_it_comes() -> None:
    async def story() -> None:
        desk = Desk()
        desk.play("a", pcm(500))
        desk.outbox.finish("a")
        await asyncio.sleep(5)
        assert desk.socket.sent == []
        async with desk:
            await asyncio.sleep(2)
        assert len(desk.socket.frames) == 25
        assert desk.written() == ["a"]

    run(story())


def test_a_clear_goes_first_and_nothing_of_before_it_is_sent_after() -> None:
    async def story() -> None:
        async with Desk() as desk:
            desk.play("a", pcm(5000, b"\1\0"))
            await asyncio.sleep(0.5)
            desk.playback.cleared(now())
            desk.outbox.clear()
            desk.play("b", pcm(100, b"\2\0"))
            desk.outbox.finish("b")
            await asyncio.sleep(2)
            kinds = desk.socket.kinds()
            assert kinds.count("clear") == 1
            after = desk.socket.sent[kinds.index("clear") + 1 :]
            assert {what[0] for _, kind, what in after if kind == "audio"} == {2}
            assert desk.outbox.queued_ms == 0

    run(story())


@pytest.mark.parametrize("at", [1, 2, 24, 25, 26, 27, 49, 50, 51])
def test_a_clear_that_comes_while_a_frame_is_sent_lets_nothing_pass_before_it(at: int) -> None:
    """Nor a mark: it would hold back the clock of what is said next."""

    async def story() -> None:
        desk = Desk()
        sending = desk.socket.sending

        async def interrupts() -> None:
            await sending()
            if len(desk.socket.frames) == at and "clear" not in desk.socket.kinds():
                if desk.socket.sent[-1][1] != "audio":
                    return
                desk.playback.cleared(now())
                desk.outbox.clear()

        desk.socket.sending = interrupts
        async with desk:
            desk.play("a", pcm(5000))
            await asyncio.sleep(2)
        kinds = desk.socket.kinds()
        assert kinds.count("audio") == at
        assert kinds[-2:] == ["audio", "clear"]

    run(story())


def test_the_rest_of_a_cut_item_is_not_heard_before_the_next() -> None:
    async def story() -> None:
        async with Desk(rate_hz=24_000) as desk:
            desk.play("a", b"\x10\x27" * 24_100)
            desk.outbox.clear()
            desk.play("b", bytes(4800))
            desk.outbox.finish("b")
            await asyncio.sleep(2)
            heard = np.frombuffer(b"".join(desk.socket.frames), dtype="<i2")
            assert len(heard) == 800
            assert np.max(np.abs(heard)) <= 2, "more than the resampler's dither"

    run(story())


@pytest.mark.parametrize("broken", [raises, hangs])
def test_a_socket_that_breaks_or_takes_nothing_ends_the_media(broken: Callable[[], object]) -> None:
    async def story() -> None:
        desk = Desk()
        began = now()
        async with desk:
            desk.play("a", pcm(100))
            desk.socket.sending = broken  # type: ignore[assignment]
            await asyncio.sleep(SEND_TIMEOUT_S + 1)
            assert desk.events == [ev.MediaClosed(clean=False)]
            assert desk._task.done()
            assert desk._task.exception() is None
        assert now() - began < SEND_TIMEOUT_S + 2

    run(story())


def test_a_server_that_says_the_socket_is_closed_already_ends_the_media() -> None:
    async def refuses() -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'close'")

    async def story() -> None:
        async with Desk() as desk:
            desk.socket.sending = refuses
            desk.play("a", pcm(100))
            await asyncio.sleep(0.1)
            assert desk.events == [], "its reader may still tell that it was closed well"
            await asyncio.sleep(CLOSE_TOLD_S)
            assert desk.events == [ev.MediaClosed(clean=False)]

    run(story())


def test_a_model_that_says_too_much_at_one_go_is_cut_and_told_once() -> None:
    async def story() -> None:
        desk = Desk()
        for _ in range(100):
            desk.play("a", pcm(10_000))
        assert desk.outbox.queued_ms <= QUEUE_MOST_MS + FRAME_MS
        notices = [event for event in desk.events if isinstance(event, ev.ProviderNotice)]
        assert [notice.kind for notice in notices] == ["speech_too_long"]
        assert desk.outbox.overrun_ms == pytest.approx(1_000_000 - QUEUE_MOST_MS, abs=FRAME_MS)

    run(story())


def test_a_phone_without_marks_is_served_too() -> None:
    async def story() -> None:
        async with Desk(marks=False) as desk:
            desk.play("a", pcm(6000))
            desk.outbox.finish("a")
            await asyncio.sleep(10)
            assert desk.playback.heard_ms("a", now()) == 6000
            assert desk.written() == ["a"]

    run(story())
