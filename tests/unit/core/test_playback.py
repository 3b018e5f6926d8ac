"""The playback clock: never more than the caller heard, whatever the phone does with its marks."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.core.playback import MARK_LOST_MS, Playback

ITEMS = ("a", "b", "c")

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.sampled_from(ITEMS),
            st.sampled_from([20.0, 20.0, 13.4375, 400.0]),
            st.sampled_from([0.0, 6.5625]),
        ),
        st.tuples(st.just("mark")),
        st.tuples(st.just("return"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0.001, 3.0)),
        st.tuples(st.just("clear")),
        st.tuples(st.just("forget"), st.sampled_from(ITEMS)),
    ),
    max_size=60,
)


@dataclass
class Book:
    """The stream as it was written, kept apart from the clock under test."""

    clock: Playback = field(default_factory=Playback)
    now: float = 500.0
    first_write_s: float | None = None
    written: dict[str, float] = field(default_factory=dict)
    padding_ms: float = 0.0
    marks: list[tuple[str, float]] = field(default_factory=list)
    serial: int = 0
    returned_any: bool = False

    def take(self, step: tuple[object, ...]) -> None:
        match step:
            case ("write", str(item), float(audio_ms), float(padding_ms)):
                self.clock.wrote(item, audio_ms, self.now, padding_ms)
                self.written[item] = self.written.get(item, 0.0) + audio_ms
                self.padding_ms += padding_ms
                self.first_write_s = self.first_write_s or self.now
            case ("mark",):
                self.serial += 1
                self.clock.marked(f"m{self.serial}", self.now)
                self.marks.append((f"m{self.serial}", self.clock.written_ms))
            case ("return", int(which)) if which < len(self.marks):
                # A phone plays at one second a second, so no mark comes back before its time.
                mark_id, at_ms = self.marks[which]
                if self.clock.played_ms(self.now) >= at_ms:
                    self.clock.mark_played(mark_id, self.now)
                    self.marks = [m for m in self.marks if m[1] > at_ms]
                    self.returned_any = True
            case ("wait", float(seconds)):
                self.now += seconds
            case ("clear",):
                self.clock.cleared(self.now)
                self.marks.clear()
            case ("forget", str(item)):
                self.clock.forget(item)
                self.written.pop(item, None)

    def heard(self) -> dict[str, int]:
        return {item: self.clock.heard_ms(item, self.now) for item in ITEMS}


@given(steps)
@settings(max_examples=300)
def test_heard_is_at_most_what_was_written_and_at_most_the_time_that_has_passed(
    story: list[tuple[object, ...]],
) -> None:
    book = Book()
    for step in story:
        book.take(step)
        heard = book.heard()
        for item, ms in heard.items():
            assert 0 <= ms <= book.written.get(item, 0.0) + 1e-6
        passed_ms = (book.now - (book.first_write_s or book.now)) * 1000
        assert sum(heard.values()) <= passed_ms + 1


@given(steps)
@settings(max_examples=300)
def test_what_was_heard_stays_heard(story: list[tuple[object, ...]]) -> None:
    book = Book()
    before = book.heard()
    for step in story:
        book.take(step)
        heard = book.heard()
        for item in ITEMS:
            if step != ("forget", item):
                assert heard[item] >= before[item]
        before = heard


@given(steps)
@settings(max_examples=300)
def test_it_is_known_when_to_look_again_while_anything_is_unplayed(
    story: list[tuple[object, ...]],
) -> None:
    book = Book()
    for step in story:
        book.take(step)
        if book.clock.backlog_ms(book.now) > 1e-6:
            assert book.clock.look_again_s() > book.now
            book_ahead = book.clock.look_again_s() + 10
            assert book.clock.backlog_ms(book_ahead) == pytest.approx(0, abs=1e-6)


@given(steps)
@settings(max_examples=300)
def test_the_backlog_is_never_negative_and_a_clear_empties_it(
    story: list[tuple[object, ...]],
) -> None:
    book = Book()
    for step in story:
        book.take(step)
        assert book.clock.backlog_ms(book.now) >= 0
        if step == ("clear",):
            assert book.clock.backlog_ms(book.now) == 0


def ten_frames(clock: Playback, item: str, now: float, frames: int = 10) -> None:
    for _ in range(frames):
        clock.wrote(item, 20.0, now)


def test_the_clock_starts_late_by_the_way_to_the_ear() -> None:
    clock = Playback(lag_ms=80)
    ten_frames(clock, "a", 10.0)
    assert clock.heard_ms("a", 10.08) == 0
    assert clock.heard_ms("a", 10.18) == pytest.approx(100, abs=1)
    assert clock.first_at_s("a") == pytest.approx(10.08)


def test_a_gap_in_the_writing_is_not_heard() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 10.0)
    ten_frames(clock, "a", 20.0)
    assert clock.heard_ms("a", 20.1) == pytest.approx(300, abs=1)


def test_items_are_heard_one_after_the_other() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 10.0)
    ten_frames(clock, "b", 10.0)
    assert (clock.heard_ms("a", 10.25), clock.heard_ms("b", 10.25)) == (200, 50)
    assert clock.over("a", 10.25)
    assert not clock.over("b", 10.25)
    assert clock.first_at_s("b") == pytest.approx(10.2)
    assert clock.first_at_s("c") is None


def test_padding_takes_time_and_belongs_to_no_item() -> None:
    clock = Playback(lag_ms=0)
    clock.wrote("a", 5.0, 10.0, padding_ms=15.0)
    clock.wrote("b", 20.0, 10.0)
    assert clock.heard_ms("a", 10.1) == 5
    assert clock.heard_ms("b", 10.03) == pytest.approx(10, abs=1)


def working() -> Playback:
    """A clock whose phone has returned a mark."""
    clock = Playback(lag_ms=0)
    ten_frames(clock, "x", 0.0)
    clock.marked("m0", 0.0)
    assert clock.mark_played("m0", 0.2)
    return clock


def test_a_phone_that_stalls_is_believed_what_it_has_told_and_no_more() -> None:
    clock = working()
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    ten_frames(clock, "a", 1.0)
    assert clock.heard_ms("a", 1.4) == 200, "held at the mark, which may be a little late"
    assert clock.heard_ms("a", 1.5) == 0, "the phone stands still, nobody knows since when"
    assert clock.mark_played("m1", 1.9)
    assert clock.heard_ms("a", 1.95) == 250
    assert clock.heard_ms("a", 3.0) == 400


def test_a_mark_that_comes_early_moves_the_clock_on() -> None:
    clock = Playback(lag_ms=80)
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    clock.mark_played("m1", 1.2)
    assert clock.heard_ms("a", 1.2) == 200


def test_a_mark_behind_what_was_heard_long_ago_is_not_late_at_once() -> None:
    clock = working()
    clock.marked("m1", 9.0)
    assert clock.mark_due_s() == 9.0
    assert clock.played_ms(9.1) == clock.written_ms
    heard_s = clock.sounds_until_s()
    assert clock.mark_played("m1", 9.1)
    assert clock.sounds_until_s() == heard_s, "it says nothing of what was heard before it"


def test_a_mark_that_is_lost_is_given_up_and_only_that_one() -> None:
    clock = working()
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    ten_frames(clock, "a", 1.0, frames=200)
    clock.marked("m2", 1.0)
    assert clock.heard_ms("a", 1.2 + MARK_LOST_MS / 1000 - 0.01) == 0
    assert clock.heard_ms("a", 1.2 + MARK_LOST_MS / 1000 + 0.01) == pytest.approx(2210, abs=2)
    assert clock.heard_ms("a", 5.4) == 4200
    assert not clock.mark_played("m1", 5.5)
    assert clock.mark_played("m2", 5.6)
    assert clock.heard_ms("a", 5.6) == 4200


def test_a_phone_without_marks_is_waited_for_once() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    ten_frames(clock, "a", 1.0)
    assert clock.heard_ms("a", 2.0) == 200
    assert clock.heard_ms("a", 4.0) == 400
    ten_frames(clock, "b", 10.0)
    clock.marked("m2", 10.0)
    ten_frames(clock, "b", 10.0)
    assert clock.heard_ms("b", 10.3) == 300


def test_a_mark_of_before_a_clear_says_nothing_about_after() -> None:
    clock = working()
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    clock.cleared(1.1)
    ten_frames(clock, "b", 1.2)
    assert not clock.mark_played("m1", 1.2)
    assert clock.heard_ms("b", 1.25) == 50


def test_what_was_heard_before_a_clear_stays_until_it_is_forgotten() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 1.0)
    clock.cleared(1.15)
    assert clock.heard_ms("a", 9.0) == pytest.approx(150, abs=1)
    assert clock.over("a", 9.0)
    clock.forget("a")
    assert clock.heard_ms("a", 9.0) == 0


def test_a_long_call_is_forgotten_as_it_is_settled() -> None:
    clock = Playback()
    for number in range(2000):
        now = number * 1.0
        ten_frames(clock, f"item{number}", now)
        clock.marked(f"m{number}", now)
        clock.played_ms(now + 0.9)
        clock.forget(f"item{number}")
    assert len(clock._stretches) + len(clock._marks) + len(clock._heard_ms) < 10


# ---------------------------------------------------------------------- beside an honest phone


@dataclass
class HonestPhone:
    """Plays what reaches it, one second a second; its marks come back late, or never."""

    clock: Playback
    way_s: float
    now: float = 50.0
    free_s: float = 0.0
    played: list[tuple[str, float, float]] = field(default_factory=list)
    due: list[tuple[float, str]] = field(default_factory=list)
    serial: int = 0

    def write(self, item: str, frames: int) -> None:
        for _ in range(frames):
            self.clock.wrote(item, 20.0, self.now)
            start = max(self.free_s, self.now + self.way_s)
            self.played.append((item, start, start + 0.02))
            self.free_s = start + 0.02

    def mark(self, back_s: float | None) -> None:
        self.serial += 1
        self.clock.marked(f"m{self.serial}", self.now)
        if back_s is not None:
            at = max(self.free_s, self.now + self.way_s) + back_s
            self.due.append((max(at, self.due[-1][0] if self.due else 0.0), f"m{self.serial}"))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and self.due[0][0] <= until:
            self.now, mark_id = max(self.now, self.due[0][0]), self.due[0][1]
            del self.due[0]
            self.clock.mark_played(mark_id, self.now)
        self.now = until

    def heard_ms(self, item: str) -> float:
        return sum(
            1000 * max(0.0, min(end, self.now) - start)
            for name, start, end in self.played
            if name == item
        )


acts = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(ITEMS), st.integers(1, 60)),
        st.tuples(st.just("mark"), st.sampled_from([0.0, 0.05, 0.4, 1.5, 3.0, None])),
        st.tuples(st.just("wait"), st.sampled_from([0.02, 0.1, 0.5, 1.9, 2.1])),
    ),
    max_size=40,
)


@given(acts, st.floats(0.0, 0.08), st.booleans())
@settings(max_examples=1000)
def test_the_clock_is_never_ahead_of_an_honest_phone(
    story: list[tuple[object, ...]], way_s: float, marks: bool
) -> None:
    phone = HonestPhone(Playback(), way_s)
    for act in story:
        match act:
            case ("write", str(item), int(frames)):
                phone.write(item, frames)
            case ("mark", back_s):
                assert back_s is None or isinstance(back_s, float)
                phone.mark(back_s if marks else None)
            case ("wait", float(seconds)):
                phone.wait(seconds)
        for item in ITEMS:
            assert phone.clock.heard_ms(item, phone.now) <= phone.heard_ms(item) + 1


@given(acts, st.floats(0.0, 0.08))
@settings(max_examples=300)
def test_in_the_end_everything_an_honest_phone_played_counts_as_heard(
    story: list[tuple[object, ...]], way_s: float
) -> None:
    phone = HonestPhone(Playback(), way_s)
    for act in story:
        match act:
            case ("write", str(item), int(frames)):
                phone.write(item, frames)
            case ("mark", back_s):
                assert back_s is None or isinstance(back_s, float)
                phone.mark(back_s)
            case ("wait", float(seconds)):
                phone.wait(seconds)
    phone.wait(200)
    for item in ITEMS:
        assert phone.clock.heard_ms(item, phone.now) == pytest.approx(phone.heard_ms(item), abs=1)


def test_what_is_written_while_a_mark_is_waited_for_begins_when_it_was_written() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    ten_frames(clock, "b", 2.5)
    assert clock.heard_ms("b", 2.6) == 0
    assert clock.heard_ms("b", 3.21) == 200, "the mark is given up by now"
    early = Playback(lag_ms=0)
    ten_frames(early, "a", 1.0)
    early.marked("m1", 1.0)
    ten_frames(early, "b", 3.15)
    assert early.heard_ms("b", 3.21) == pytest.approx(60, abs=1)


def test_a_mark_says_nothing_about_what_was_written_since() -> None:
    clock = Playback(lag_ms=80)
    ten_frames(clock, "a", 1.0)
    clock.marked("m1", 1.0)
    ten_frames(clock, "b", 1.3)
    clock.mark_played("m1", 1.31)
    assert clock.heard_ms("b", 1.35) == 0
    assert clock.heard_ms("b", 1.48) == pytest.approx(100, abs=1)


# ---------------------------------------------------------------------- what can be heard at all


def test_the_last_sound_is_known_however_much_silence_is_written_behind_it() -> None:
    clock = Playback(lag_ms=0)
    assert clock.sounds_until_s() is None
    ten_frames(clock, "a", 1.0)
    clock.wrote("a", 3000, 1.0, audible=False)
    assert clock.sounds_until_s() == pytest.approx(1.2)


def test_when_it_was_heard_stays_known_though_the_clock_is_set_anew() -> None:
    clock = working()
    ten_frames(clock, "a", 1.0)
    clock.wrote("a", 3000, 1.0, audible=False)
    clock.cleared(3.0)
    assert clock.sounds_until_s() == pytest.approx(1.2), "a clear of silence is no sound"
    clock.marked("m1", 9.0)
    clock.mark_played("m1", 9.1)
    assert clock.sounds_until_s() == pytest.approx(1.2), "nor is a mark that comes back"


def test_a_sound_that_is_cleared_was_heard_until_then() -> None:
    clock = Playback(lag_ms=0)
    ten_frames(clock, "a", 1.0, frames=100)
    clock.cleared(1.5)
    assert clock.sounds_until_s() == pytest.approx(1.5)
