from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.pattern import silence, voice_pcm
from tests.fakes.playback import FRAME_S, Playback

RATE = 16_000
FRAME = b"\1\1" * 320


def frames(voice: int, length_ms: int) -> list[bytes]:
    pcm = voice_pcm(voice, 0, length_ms, RATE)
    return [pcm[at : at + 640] for at in range(0, len(pcm), 640)]


def test_frames_sent_at_once_are_heard_one_after_the_other() -> None:
    phone = Playback(RATE)
    for _ in range(50):
        phone.push(FRAME, 10.0)

    assert phone.heard_ms(10.5) == pytest.approx(500)
    assert phone.queued_ms == pytest.approx(480, abs=21)
    assert phone.heard_ms(99.0) == pytest.approx(1000)


def test_a_clear_cuts_the_frame_that_is_sounding() -> None:
    phone = Playback(RATE)
    for _ in range(5):
        phone.push(FRAME, 0.0)

    phone.clear(0.03)

    assert phone.heard_ms(1.0) == pytest.approx(30, abs=0.1)
    assert phone.clears[0].dropped_ms == pytest.approx(70, abs=0.1)
    assert len(phone.played[-1].pcm) == 320


def test_what_comes_after_a_clear_is_heard_at_once() -> None:
    phone = Playback(RATE)
    for _ in range(100):
        phone.push(FRAME, 0.0)
    phone.clear(0.5)

    phone.push(frames(4, 20)[0], 0.6)

    assert phone.first_audible_s(since_s=0.55) == pytest.approx(0.6)


def test_a_marker_is_reached_when_the_audio_before_it_has_been_played() -> None:
    phone = Playback(RATE)
    for _ in range(10):
        phone.push(FRAME, 0.0)
    phone.mark({"id": 1}, 0.0)

    due_s = phone.next_marker_s()

    assert due_s == pytest.approx(0.2)
    assert phone.take_reached(0.19) == []
    assert phone.take_reached(0.2001) == [{"id": 1}]
    assert phone.take_reached(0.3) == []


def test_a_marker_behind_nothing_is_reached_at_once() -> None:
    phone = Playback(RATE)
    phone.mark({"id": 1}, 5.0)
    assert phone.take_reached(5.0) == [{"id": 1}]


def test_a_marker_that_was_cleared_is_never_reached() -> None:
    phone = Playback(RATE)
    for _ in range(10):
        phone.push(FRAME, 0.0)
    phone.mark({"id": 1}, 0.0)

    assert phone.clear(0.05) == [{"id": 1}]
    assert phone.take_reached(9.0) == []


def test_asking_what_was_heard_loses_no_marker() -> None:
    phone = Playback(RATE)
    phone.push(FRAME, 0.0)
    phone.mark({"id": 1}, 0.0)

    phone.heard_ms(1.0)

    assert phone.take_reached(1.0) == [{"id": 1}]


def test_the_queue_holds_3072_frames_and_loses_the_rest() -> None:
    phone = Playback(RATE)
    for _ in range(3100):
        phone.push(FRAME, 0.0)

    # The first one is sounding, so the queue has room for one more.
    assert phone.overflowed == 3100 - 3072 - 1


def test_utterances_name_the_voice_and_what_was_heard_of_it() -> None:
    phone = Playback(RATE)
    for frame in frames(2, 1000):
        phone.push(frame, 0.0)
    phone.clear(0.4)
    for frame in [silence(20, RATE), *frames(3, 200)]:
        phone.push(frame, 0.7)
    phone.advance(5.0)

    first, second = phone.utterances()

    assert (first.voice, second.voice) == (2, 3)
    assert first.from_ms == pytest.approx(0, abs=5)
    assert first.to_ms == pytest.approx(400, abs=6)
    assert second.start_s == pytest.approx(0.72)
    assert phone.voice_heard_ms(2) == pytest.approx(400, abs=6)
    assert phone.voice_heard_ms(3, until_s=0.82) == pytest.approx(100, abs=6)


def test_a_pause_in_the_middle_is_seen_as_a_gap() -> None:
    phone = Playback(RATE)
    parts = frames(1, 200)
    for frame in parts[:5]:
        phone.push(frame, 0.0)
    for frame in parts[5:]:
        phone.push(frame, 0.3)
    phone.advance(5.0)

    (utterance,) = phone.utterances()

    assert utterance.gaps_ms == pytest.approx(200, abs=1)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["push", "clear", "wait"]), st.floats(0, 0.2)), max_size=60
    )
)
def test_nobody_hears_more_than_was_sent_or_than_time_has_passed(
    steps: list[tuple[str, float]],
) -> None:
    phone, now_s, sent = Playback(RATE), 0.0, 0
    for action, pause_s in steps:
        now_s += pause_s
        if action == "push":
            phone.push(FRAME, now_s)
            sent += 1
        elif action == "clear":
            phone.clear(now_s)
    heard_ms = phone.heard_ms(now_s)
    dropped_ms = sum(clear.dropped_ms for clear in phone.clears)
    assert -0.001 <= heard_ms <= min(now_s, sent * FRAME_S) * 1000 + 0.001
    total_ms = phone.heard_ms(now_s + 60) + dropped_ms
    assert total_ms == pytest.approx(sent * 20, abs=0.2 * len(steps) + 0.1)
