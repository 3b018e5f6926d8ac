"""Whom to ask the carrier about, and what its answers mean; no clock, no sockets."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from sessions_app.core.ghosts import Inquiry, LegState, Pace, SessionSeen, Verdict

PACE = Pace()


def talking(uuid: str = "u", age_s: float = 600.0) -> SessionSeen:
    return SessionSeen(uuid, age_s, media_age_s=0.02)


def silent(uuid: str = "u", age_s: float = 600.0, media_age_s: float = 8.0) -> SessionSeen:
    return SessionSeen(uuid, age_s, media_age_s)


def unopened(uuid: str = "u", age_s: float = 6.0) -> SessionSeen:
    return SessionSeen(uuid, age_s, math.inf)


# ---------------------------------------------------------------------- whom to ask about


def test_a_call_that_has_just_begun_is_left_alone() -> None:
    assert Inquiry().next([unopened(age_s=4.9), talking("v", age_s=59)], 1000) is None
    assert Inquiry().next([], 1000) is None


def test_a_phone_that_is_silent_comes_before_one_that_is_heard() -> None:
    for suspect in (silent("s"), unopened("s")):
        inquiry = Inquiry()
        assert inquiry.next([talking("a"), suspect, talking("b")], 1000) == "s"
        # Asked about once, it is not asked about again at once; the others get their turn.
        assert inquiry.next([talking("a"), suspect, talking("b")], 1001) == "a"


def test_a_suspect_is_asked_about_again_soon_and_the_rest_slowly() -> None:
    inquiry, asked = Inquiry(), []
    for second in range(200):
        sessions = [silent("s", 600 + second), *(talking(f"t{n}", 600 + second) for n in range(3))]
        if (uuid := inquiry.next(sessions, 1000 + second)) is not None:
            asked.append((second, uuid))
    of_suspect = [second for second, uuid in asked if uuid == "s"]
    gaps = {b - a for a, b in pairwise(of_suspect)}
    assert gaps == {5}
    for n in range(3):
        times = [second for second, uuid in asked if uuid == f"t{n}"]
        assert len(times) == 4, "in their turn, once a minute"
        assert all(b - a >= 60 for a, b in pairwise(times))


def test_with_many_calls_each_gets_its_turn() -> None:
    inquiry = Inquiry()
    asked = [
        inquiry.next([talking(f"t{n}", 600.0 + second) for n in range(100)], 1000.0 + second)
        for second in range(100)
    ]
    assert len(set(asked)) == 100


def test_a_caller_of_a_lost_call_comes_first_but_not_at_once() -> None:
    inquiry = Inquiry()
    inquiry.orphaned("lost", 1000)
    assert inquiry.next([silent("s")], 1004.9) == "s"
    assert inquiry.next([silent("s")], 1010) == "lost"
    assert inquiry.next([], 1011) is None
    assert inquiry.next([], 1015) == "lost"


def test_a_lost_call_that_nobody_can_help_is_given_up() -> None:
    inquiry = Inquiry()
    inquiry.orphaned("lost", 1000)
    assert inquiry.next([], 1000 + PACE.orphan_most_s + 1) is None
    assert not inquiry.is_orphan("lost")


def test_nothing_is_remembered_of_calls_that_are_gone() -> None:
    inquiry = Inquiry()
    inquiry.next([silent("s")], 1000)
    inquiry.judge("s", LegState.UNKNOWN, silent("s"))
    inquiry.next([], 1001)
    assert not inquiry._asked_s and not inquiry._unknown


# ---------------------------------------------------------------------- what answers mean


@pytest.mark.parametrize("seen", [talking(), silent(), unopened()])
def test_a_leg_that_is_over_ends_its_session(seen: SessionSeen) -> None:
    assert Inquiry().judge("u", LegState.OVER, seen) is Verdict.END_SESSION


@pytest.mark.parametrize("seen", [talking(), silent(), unopened()])
def test_a_leg_that_is_up_is_left_alone(seen: SessionSeen) -> None:
    inquiry = Inquiry()
    for _ in range(3):
        assert inquiry.judge("u", LegState.UP, seen) is Verdict.LEAVE


def test_a_phone_that_is_heard_is_there_whatever_a_wrong_region_says() -> None:
    inquiry = Inquiry()
    for _ in range(5):
        assert inquiry.judge("u", LegState.UNKNOWN, talking()) is Verdict.LEAVE


@pytest.mark.parametrize("seen", [silent(), unopened()])
def test_a_leg_nobody_knows_ends_its_session_when_that_is_said_twice(seen: SessionSeen) -> None:
    inquiry = Inquiry()
    assert inquiry.judge("u", LegState.UNKNOWN, seen) is Verdict.LEAVE
    assert inquiry.judge("u", LegState.UP, seen) is Verdict.LEAVE
    assert inquiry.judge("u", LegState.UNKNOWN, seen) is Verdict.LEAVE
    assert inquiry.judge("u", LegState.UNKNOWN, talking()) is Verdict.LEAVE
    assert inquiry.judge("u", LegState.UNKNOWN, seen) is Verdict.LEAVE
    assert inquiry.judge("u", LegState.UNKNOWN, seen) is Verdict.END_SESSION


@pytest.mark.parametrize("leg", [LegState.OVER, LegState.UNKNOWN])
def test_a_caller_of_a_lost_call_who_has_gone_is_settled(leg: LegState) -> None:
    inquiry = Inquiry()
    inquiry.orphaned("lost", 1000)
    assert inquiry.judge("lost", leg, None) is Verdict.LEAVE
    assert not inquiry.is_orphan("lost")


def test_a_caller_of_a_lost_call_who_is_there_is_led_to_words_until_that_is_done() -> None:
    inquiry = Inquiry()
    inquiry.orphaned("lost", 1000)
    assert inquiry.judge("lost", LegState.UP, None) is Verdict.RESCUE_LEG
    assert inquiry.judge("lost", LegState.UP, None) is Verdict.RESCUE_LEG
    inquiry.settled("lost")
    assert inquiry.judge("lost", LegState.UP, None) is Verdict.LEAVE


def test_a_lost_call_that_lives_here_after_all_is_nobody_elses_business() -> None:
    inquiry = Inquiry()
    inquiry.orphaned("u", 1000)
    assert inquiry.judge("u", LegState.UP, talking()) is Verdict.LEAVE
    assert not inquiry.is_orphan("u")
