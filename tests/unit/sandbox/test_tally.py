from __future__ import annotations

from dataclasses import replace

import pytest

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.conversation import Ending
from sessions_app.sandbox.tally import Spread, Tally, summarise
from tests.unit.sandbox.results import a_result


def test_spreads_are_of_the_nearest_rank() -> None:
    assert Spread.of([]) == Spread(None, None, None)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread.of([float(n) for n in range(1, 101)]) == Spread(50.0, 96.0, 100.0)


def test_no_calls_have_a_summary_too() -> None:
    summary = summarise([], 0.0)
    assert (summary.calls, summary.longest_silence_s, summary.faults) == (0, 0.0, ())


def test_each_fault_has_a_row_of_its_own_and_the_healthy_are_first() -> None:
    results = [
        a_result(0, "openai-closes", longest_silence_s=2.0),
        a_result(1),
        a_result(2, "openai-closes@tool-running", ending=Ending.GOODBYE),
        a_result(3, "openai-closes", struck=False, longest_silence_s=2.5),
        a_result(4, "phone-gone-untold", released_s=1.5),
        a_result(5, "phone-gone-untold", released_s=0.5),
    ]
    summary = summarise(results, 1.0)
    rows = {row.fault: row for row in summary.faults}
    assert next(iter(rows)) == "none"
    assert (rows["openai-closes"].calls, rows["openai-closes"].struck) == (2, 1)
    assert rows["openai-closes"].silence_s == Spread(2.0, 2.5, 2.5)
    assert rows["openai-closes@tool-running"].endings == {Ending.GOODBYE: 1}
    assert rows["phone-gone-untold"].released_s == 1.5
    assert (summary.calls, summary.longest_silence_s) == (6, 2.5)
    assert summary.is_good


def test_whether_it_struck_is_not_known_as_soon_as_it_is_not_known_of_one() -> None:
    summary = summarise([a_result(0, "openai-mute", struck=None), a_result(1, "openai-mute")], 1.0)
    assert summary.faults[0].struck is None


@pytest.mark.parametrize("ending", [Ending.APOLOGY, Ending.PERSON, Ending.CUT_OFF, Ending.NOTHING])
def test_what_can_be_mended_has_to_go_on(ending: Ending) -> None:
    assert a_result(fault="openai-drops", ending=ending).given_up
    assert not a_result(fault="openai-drops!", ending=ending).given_up
    assert not a_result(fault="openai-quota", ending=ending).given_up
    assert not summarise([a_result(fault="openai-drops", ending=ending)], 1.0).is_good
    assert a_result(ending=ending).given_up, "there was no reason to end it"


def test_a_fault_that_never_struck_is_told_apart() -> None:
    results = [
        a_result(0),
        a_result(1, "openai-text@during-greeting", struck=False),
        a_result(2, "openai-drops", struck=False),
        a_result(3, "openai-drops"),
        a_result(4, "openai-mute", struck=None),
    ]
    rows = summarise(results, 1.0).faults
    assert [row.fault for row in rows if row.never_struck] == ["openai-text@during-greeting"]


@pytest.mark.parametrize(
    ("fault", "outcome", "ending", "broken"),
    [
        ("", Outcome.BROKEN, Ending.WENT_ON, True),
        ("", Outcome.DROPPED, Ending.APOLOGY, True),
        # After the goodbye the end of the media is the end of the call.
        ("", Outcome.DROPPED, Ending.GOODBYE, False),
        ("openai-quota", Outcome.FLOW_ENDED, Ending.APOLOGY, False),
        ("openai-quota", Outcome.FLOW_ENDED, Ending.CUT_OFF, True),
        ("openai-quota", Outcome.CALLER_HUNG_UP, Ending.NOTHING, True),
    ],
)
def test_an_end_that_no_caller_should_know_is_broken(
    fault: str, outcome: Outcome, ending: Ending, broken: bool
) -> None:
    assert a_result(fault=fault, outcome=outcome, ending=ending).broken is broken


def test_a_tally_does_not_grow_with_its_calls() -> None:
    tally = Tally()
    for index in range(20_000):
        tally.add(replace(a_result(index), longest_silence_s=index % 300 / 100))
    assert len(tally._replies._counts) == 1
    assert len(tally._sums["none"].silences._counts) <= 151
    assert tally.summary(1.0).calls == 20_000
