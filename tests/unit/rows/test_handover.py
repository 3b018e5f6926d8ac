"""Calls that go from one process to another: who may have them, and what is known of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from sessions_app import handover, rows
from sessions_app.core import events as ev
from sessions_app.models import CallState, CommandKind, Node
from tests.unit.rows.conftest import NODE, a_row, change, row, turn

pytestmark = pytest.mark.django_db

ENDED = {
    "state": CallState.ENDED,
    "ended_at": timezone.now(),
    "end_reason": ev.EndReason.AGENT_ENDED.value,
}


def test_a_ticket_is_claimed_once_whoever_comes() -> None:
    a_row(node="first", ticket_generation=1)
    taken = handover.take_over("u-1", "second", 1, claim=True)
    assert taken is not None
    assert (taken.record.node, taken.record.ticket_claimed) == ("second", 1)
    assert handover.take_over("u-1", "third", 1, claim=True) is None
    assert row().node == "second"


@pytest.mark.parametrize("generation", [0, 3])
def test_a_ticket_that_was_never_given_out_is_worth_nothing(generation: int) -> None:
    a_row(ticket_generation=2)
    assert handover.take_over("u-1", "second", generation, claim=True) is None


def test_a_call_that_is_over_is_taken_over_by_nobody() -> None:
    a_row()
    rows.write(change(fields=dict(ENDED)), NODE)
    assert handover.take_over("u-1", "second", 1, claim=True) is None
    assert handover.take_over("u-1", "second", 2, claim=False) is None
    assert handover.take_over("unknown", "second", 1, claim=True) is None


def test_who_takes_a_call_over_knows_what_was_said_and_used_and_how_long_it_took() -> None:
    a_row(media_opened_at=timezone.now() - timedelta(seconds=40), usage={"responses": 2})
    agent = ev.Turn("life.i1", ev.Speaker.AGENT, "Hello.", 0, 900, False, True)
    told = [
        turn("life.u1", "My name is Ann.", from_ms=3000),
        turn("life.keys_1", "17", from_ms=6000),
        turn("life.u2", "not yet all of", final=False, from_ms=9000),
        turn("life.u3", "", from_ms=9500),
        agent,
    ]
    rows.write(change(turns=told), NODE)
    for answer, text in ((rows.TOLD, "Ask for her number."), ("", "Not told yet.")):
        row().commands.create(
            kind=CommandKind.WHISPER,
            text=text,
            answer=answer,
            answered_at=row().media_opened_at + timedelta(seconds=4),
        )
    taken = handover.take_over("u-1", "second", 2, claim=False)
    assert taken is not None
    past = taken.past
    assert past.usage.total() == {"responses": 2}
    assert past.connected_s == pytest.approx(40, abs=5)
    hello, ann, whisper, keys = past.memory.recall()
    assert isinstance(whisper, ev.AddWhisper) and whisper.text.endswith("Ask for her number.")
    assert isinstance(hello, ev.AddAgentWords) and hello.text == "Hello."
    assert ann == ev.AddCallerWords("My name is Ann.")
    assert isinstance(keys, ev.AddCallerWords) and "17" in keys.text and keys.text != "17"


def test_what_was_whispered_before_the_caller_was_there_is_known_too() -> None:
    a_row()
    row().commands.create(kind=CommandKind.WHISPER, text="It is Ann.", answer=rows.TOLD)
    taken = handover.take_over("u-1", "second", 2, claim=False)
    assert taken is not None
    [whisper] = taken.past.memory.recall()
    assert isinstance(whisper, ev.AddWhisper) and whisper.text.endswith("It is Ann.")


def test_of_a_call_in_which_nothing_was_said_nothing_is_known() -> None:
    a_row()
    taken = handover.take_over("u-1", "second", 2, claim=False)
    assert taken is not None
    assert taken.past.memory.last_speaker is None
    assert (taken.past.connected_s, taken.past.usage.total()) == (0.0, {})


def note(kind: str) -> rows.CallChange:
    return change(notes=[rows.EventNote(timezone.now(), kind, "")])


def test_a_break_is_one_as_long_as_no_other_socket_has_come() -> None:
    a_node("other")
    a_row(node="other", ticket_claimed=1)
    breaks = [broken()]
    for kind in ("media_broke", "media_replaced", "provider_lost", "media_broke"):
        rows.write(note(kind), "other")
        breaks.append(broken())
    assert breaks == [0, 1, 0, 0, 2]


def test_nothing_is_seen_of_ones_own_calls_of_lost_ones_and_of_those_that_are_over() -> None:
    a_node("other")
    a_node("lost", silent_s=20)
    for uuid, node in (("own", NODE), ("gone", "lost"), ("over", "other"), ("seen", "other")):
        a_row(uuid, node=node)
        rows.write(change(uuid, notes=note("media_broke").notes), node)
    rows.write(change("over", fields=dict(ENDED)), "other")
    seen = [uuid for uuid in ("own", "gone", "over", "seen", "unknown") if look(uuid) is not None]
    assert seen == ["seen"]


def look(uuid: str = "u-1") -> handover.Elsewhere | None:
    return handover.look(uuid, NODE, 15)


def broken() -> int:
    seen = look()
    assert seen is not None and seen.media_url == "ws://other"
    return seen.breaks


def a_node(name: str, silent_s: float = 0.0) -> None:
    now = timezone.now()
    Node.objects.create(
        name=name,
        media_url=f"ws://{name}",
        channel_layer="memory",
        capacity=1,
        version="1",
        started_at=now,
        heartbeat_at=now - timedelta(seconds=silent_s),
    )
