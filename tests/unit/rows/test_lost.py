"""Rows that were closed as lost: whose callers may be there still, and who was not lost at all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sessions_app import lost, rows
from sessions_app.models import CallRecord, CallState, Node, SummaryState
from tests.unit.rows.conftest import NODE, a_row, change, report, row, turn, write_report

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def lost_row(uuid: str = "u-1", **changes: Any) -> CallRecord:
    a_row(uuid, silent_s=60, **changes)
    rows.reap(15)
    return row(uuid)


def test_a_lost_call_is_told_with_what_its_caller_can_be_offered() -> None:
    Node.objects.create(
        name="dead", media_url="ws://10.0.0.7:5004", channel_layer="memory", capacity=1,
        started_at=NOW, heartbeat_at=NOW,
    )  # fmt: skip
    a_row(silent_s=60, node="dead", region_url="https://api-eu.vonage.com")
    (call,) = lost.reap(15)
    assert (call.uuid, call.node, call.media_url) == ("u-1", "dead", "ws://10.0.0.7:5004")
    assert (call.region_url, call.called) == ("https://api-eu.vonage.com", "442079460000")
    assert lost.reap(15) == []


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"media_opened_at": NOW, "answered_at": NOW}, CallState.LIVE),
        ({"answered_at": NOW}, CallState.ANSWERED),
        ({}, CallState.RINGING),
    ],
)
def test_a_call_that_lives_here_is_open_again_as_far_as_it_had_come(
    fields: dict[str, Any], state: CallState
) -> None:
    lost_row(**fields)
    assert lost.reopen(NODE, ["u-1"]) == ["u-1"]
    record = row()
    assert (record.state, record.ended_at, record.end_reason) == (state, None, "")
    assert list(record.events.values_list("kind", flat=True)) == ["lost", "not_lost"]
    # Alive by the database's clock, and not again what it is already.
    assert rows.reap(15) == []
    assert lost.reopen(NODE, ["u-1"]) == []


def test_it_ends_like_any_other_call_with_the_summary_of_the_whole() -> None:
    a_row()
    rows.write(change(turns=[turn()]), NODE)
    CallRecord.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=60))
    rows.reap(15)
    assert row().summary_state == SummaryState.PENDING
    lost.reopen(NODE, ["u-1"])
    assert row().summary_state == SummaryState.NONE
    end = {"state": CallState.ENDED, "ended_at": NOW, "end_reason": "agent_ended"}
    rows.write(change(fields=end, turns=[turn("i2", "and more")]), NODE)
    record = row()
    assert (record.end_reason, record.summary_state) == ("agent_ended", SummaryState.PENDING)
    assert record.turns.count() == 2


def test_no_other_end_is_undone_and_nobody_elses() -> None:
    lost_row("others", node="other")
    lost_row("gone")
    end = {"state": CallState.ENDED, "ended_at": NOW, "end_reason": "caller_hung_up"}
    a_row("over")
    rows.write(change("over", fields=end), NODE)
    assert lost.reopen(NODE, ["others", "over", "unknown"]) == []
    assert lost.reopen(NODE, []) == []
    assert {row(uuid).state for uuid in ("others", "gone", "over")} == {CallState.ENDED}


def test_whether_the_carrier_was_given_words_for_the_caller() -> None:
    lost_row()
    assert not lost.led_to_words("u-1")
    write_report(report("completed"))
    assert not lost.led_to_words("u-1")
    write_report(report(lost.LED_TO_WORDS))
    assert lost.led_to_words("u-1")


def test_a_note_on_the_row_of_a_call_nobody_serves() -> None:
    lost_row()
    lost.note("u-1", "leg_without_session", "x" * 600)
    lost.note("unknown", "leg_without_session", "")
    assert row().events.get(kind="leg_without_session").detail == "x" * 500


# ---------------------------------------------------------------------- two that believe


def test_of_two_that_began_a_call_without_the_database_the_caller_is_with_the_newest_ticket() -> (
    None
):
    rows.write(change(), "first")
    rows.write(change(fields={"ticket_claimed": 1}, turns=[turn()]), "second")
    assert (row().node, row().turns.count()) == ("second", 1)
    assert rows.moved_away("first", ["u-1"]) == ["u-1"]
    # And not back again, by what the first one still has to say.
    rows.write(change(fields={"ticket_claimed": 1}, turns=[turn("i9")]), "first")
    assert (row().node, row().turns.count()) == ("second", 1)


def test_a_call_is_heard_of_by_the_databases_clock_from_its_first_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine whose own clock is an hour off makes rows that live."""
    for hours in (-1, 1):
        wrong = timezone.now() + timedelta(hours=hours)
        with monkeypatch.context() as patch:
            patch.setattr(rows.timezone, "now", lambda wrong=wrong: wrong)
            rows.write(change(f"u{hours}"), NODE)
        assert rows.reap(15) == []
        assert abs(row(f"u{hours}").heartbeat_at - timezone.now()) < timedelta(minutes=1)


def test_a_database_whose_clock_was_set_back_keeps_no_ghosts() -> None:
    """Their heartbeats lie ahead of its clock, and will for an hour."""
    a_row("ghost", silent_s=-3600, node="dead")
    a_row("alive", silent_s=-3600)
    rows.heartbeat(NODE, ["alive"])
    assert rows.reap(15) == ["ghost"]
    a_row("slightly", silent_s=-5, node="other")
    assert rows.reap(15) == []
