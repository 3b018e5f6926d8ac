"""The list of calls and the page of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.urls import reverse

from sessions_app.admin.words import clock, rows, shown_caller
from sessions_app.models import CallCommand, CallEvent, CallRecord, CommandKind, TranscriptTurn
from tests.unit.admin.conftest import signed_in

MakeCall = Callable[..., CallRecord]
LIST = "admin:sessions_app_callrecord_changelist"


def page_of(call: CallRecord, view: str = "change") -> str:
    return reverse(f"admin:sessions_app_callrecord_{view}", args=[call.pk])


def found(client: Any, **query: str) -> set[str]:
    listed = client.get(reverse(LIST), query)
    assert listed.status_code == 200
    return {call.uuid for call in listed.context["cl"].queryset}


@pytest.fixture
def told(alice: User, call_of: MakeCall) -> CallRecord:
    """A call with something of everything."""
    call = call_of(
        alice,
        "told",
        agent_name="Front desk",
        price="0.00450000",
        carrier_duration_s=66,
        ended=True,
        summary_state="done",
        usage={"responses": 3, "input.audio_tokens": 12_345},
        summary={"headline": "Booked a table", "follow_ups": ["Send a text"], "resolved": True},
    )
    for index, (speaker, text, cut) in enumerate(
        [("agent", "Good morning, who is", True), ("caller", "A table <b>tonight</b>", False)]
    ):
        TranscriptTurn.objects.create(
            call=call,
            item_id=str(index),
            speaker=speaker,
            text=text,
            from_ms=61_000 * index,
            interrupted=cut,
            final=True,
        )
    CallEvent.objects.create(call=call, at=call.ringing_at, kind="barge_in", detail="5.2 s heard")
    return call


def test_the_list_masks_callers(alice: User, call_of: MakeCall) -> None:
    call_of(alice, "a")
    call_of(alice, "b", caller="")
    text = signed_in(alice).get(reverse(LIST)).content.decode()
    assert "447700900123" not in text
    assert "44•••••••123" in text
    assert "withheld" in text


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"live": "yes"}, {"live"}),
        ({"live": "no"}, {"told"}),
        ({"state__exact": "30"}, {"live"}),
        ({"end_reason__exact": "caller_hung_up"}, {"told"}),
        ({"q": "tonight"}, {"told"}),
        ({"q": "+44 7700 900 999"}, {"live"}),
        ({"q": "told"}, {"told"}),
        ({"q": "nobody said this"}, set()),
    ],
)
def test_calls_are_found_by_filters_and_search(
    query: dict[str, str], wanted: set[str], alice: User, told: CallRecord, call_of: MakeCall
) -> None:
    call_of(alice, "live", caller="447700900999")
    assert found(signed_in(alice), **query) == wanted


def test_the_filter_of_agents_names_ones_own_only(
    alice: User, bob: User, agent_of: Callable[..., Any], call_of: MakeCall
) -> None:
    for user in (alice, bob):
        for name in ("first", "second"):
            agent = agent_of(user, f"{user.username} {name}")
            call_of(user, agent.name, agent=agent, agent_name=agent.name)
    mine = signed_in(alice)
    text = mine.get(reverse(LIST)).content.decode()
    assert "alice first" in text and "bob first" not in text
    pk = CallRecord.objects.get(uuid="alice second").agent_id
    assert found(mine, agent__id__exact=str(pk)) == {"alice second"}


def test_a_calls_page_tells_the_whole_story(alice: User, told: CallRecord) -> None:
    text = signed_in(alice).get(page_of(told)).content.decode()
    for words in (
        "44•••••••123",
        "442079460000",
        "Front desk",
        "caller hung up",
        "1:05",
        "Interrupted here by the caller",
        "A table &lt;b&gt;tonight&lt;/b&gt;",
        "1:01",
        "barge in",
        "5.2 s heard",
        "€ 0.0045",
        "12,345",
        "Booked a table",
        "Follow ups",
        "Send a text",
        'role="log"',
    ):
        assert words in text, words
    assert "447700900123" not in text


def test_an_ended_and_settled_call_is_not_polled_and_a_live_one_is(
    alice: User, told: CallRecord, call_of: MakeCall
) -> None:
    client = signed_in(alice)
    assert 'data-poll-ms="0"' in client.get(page_of(told)).content.decode()
    live = call_of(alice, "live")
    assert 'data-poll-ms="2000"' in client.get(page_of(live)).content.decode()
    live.turns.create(item_id="1", speaker="agent", text="I am new here", from_ms=10)
    fragment = client.get(page_of(live, "live")).content.decode()
    assert "I am new here" in fragment and "<html" not in fragment


def test_a_call_is_followed_until_its_summary_is_made(alice: User, call_of: MakeCall) -> None:
    call = call_of(alice, "x", ended=True, summary_state="pending", summary_attempts=2)
    text = signed_in(alice).get(page_of(call)).content.decode()
    assert 'data-poll-ms="5000"' in text
    assert "tried 2 times" in text


def test_looking_at_a_number_in_full_is_on_record(alice: User, told: CallRecord) -> None:
    client = signed_in(alice)
    assert client.get(page_of(told, "number")).status_code == 302
    assert not LogEntry.objects.exists()
    assert "447700900123" in client.post(page_of(told, "number")).content.decode()
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id) == (alice, str(told.pk))
    assert "447700900123" not in entry.change_message


def test_calls_are_neither_added_nor_changed_nor_deleted_by_hand(
    root: User, told: CallRecord
) -> None:
    client = signed_in(root)
    assert client.get(reverse("admin:sessions_app_callrecord_add")).status_code == 403
    assert client.post(page_of(told, "delete"), {"post": "yes"}).status_code == 403
    assert client.post(page_of(told), {"caller": "1"}).status_code == 200
    told.refresh_from_db()
    assert told.caller == "447700900123"


def test_a_link_by_uuid_leads_to_the_page(alice: User, bob: User, told: CallRecord) -> None:
    address = reverse("admin:sessions_app_callrecord_of", args=[told.uuid])
    assert signed_in(alice).get(address).headers["Location"] == page_of(told)
    assert signed_in(bob).get(address).status_code == 404


def test_commands_show_who_asked_and_what_came_of_it(alice: User, call_of: MakeCall) -> None:
    call = call_of(alice, "x")
    CallCommand.objects.create(call=call, kind=CommandKind.HANG_UP, requested_by=alice)
    text = signed_in(alice).get(page_of(call)).content.decode()
    assert "Hanging up has been asked, not yet done." in text
    assert "not yet" in text and "alice" in text


def test_an_empty_list_says_what_to_do(root: User) -> None:
    client = signed_in(root)
    assert "No calls yet" in client.get(reverse(LIST)).content.decode()
    numbers = client.get(reverse("admin:sessions_app_phonenumber_changelist")).content.decode()
    assert "No numbers yet" in numbers


def test_figures_and_json_are_put_into_words() -> None:
    told_times = [clock(seconds) for seconds in (0, 7.9, 754, 3723, -1)]
    assert told_times == ["0:00", "0:07", "12:34", "1:02:03", "0:00"]
    assert [shown_caller(c) for c in ("", "admin", "447700900123")] == [
        "withheld",
        "admin",
        "44•••••••123",
    ]
    told = rows({"a_b": {"c": 1234}, "list": [], "flag": False, "gone": None, "l": [{"x": 1}]})
    assert [(row.label, row.values) for row in told] == [
        ("A b: c", ("1,234",)),
        ("List", ("none",)),
        ("Flag", ("no",)),
        ("Gone", ("–",)),
        ("L", ("X: 1",)),
    ]
