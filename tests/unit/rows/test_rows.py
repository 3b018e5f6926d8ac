"""Rows of calls: they only move forward, they end true, and they belong to one process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from sessions_app import rows
from sessions_app.core.events import EndReason
from sessions_app.models import (
    Agent,
    CallCommand,
    CallEvent,
    CallRecord,
    CallState,
    CommandKind,
    CommandState,
    PhoneNumber,
    SummaryState,
)
from tests.unit.rows.conftest import NODE, a_row, change, report, row, turn, write_report

pytestmark = pytest.mark.django_db

NOW = timezone.now()
ENDED = {"state": CallState.ENDED, "ended_at": NOW, "end_reason": EndReason.AGENT_ENDED.value}


def test_a_call_the_answer_could_not_write_is_made_by_its_first_change() -> None:
    rows.write(change(fields={"state": CallState.LIVE}), NODE)
    assert (row().state, row().node, row().caller) == (CallState.LIVE, NODE, "447700900123")


@pytest.mark.parametrize("late", [CallState.ANSWERED, CallState.LIVE, CallState.RINGING])
def test_a_state_never_goes_back(late: CallState) -> None:
    a_row()
    rows.write(change(fields=dict(ENDED)), NODE)
    rows.write(change(fields={"state": late}), NODE)
    assert row().state == CallState.ENDED
    assert row().ended_at == NOW


def test_the_first_end_counts() -> None:
    a_row()
    rows.write(change(fields=dict(ENDED)), NODE)
    later = {**ENDED, "end_reason": "operator", "ended_at": NOW + timedelta(seconds=9)}
    rows.write(change(fields=later), NODE)
    assert (row().end_reason, row().ended_at) == ("agent_ended", NOW)


@pytest.mark.parametrize("name", ["answered_at", "media_opened_at", "greeting_heard_at"])
def test_the_first_time_of_a_moment_counts(name: str) -> None:
    a_row()
    rows.write(change(fields={name: NOW}), NODE)
    rows.write(change(fields={name: NOW + timedelta(seconds=5)}), NODE)
    assert getattr(row(), name) == NOW


def test_a_row_of_another_process_is_left_alone() -> None:
    a_row(node="other")
    rows.write(change(fields=dict(ENDED), turns=[turn()]), NODE)
    assert row().state == CallState.RINGING
    assert row().turns.count() == 0


def test_a_turn_grows_in_its_place() -> None:
    a_row()
    rows.write(change(turns=[turn("i1", "he", final=False), turn("i2", "other")]), NODE)
    rows.write(change(turns=[turn("i1", "hello")]), NODE)
    told = list(row().turns.values_list("item_id", "text", "final"))
    assert sorted(told) == [("i1", "hello", True), ("i2", "other", True)]


def test_an_ended_call_with_words_is_to_be_summarised_once() -> None:
    a_row()
    rows.write(change(turns=[turn()], fields=dict(ENDED)), NODE)
    assert row().summary_state == SummaryState.PENDING
    CallRecord.objects.update(summary_state=SummaryState.DONE)
    rows.write(change(fields=dict(ENDED)), NODE)
    assert row().summary_state == SummaryState.DONE


def test_a_call_without_a_word_is_not_summarised() -> None:
    a_row()
    rows.write(change(turns=[turn(text="")], fields=dict(ENDED)), NODE)
    assert row().summary_state == SummaryState.NONE


# ---------------------------------------------------------------------- lost processes


def test_a_call_whose_process_is_silent_is_closed_as_lost_by_the_databases_clock() -> None:
    a_row("silent", silent_s=16, node="dead")
    a_row("alive", silent_s=14, node="dead")
    assert rows.reap(15) == ["silent"]
    assert (row("silent").state, row("silent").end_reason) == (CallState.ENDED, "lost")
    assert row("alive").is_live
    assert list(row("silent").events.values_list("kind", flat=True)) == ["lost"]
    assert rows.reap(15) == []


def test_a_clock_that_is_wrong_here_closes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    a_row(silent_s=1)
    wrong = timezone.now() + timedelta(hours=1)
    monkeypatch.setattr(rows.timezone, "now", lambda: wrong)
    assert rows.reap(15) == []


def test_a_lost_call_answers_who_asked_something_of_it() -> None:
    record = a_row(silent_s=60)
    CallCommand.objects.create(call=record, kind=CommandKind.HANG_UP)
    rows.reap(15)
    command = record.commands.get()
    assert (command.state, command.answer) == (CommandState.DONE, "the call's process was lost")


def test_what_was_said_in_a_lost_call_is_summarised() -> None:
    a_row()
    rows.write(change(turns=[turn()]), NODE)
    CallRecord.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=60))
    rows.reap(15)
    assert row().summary_state == SummaryState.PENDING


def test_the_process_that_was_thought_lost_knows_better() -> None:
    a_row(silent_s=60)
    rows.reap(15)
    rows.write(change(fields=dict(ENDED), turns=[turn()]), NODE)
    assert (row().end_reason, row().ended_at) == ("agent_ended", NOW)
    assert row().turns.count() == 1


def test_a_call_that_was_thought_lost_and_said_more_is_summarised_by_what_is_true() -> None:
    a_row(silent_s=60)
    rows.reap(15)
    assert row().summary_state == SummaryState.NONE
    rows.write(change(fields=dict(ENDED), turns=[turn()]), NODE)
    assert row().summary_state == SummaryState.PENDING


def test_a_heartbeat_keeps_only_the_live_calls_it_names() -> None:
    for uuid in ("named", "forgotten"):
        a_row(uuid, silent_s=60)
    a_row("elsewhere", silent_s=60, node="other")
    rows.heartbeat(NODE, ["named", "elsewhere"])
    assert sorted(rows.reap(15)) == ["elsewhere", "forgotten"]


def test_calls_of_a_former_process_of_this_name_are_given_up_and_new_ones_are_not() -> None:
    began = timezone.now()
    a_row("former", ringing_at=began - timedelta(minutes=5))
    a_row("new", ringing_at=began + timedelta(seconds=1))
    a_row("another's", node="other", ringing_at=began - timedelta(minutes=5))
    rows.end_former_life(NODE, began)
    assert rows.reap(60) == ["former"]


def test_which_calls_another_process_serves_now() -> None:
    a_row("here")
    a_row("moved", node="other")
    assert rows.moved_away(NODE, ["here", "moved", "unknown"]) == ["moved"]
    assert rows.moved_away(NODE, []) == []


# ---------------------------------------------------------------------- routes


@pytest.fixture
def people() -> tuple[User, User]:
    return User.objects.create_user("ann"), User.objects.create_user("ben")


@pytest.mark.usefixtures("no_agents")
def test_a_number_leads_to_its_agent_and_belongs_to_its_owner(
    agent_named: Callable[..., Agent], people: tuple[User, User]
) -> None:
    ann, ben = people
    agent = agent_named("Desk", owner=ann)
    PhoneNumber.objects.create(number="442079460000", agent=agent, owner=ben)
    PhoneNumber.objects.create(number="442079460001", agent=agent)
    assert rows.find_route("442079460000") == rows.Route(agent, ben.pk)
    assert rows.find_route("442079460001") == rows.Route(agent, ann.pk)


@pytest.mark.usefixtures("no_agents")
def test_any_other_number_leads_to_the_default_agent(
    agent_named: Callable[..., Agent], people: tuple[User, User]
) -> None:
    agent_named("Other")
    default = agent_named("Default", is_default=True, owner=people[0])
    assert rows.find_route("999") == rows.Route(default, people[0].pk)


@pytest.mark.usefixtures("no_agents")
def test_without_any_agent_nobody_answers(agent_named: Callable[..., Agent]) -> None:
    agent_named("Not the default")
    assert rows.find_route("999") == rows.Route(None, None)


@pytest.mark.usefixtures("no_agents")
def test_a_page_may_name_an_agent_and_a_name_nobody_has_is_no_reason_for_silence(
    agent_named: Callable[..., Agent],
) -> None:
    default = agent_named("Default", is_default=True)
    named = agent_named("Named")
    assert rows.find_route("999", "Named").agent == named
    assert rows.find_route("999", "Nobody").agent == default


# ---------------------------------------------------------------------- the carrier, commands


def test_a_report_is_noted_once_however_often_it_comes() -> None:
    a_row()
    for _ in range(3):
        write_report(report("completed", price="0.5", carrier_duration_s=7))
    write_report(report("completed", carrier_duration_s=9))
    assert row().events.filter(kind="carrier").count() == 1
    assert (row().price, row().carrier_duration_s) == (0.5, 7)


def test_reports_that_come_together_are_noted_once_each_and_the_first_figure_counts() -> None:
    a_row()
    told = [report("answered"), report("completed", price="0.5"), report("completed", price="9")]
    rows.write(change(reports=[*told, report("answered")]), NODE)
    events = row().events.filter(kind="carrier").order_by("id")
    assert [(event.detail, event.at) for event in events] == [(r.status, r.at) for r in told[:2]]
    assert row().price == 0.5


def test_a_report_comes_to_the_row_of_another_process_without_what_is_not_its_business() -> None:
    a_row(node="other")
    told = change(fields=dict(ENDED), turns=[turn()], reports=[report("answered")])
    rows.write(told, NODE)
    assert row().state != CallState.ENDED and not row().turns.exists()
    assert [event.detail for event in row().events.all()] == ["answered"]


def test_a_report_of_an_unknown_call_changes_nothing() -> None:
    write_report(report("completed", uuid="u-9"))
    assert not CallRecord.objects.exists()


def test_the_end_of_a_leg_served_elsewhere_is_told_to_who_serves_it_once() -> None:
    a_row(node="other")
    for _ in range(2):
        write_report(report("completed", elsewhere=True))
    (command,) = CallCommand.objects.all()
    assert command.kind == CommandKind.CARRIER_ENDED
    assert [c.pk for c in rows.asked_of("other")] == [command.pk]
    assert rows.asked_of(NODE) == []


def test_a_command_is_answered_once() -> None:
    command = CallCommand.objects.create(call=a_row(), kind=CommandKind.HANG_UP)
    rows.answer_command(command, CommandState.DONE, "hung up")
    rows.answer_command(command, CommandState.REFUSED, "too late")
    command.refresh_from_db()
    assert (command.state, command.answer) == (CommandState.DONE, "hung up")
    assert command.answered_at is not None
    assert rows.asked_of(NODE) == []


def test_commands_come_in_the_order_they_were_asked() -> None:
    calls = [a_row(f"u-{n}") for n in range(3)]
    asked = [CallCommand.objects.create(call=c, kind=CommandKind.HANG_UP).pk for c in calls]
    assert [command.pk for command in rows.asked_of(NODE)] == asked


def test_a_call_is_found_by_its_conversation_and_not_by_an_empty_one() -> None:
    a_row(conversation_uuid="c-1")
    a_row("u-2")
    found = rows.find_by_conversation("c-1")
    assert found is not None
    assert found.uuid == "u-1"
    assert rows.find_by_conversation("") is None


def test_an_event_keeps_its_time() -> None:
    a_row()
    rows.write(change(notes=[rows.EventNote(NOW, "kind", "detail")]), NODE)
    event = CallEvent.objects.get()
    assert (event.at, event.kind, event.detail) == (NOW, "kind", "detail")
