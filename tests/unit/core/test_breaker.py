"""When the model's service counts as down."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.breaker import FAILURES, LONGEST_PAUSE_S, WINDOW_S, Breaker


def test_some_calls_in_a_row_that_fail_mean_that_it_is_down_and_it_is_said_once() -> None:
    breaker = Breaker()
    said = [breaker.failed(f"u-{n}", float(n)) for n in range(FAILURES + 3)]
    assert said == [False] * (FAILURES - 1) + [True] + [False] * 3
    assert breaker.down


def test_one_success_in_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for n in range(FAILURES - 1):
        breaker.failed(f"u-{n}", 0.0)
    assert not breaker.succeeded()
    for n in range(FAILURES - 1):
        assert not breaker.failed(f"v-{n}", 0.0)
    assert not breaker.down


def test_one_success_marks_it_up_at_once_and_says_so_once() -> None:
    breaker = Breaker()
    for n in range(FAILURES):
        breaker.failed(f"u-{n}", 0.0)
    assert breaker.succeeded()
    assert not breaker.down
    assert not breaker.succeeded()


def test_one_call_that_fails_again_and_again_is_one_failure() -> None:
    breaker = Breaker()
    for at in range(50):
        assert not breaker.failed("u-1", float(at))
    assert not breaker.down


def test_failures_far_apart_mean_nothing() -> None:
    breaker = Breaker()
    for n in range(50):
        assert not breaker.failed(f"u-{n}", n * (WINDOW_S / (FAILURES - 1) + 0.1))
    assert not breaker.down


def test_the_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    breaker = Breaker()
    pauses = [breaker.pause_s(0.5) for _ in range(100)]
    assert pauses[0] == 1.0
    assert all(first <= later for first, later in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE_S
    breaker.succeeded()
    assert breaker.pause_s(0.5) == 1.0


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_processes_do_not_look_in_step(one: float, other: float) -> None:
    pauses = (Breaker().pause_s(one), Breaker().pause_s(other))
    assert (pauses[0] == pauses[1]) == (0.75 + one / 2 == 0.75 + other / 2)
    assert all(0.75 <= pause <= 1.25 for pause in pauses)
