from __future__ import annotations

import json

from tests.load.measure import CallResult
from tests.load.report import Round, as_json, table


def a_round() -> Round:
    calls = [
        CallResult("a", answer_ms=20, greeting_ms=100, clear_ms=3, cut_ms=500, heard_ms=520),
        CallResult("b", answer_ms=40, greeting_ms=300, problems=["no voice"]),
    ]
    return Round("one by one", calls, idle_after_s=0.25, fds_before=11, fds_after=12)


def test_the_table_has_the_median_and_the_worst() -> None:
    row = table([a_round()]).splitlines()[2]
    assert row.split() == [
        "one", "by", "one", "2", "30/40", "200/300", "3/3", "0", "0.25", "11->12", "0", "0.000",
    ]  # fmt: skip


def test_a_round_without_measurements_has_a_row_too() -> None:
    assert "never" in table([Round("at once", [CallResult("a")])])


def test_problems_are_told_with_the_call_they_belong_to() -> None:
    found = a_round()
    found.problems.append("rows are left")
    assert found.all_problems() == ["rows are left", "b: no voice"]
    assert json.loads(as_json([found]))[0]["calls"][1]["problems"] == ["no voice"]
