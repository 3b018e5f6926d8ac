"""Hanging up from the admin: asked with a row, once, by those who may."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from sessions_app.models import CallCommand, CallRecord, CommandKind, CommandState
from tests.unit.admin.conftest import signed_in, staff

MakeCall = Callable[..., CallRecord]
LIST = "admin:sessions_app_callrecord_changelist"


def hang_up(call: CallRecord) -> str:
    return reverse("admin:sessions_app_callrecord_hang_up", args=[call.pk])


def test_the_confirmation_names_the_call_and_asks_nothing_yet(
    alice: User, call_of: MakeCall
) -> None:
    call = call_of(alice, "x", agent_name="Front desk")
    text = signed_in(alice).get(hang_up(call)).content.decode()
    assert "44•••••••123" in text and "442079460000" in text and "Front desk" in text
    assert not CallCommand.objects.exists()


def test_confirming_asks_once_however_often_it_is_pressed(alice: User, call_of: MakeCall) -> None:
    call = call_of(alice, "x")
    client = signed_in(alice)
    first = client.post(hang_up(call), follow=True).content.decode()
    assert "Asked to hang up" in first
    second = client.post(hang_up(call), follow=True).content.decode()
    assert "has been asked already" in second
    command = CallCommand.objects.get()
    assert (command.call, command.kind, command.requested_by, command.state) == (
        call,
        CommandKind.HANG_UP,
        alice,
        CommandState.ASKED,
    )


def test_hanging_up_an_ended_call_is_a_success_and_leaves_no_row(
    alice: User, call_of: MakeCall
) -> None:
    call = call_of(alice, "x", ended=True)
    client = signed_in(alice)
    for answer in (client.get(hang_up(call), follow=True), client.post(hang_up(call), follow=True)):
        assert "has ended already" in answer.content.decode()
    assert not CallCommand.objects.exists()


def test_without_the_right_there_is_no_button_and_no_way(db: None, call_of: MakeCall) -> None:
    viewer = staff("viewer", "view_callrecord")
    call = call_of(viewer, "x")
    client = signed_in(viewer)
    page = client.get(reverse("admin:sessions_app_callrecord_change", args=[call.pk]))
    assert page.status_code == 200
    assert hang_up(call) not in page.content.decode()
    assert client.get(hang_up(call)).status_code == 403
    assert client.post(hang_up(call)).status_code == 403
    selected = {"action": "hang_up_selected", "_selected_action": [call.pk], "confirmed": "yes"}
    client.post(reverse(LIST), selected)
    assert not CallCommand.objects.exists()


def test_a_post_without_the_csrf_token_is_refused(alice: User, call_of: MakeCall) -> None:
    call = call_of(alice, "x")
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(hang_up(call)).status_code == 403
    assert not CallCommand.objects.exists()


def test_the_action_confirms_and_then_asks_live_calls_only(
    alice: User, bob: User, call_of: MakeCall
) -> None:
    live = [call_of(alice, "one"), call_of(alice, "two")]
    over, theirs = call_of(alice, "over", ended=True), call_of(bob, "theirs")
    client = signed_in(alice)
    chosen = {
        "action": "hang_up_selected",
        "_selected_action": [call.pk for call in (*live, over, theirs)],
    }
    confirmation = client.post(reverse(LIST), chosen)
    assert "These 2 callers" in confirmation.content.decode()
    assert not CallCommand.objects.exists()
    client.post(reverse(LIST), {**chosen, "confirmed": "yes"})
    assert {command.call_id for command in CallCommand.objects.all()} == {call.pk for call in live}
