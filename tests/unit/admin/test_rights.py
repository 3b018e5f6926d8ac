"""What the groups of a fresh installation may do with calls, and everybody else may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.urls import reverse

from sessions_app import rights
from sessions_app.models import CallCommand, CallRecord
from tests.unit.admin.conftest import GROUPS, of_group, signed_in, staff

MakeCall = Callable[..., CallRecord]
LIST = "admin:sessions_app_callrecord_changelist"
NUMBER = "447700900123"


def page(call: CallRecord, view: str = "change") -> str:
    return reverse(f"admin:sessions_app_callrecord_{view}", args=[call.pk])


@pytest.fixture
def call(bob: User, call_of: MakeCall) -> CallRecord:
    return call_of(bob, "of-bob", agent_name="Front desk")


def test_a_supervisor_sees_every_call_its_number_and_may_end_it(call: CallRecord) -> None:
    client = signed_in(of_group("sue", "Supervisor"))
    assert "Front desk" in client.get(reverse(LIST)).content.decode()
    shown = client.get(page(call)).content.decode()
    assert "Show the caller" in shown and "Hang up" in shown and NUMBER not in shown
    assert NUMBER in client.post(page(call, "number")).content.decode()
    client.post(page(call, "hang_up"))
    assert CallCommand.objects.get().requested_by == User.objects.get(username="sue")


def test_an_analyst_sees_every_call_and_may_do_nothing_to_it(call: CallRecord) -> None:
    client = signed_in(of_group("ann", "Analyst"))
    listed = client.get(reverse(LIST)).content.decode()
    assert "Front desk" in listed and "hang_up_selected" not in listed
    shown = client.get(page(call)).content.decode()
    assert "Show the caller" not in shown and "Hang up" not in shown
    for view in ("number", "hang_up"):
        assert client.get(page(call, view)).status_code == 403
        assert client.post(page(call, view)).status_code == 403
    chosen = {"action": "hang_up_selected", "_selected_action": [call.pk], "confirmed": "yes"}
    client.post(reverse(LIST), chosen)
    assert not CallCommand.objects.exists()
    assert not LogEntry.objects.exists()


def test_a_masked_number_cannot_be_guessed_at(call: CallRecord) -> None:
    analyst = signed_in(of_group("ann", "Analyst"))
    supervisor = signed_in(of_group("sue", "Supervisor"))

    def found(client: Client, **asked: str) -> bool:
        return "Front desk" in client.get(reverse(LIST), asked, follow=True).content.decode()

    for lookup in ("caller__startswith", "caller__contains", "caller"):
        answer = analyst.get(reverse(LIST), {lookup: "447700900"})
        assert answer.status_code == 400, "as Django answers what may not be looked up"
    assert found(supervisor, q="7700900123")
    assert not found(analyst, q="7700900123"), "a part of a number"
    assert found(analyst, q=NUMBER), "somebody whose number is known may be looked for"
    sorting = 'title="Toggle sorting"'
    column = "column-shown_caller"
    heads = analyst.get(reverse(LIST)).content.decode().split("<th")
    [head] = [each for each in heads if column in each]
    assert "sortable" not in head and sorting not in head


def test_who_may_see_all_calls_sees_those_that_nobody_owns(db: None, call_of: MakeCall) -> None:
    call_of(None, "of-nobody", agent_name="Night desk")
    for user, sees in ((of_group("ann", "Analyst"), True), (staff("o", "view_callrecord"), False)):
        listed = signed_in(user).get(reverse(LIST)).content.decode()
        assert ("Night desk" in listed) is sees


def test_to_see_all_calls_is_no_way_into_them_without_the_right_to_read(call: CallRecord) -> None:
    client = signed_in(staff("eve", rights.SEE_ALL))
    assert client.get(reverse(LIST)).status_code == 403
    for view in ("change", "live", "number", "hang_up"):
        assert client.post(page(call, view)).status_code == 403


def test_an_agent_editor_edits_agents_and_sees_no_calls(call: CallRecord) -> None:
    client = signed_in(of_group("ed", "Agent editor"))
    assert client.get(reverse("admin:sessions_app_agent_add")).status_code == 200
    assert client.get(reverse("admin:sessions_app_phonenumber_add")).status_code == 200
    assert client.get(reverse(LIST)).status_code == 403


def test_every_right_is_a_permission_that_can_be_given(db: None) -> None:
    known = set(Permission.objects.values_list("codename", flat=True))
    assert {codename for codename, _ in rights.PERMISSIONS} <= known


@pytest.mark.django_db(transaction=True)
def test_who_could_do_it_before_the_rights_were_made_can_still_do_it() -> None:
    latest = MigrationExecutor(connection).loader.graph.leaf_nodes("sessions_app")
    Permission.objects.filter(codename__in=[each for each, _ in rights.PERMISSIONS]).delete()
    Group.objects.all().delete()
    kept = Group.objects.create(name="Supervisor")
    kept.permissions.set(Permission.objects.filter(codename="change_callrecord"))
    reader, stranger = staff("reader", "view_callrecord"), staff("stranger", "view_agent")
    changer = staff("changer", "change_callrecord")
    try:
        MigrationExecutor(connection).migrate([("sessions_app", "0004_transferred_calls")])
    finally:
        MigrationExecutor(connection).migrate(latest)

    def of(holder: Any) -> set[str]:
        return set(holder.values_list("codename", flat=True))

    assert of(reader.user_permissions) == {"view_callrecord", "see_full_numbers"}
    assert of(changer.user_permissions) == {
        "change_callrecord",
        "hang_up_calls",
        "see_full_numbers",
    }
    assert of(stranger.user_permissions) == {"view_agent"}
    # A group that was there is its people's: it keeps what it has, and can do what it could.
    assert of(kept.permissions) == of(changer.user_permissions)
    others = Group.objects.exclude(pk=kept.pk)
    assert {group.name: of(group.permissions) for group in others} == {
        name: set(GROUPS[name]) for name in ("Analyst", "Agent editor")
    }


def test_a_supervisor_whispers_and_the_row_says_who_and_what(call: CallRecord) -> None:
    client = signed_in(of_group("sue", "Supervisor"))
    assert "Whisper to the agent" in client.get(page(call)).content.decode()
    shown = client.post(page(call, "whisper"), {"text": " Offer a refund. "}, follow=True)
    command = CallCommand.objects.get()
    assert (command.kind, command.text) == ("whisper", "Offer a refund.")
    assert command.requested_by == User.objects.get(username="sue")
    text = shown.content.decode()
    assert "Offer a refund." in text
    assert 'data-poll-ms="500"' in text, "she waits for an answer"
    client.post(page(call, "whisper"), {"text": "Offer a refund."})
    assert CallCommand.objects.count() == 1, "pressed twice"


@pytest.mark.parametrize(
    ("text", "wrong"), [("", "required"), ("   ", "required"), ("x" * 501, "at most 500")]
)
def test_a_whisper_that_cannot_be_is_refused_in_words(
    call: CallRecord, text: str, wrong: str
) -> None:
    client = signed_in(of_group("sue", "Supervisor"))
    shown = client.post(page(call, "whisper"), {"text": text}, follow=True).content.decode()
    assert "Nothing was whispered" in shown and wrong in shown
    assert not CallCommand.objects.exists()


def test_nobody_whispers_into_a_call_that_has_ended(bob: User, call_of: MakeCall) -> None:
    ended = call_of(bob, "over", ended=True)
    client = signed_in(of_group("sue", "Supervisor"))
    assert "Whisper to the agent" not in client.get(page(ended)).content.decode()
    shown = client.post(page(ended, "whisper"), {"text": "Hello?"}, follow=True).content.decode()
    assert "nobody was told" in shown
    assert not CallCommand.objects.exists()


def test_who_may_not_whisper_does_not(call: CallRecord, bob: User, alice: User) -> None:
    assert not rights.may(bob, rights.WHISPER), "an owner may only what he was given"
    for user in (of_group("ann", "Analyst"), bob):
        client = signed_in(user)
        assert "Whisper to the agent" not in client.get(page(call)).content.decode()
        for method in (client.get, client.post):
            assert method(page(call, "whisper"), {"text": "Hello?"}).status_code == 403
    stranger = signed_in(staff("eve", "view_callrecord", rights.WHISPER))
    assert stranger.post(page(call, "whisper"), {"text": "Hello?"}).status_code == 404
    assert not CallCommand.objects.exists()
