"""Places for connects: no second with more than the carrier takes, and none later than need be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.pacing import LONGEST_DELAY_MS, WINDOW_MS, Crowded, Pace

#: (how long after the former one, with how much to say before the connect)
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 200) | st.integers(0, 5000), st.just(0) | st.integers(0, 6000)),
    max_size=60,
)


def busiest_second(places: list[int]) -> int:
    return max((sum(at <= other <= at + 1000 for other in places) for at in places), default=0)


@given(ARRIVALS, st.integers(1, 5))
def test_no_second_ever_has_more_connects_than_allowed(
    arrivals: list[tuple[int, int]], per_second: int
) -> None:
    pace, now_ms, places = Pace(per_second), 1_700_000_000_000, []
    for after_ms, lead_ms in arrivals:
        now_ms += after_ms
        try:
            delay_ms = pace.take(now_ms, lead_ms)
        except Crowded:
            continue
        assert lead_ms <= delay_ms <= lead_ms + LONGEST_DELAY_MS
        places.append(now_ms + delay_ms)
    assert busiest_second(places) <= per_second


@given(ARRIVALS, st.integers(1, 5))
def test_nobody_waits_while_a_place_is_free(
    arrivals: list[tuple[int, int]], per_second: int
) -> None:
    """Any earlier moment would have made a second too full."""
    pace, now_ms, places = Pace(per_second), 1_700_000_000_000, []
    for after_ms, lead_ms in arrivals:
        now_ms += after_ms
        earliest_ms = now_ms + lead_ms
        try:
            place_ms = now_ms + pace.take(now_ms, lead_ms)
        except Crowded:
            continue
        for sooner_ms in {earliest_ms, (earliest_ms + place_ms) // 2, place_ms - 1}:
            if earliest_ms <= sooner_ms < place_ms:
                near = sorted([*places, sooner_ms])
                spans = zip(near, near[per_second:], strict=False)
                assert any(last - first < WINDOW_MS for first, last in spans)
        places.append(place_ms)


def test_a_burst_is_spread_three_by_three() -> None:
    pace = Pace(3)
    assert [pace.take(5000) for _ in range(7)] == [0, 0, 0, 1100, 1100, 1100, 2200]
    assert pace.take(5000 + 3300) == 0, "a while later nobody waits"


def test_a_place_beyond_the_longest_delay_is_none_and_takes_none() -> None:
    pace = Pace(1)
    delays = []
    with pytest.raises(Crowded, match="20 s"):
        for _ in range(100):
            delays.append(pace.take(0))
    assert delays == sorted(delays) and delays[-1] <= LONGEST_DELAY_MS < delays[-1] + WINDOW_MS
    taken = list(pace.taken)
    with pytest.raises(Crowded):
        pace.take(0)
    assert pace.taken == taken
    assert pace.take(1100) == delays[-1], "what was let pass is free for the next one"


def test_without_a_limit_everybody_connects_when_he_wants() -> None:
    pace = Pace(0)
    assert [pace.take(0, lead) for lead in (0, 0, 0, 0, 700)] == [0, 0, 0, 0, 700]
    assert pace.taken == []


def test_a_connect_that_somebody_else_made_is_kept_clear_of() -> None:
    pace = Pace(1)
    pace.note(0, 2000)
    assert [pace.take(0) for _ in range(2)] == [0, 3100]


def test_places_that_have_passed_and_those_of_another_time_are_forgotten() -> None:
    """However long a process lives, and whatever its clock does."""
    pace = Pace(3)
    for now_ms in range(0, 500_000, 400):
        pace.take(now_ms)
        pace.note(now_ms, 0)
        assert len(pace.taken) < 60
    assert pace.take(0) == 0, "set back by eight minutes"
    assert len(pace.taken) == 1
    assert all(first <= last for first, last in pairwise(pace.taken))


def test_what_one_process_took_another_reads_in_any_order() -> None:
    first = Pace(3)
    for _ in range(4):
        first.take(0)
    second = Pace(3, reversed(first.taken))
    assert second.take(0) == 1100 == first.take(0)
