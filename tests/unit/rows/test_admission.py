"""Rows of calls that come in: places, and calls on hold."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from sessions_app import admission, rows
from sessions_app.core.pacing import LONGEST_DELAY_MS, Crowded
from sessions_app.models import CallRecord, CallState, ConnectPace
from tests.unit.rows.conftest import NODE, a_row, base, report, row, write_report

pytestmark = pytest.mark.django_db


def held(uuid: str = "u-1", most: int = 10) -> CallRecord:
    return admission.hold(uuid, NODE, base(), "every slot is taken", most)


def notes(uuid: str = "u-1") -> list[str]:
    return [str(event) for event in row(uuid).events.all()]


# ---------------------------------------------------------------------- places


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_now_ms", lambda: 1_700_000_000_000)


@pytest.mark.usefixtures("still")
def test_the_calls_of_a_burst_are_given_their_places_with_their_rows() -> None:
    for n in range(7):
        admission.create(f"u-{n}", NODE, base(), 3)
    delays = [row(f"u-{n}").connect_delay_ms for n in range(7)]
    assert delays == [0, 0, 0, 1100, 1100, 1100, 2200]
    assert ConnectPace.objects.count() == 1


@pytest.mark.usefixtures("still")
def test_a_row_that_cannot_be_made_takes_no_place() -> None:
    admission.create("u-1", NODE, base(), 1)
    with pytest.raises(IntegrityError):
        admission.create("u-1", NODE, base(), 1)
    admission.create("u-2", NODE, base(), 1)
    assert row("u-2").connect_delay_ms == 1100


@pytest.mark.usefixtures("still")
def test_without_a_place_no_row_is_made() -> None:
    made = 0
    with pytest.raises(Crowded):
        for n in range(100):
            admission.create(f"u-{n}", NODE, base(), 1)
            made += 1
    assert CallRecord.objects.count() == made == LONGEST_DELAY_MS // 1100 + 1


@pytest.mark.usefixtures("still")
def test_persons_and_calls_have_places_in_one_line() -> None:
    assert admission.take_place(1, lead_ms=1500) == 1500
    admission.create("u-1", NODE, base(), 1)
    admission.create("u-2", NODE, base(), 1)
    assert (row("u-1").connect_delay_ms, row("u-2").connect_delay_ms) == (0, 2600)


def test_without_a_limit_nothing_is_asked() -> None:
    assert [admission.take_place(0, lead) for lead in (0, 0, 900)] == [0, 0, 900]
    assert not ConnectPace.objects.exists()


# ---------------------------------------------------------------------- on hold


def test_a_held_call_is_not_live_and_has_not_ended() -> None:
    record = held()
    assert not record.is_live and not record.has_ended
    assert not CallRecord.objects.live().exists()
    assert notes() == ["held every slot is taken"]
    rows.end_former_life(NODE, timezone.now() + timedelta(hours=1))
    assert rows.reap(0) == []
    assert row().state == CallState.HELD


def test_as_many_are_held_as_may_be() -> None:
    held("u-1", most=2)
    held("u-2", most=2)
    with pytest.raises(admission.HeldEnough):
        held("u-3", most=2)
    assert admission.end_hold("u-1", 1, "draining", 0)
    held("u-3", most=2)


def test_a_call_that_has_a_row_is_not_put_on_hold() -> None:
    a_row("u-1")
    with pytest.raises(IntegrityError):
        held("u-1")
    assert row().state == CallState.RINGING


def test_each_round_is_decided_once() -> None:
    held()
    assert admission.hold_on("u-1", 1)
    assert not admission.hold_on("u-1", 1), "the same webhook at another process"
    assert admission.take_from_hold("u-1", NODE, 1, 7, 3) is None
    assert not admission.end_hold("u-1", 1, "enough", 0)
    assert row().hold_round == 2
    assert admission.hold_on("u-1", 2)


def test_a_place_is_not_spent_on_a_round_that_was_decided(still: None) -> None:
    held()
    admission.hold_on("u-1", 1)
    assert admission.take_from_hold("u-1", NODE, 1, 7, 1) is None
    assert admission.take_place(1) == 0


def test_a_call_taken_from_hold_is_a_live_one_of_its_process(still: None) -> None:
    held()
    admission.take_place(1)
    taken = admission.take_from_hold("u-1", "node-b", 1, 1234, 1)
    assert taken is not None
    assert (taken.state, taken.node) == (CallState.RINGING, "node-b")
    assert (taken.ticket_issued_s, taken.ticket_generation) == (1234, 2)
    assert row().connect_delay_ms == 1100
    assert row().is_live
    assert "taken_from_hold after 1 sentences" in notes()
    assert admission.take_from_hold("u-1", NODE, 1, 7, 1) is None
    assert not admission.hold_on("u-1", 1)


def test_a_hold_that_led_nowhere_is_a_refusal() -> None:
    held()
    assert admission.end_hold("u-1", 1, "every slot is taken", 1500)
    it = row()
    assert (it.state, it.end_reason, it.connect_delay_ms) == (CallState.ENDED, "refused", 1500)
    assert it.ended_at is not None
    assert "refused every slot is taken" in notes()


def test_whoever_hangs_up_on_hold_is_told_by_the_carrier_only() -> None:
    held()
    write_report(report("answered", elsewhere=True))
    assert row().state == CallState.HELD
    write_report(report("completed", elsewhere=True, carrier_duration_s=9))
    it = row()
    assert (it.state, it.end_reason, it.carrier_duration_s) == (
        CallState.ENDED, "caller_hung_up", 9,
    )  # fmt: skip
    assert not it.commands.exists()
    assert not admission.hold_on("u-1", 1)
    assert admission.take_from_hold("u-1", NODE, 1, 7, 0) is None


def test_a_held_call_that_asks_no_more_is_closed() -> None:
    held("u-1")
    held("u-2")
    CallRecord.objects.filter(uuid="u-1").update(
        heartbeat_at=timezone.now() - timedelta(seconds=admission.HOLD_PATIENCE_S + 5)
    )
    assert admission.close_lost_holds() == ["u-1"]
    assert row("u-1").end_reason == "refused"
    assert row("u-2").state == CallState.HELD
    assert admission.close_lost_holds() == []
