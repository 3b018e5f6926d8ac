from __future__ import annotations

import numpy as np
import pytest

from sessions_app.sandbox.hearing import Hearing
from sessions_app.sandbox.phone import QUEUE_FRAMES, Mark, Phone, frame_bytes, in_frames

LOUD = np.full(320, 5000, dtype="<i2").tobytes()
QUIET = bytes(640)


def phone(**options: float) -> tuple[Phone, Hearing]:
    hearing = Hearing()
    hearing.answered(0.0)
    return Phone(hearing, rate_hz=16000, **options), hearing


@pytest.mark.parametrize(("rate_hz", "size"), [(8000, 320), (16000, 640), (24000, 960)])
def test_a_frame_is_20_ms(rate_hz: int, size: int) -> None:
    assert frame_bytes(rate_hz) == size
    frames = in_frames(b"\1" * (size + 2), rate_hz)
    assert [len(frame) for frame in frames] == [size, size]
    assert frames[1] == b"\1\1" + bytes(size - 2)


def test_frames_are_played_one_each_tick_and_silence_is_sent_meanwhile() -> None:
    handset, hearing = phone()
    for _ in range(3):
        handset.queue(LOUD)
    assert [handset.tick(0.02 * n).frame for n in range(4)] == [QUIET] * 4
    assert bytes(handset.heard) == LOUD * 3
    assert hearing.first_sound_s == 0.0


def test_a_mark_is_reached_once_everything_before_it_was_played() -> None:
    handset, _ = phone()
    handset.queue(LOUD)
    handset.queue(Mark({"id": 1}))
    assert handset.tick(0.0).reached == []
    assert handset.tick(0.02).reached == [Mark({"id": 1})]


def test_clearing_drops_frames_and_marks() -> None:
    handset, _ = phone()
    handset.queue(LOUD)
    handset.queue(Mark({}))
    handset.clear()
    assert handset.tick(0.0).reached == []
    assert not handset.heard
    assert not handset.is_playing


def test_what_comes_beyond_a_minute_ahead_is_lost_and_counted() -> None:
    handset, _ = phone()
    for _ in range(QUEUE_FRAMES + 5):
        handset.queue(QUIET)
    assert handset.overflowed == 5


def test_a_talk_is_mixed_into_what_the_agent_says() -> None:
    handset, _ = phone()
    handset.queue(LOUD)
    handset.queue_talk(LOUD + LOUD)
    handset.tick(0.0)
    handset.tick(0.02)
    heard = np.frombuffer(bytes(handset.heard), "<i2")
    assert heard[0] == 10000
    assert heard[-1] == 5000


def test_live_speech_of_any_size_leaves_in_frames_and_lags_at_most_two_seconds() -> None:
    handset, _ = phone()
    handset.feed(b"\1" * 500)
    assert handset.tick(0.0).frame == QUIET
    handset.feed(b"\1" * 140)
    assert handset.tick(0.02).frame == b"\1" * 640
    handset.feed(b"\2" * 640 * 500)
    frames = 0
    while handset.is_speaking:
        handset.tick(0.0)
        frames += 1
    assert frames == 100


def test_what_is_kept_of_what_was_heard_is_bounded() -> None:
    handset, _ = phone(keep_heard_s=0.04)
    for _ in range(10):
        handset.queue(LOUD)
        handset.tick(0.0)
    assert len(handset.heard) == 2 * 640


def test_earmuffed_the_caller_hears_nothing() -> None:
    handset, hearing = phone()
    handset.is_deaf = True
    handset.queue(LOUD)
    handset.tick(1.0)
    assert hearing.first_sound_s is None


def test_a_new_rate_drops_what_was_queued_at_the_old_one() -> None:
    handset, _ = phone()
    handset.queue(LOUD)
    handset.speak(LOUD)
    handset.set_rate(24000)
    assert handset.tick(0.0).frame == bytes(960)
    assert not handset.heard


def test_silence_is_the_time_in_which_nobody_was_audible() -> None:
    hearing = Hearing()
    hearing.answered(10.0)
    hearing.agent(12.0)
    hearing.caller(13.0)
    hearing.agent(16.5)
    assert hearing.first_sound_s == 2.0
    assert hearing.longest_silence_s(17.0) == 3.5
    assert hearing.longest_silence_s(21.0) == 4.5
    hearing.ended(22.0)
    assert hearing.longest_silence_s(100.0) == 5.5


def test_with_a_person_on_the_line_silence_is_no_longer_measured() -> None:
    hearing = Hearing()
    hearing.answered(0.0)
    hearing.person(2.0)
    assert hearing.longest_silence_s(60.0) == 2.0


def test_before_the_answer_nothing_is_measured() -> None:
    assert Hearing().longest_silence_s(60.0) == 0.0
    assert Hearing().agent_quiet_s(60.0) is None


def test_who_takes_the_other_side_to_have_finished_waits_for_nothing_since_its_last_sound() -> None:
    hearing = Hearing()
    hearing.answered(0.0)
    hearing.agent(1.0)
    hearing.finished()
    assert hearing.longest_silence_s(60.0) == 1.0
    hearing.caller(60.0)
    assert hearing.longest_silence_s(63.5) == 3.5, "his last word is answered by silence"


def test_a_pause_in_the_middle_of_what_is_said_is_silence() -> None:
    hearing = Hearing()
    hearing.answered(0.0)
    hearing.agent(0.5)
    hearing.agent(4.5)
    hearing.finished()
    assert hearing.longest_silence_s(9.0) == 4.0


def test_an_agent_that_speaks_up_again_owes_the_rest() -> None:
    hearing = Hearing()
    hearing.answered(0.0)
    hearing.agent(0.1)
    hearing.finished()
    hearing.agent(20.0)
    assert hearing.longest_silence_s(23.0) == 3.0


def test_what_was_audible_is_counted_by_the_frame() -> None:
    handset, hearing = phone()
    for frame in (LOUD, bytes(640), LOUD):
        handset.queue(frame)
        handset.tick(0.0)
    assert hearing.agent_s == 0.04
