"""What the rows of a call cost, counted: a handful of writes, and one for a batch of turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sessions_app import mirror as mirror_module
from sessions_app import rows
from sessions_app.core.events import EndReason
from sessions_app.models import CallState
from tests.unit.rows.conftest import NODE, a_row, at_work, base, change, report, row, turn

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the database is asked; beginning and ending a transaction is not."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    around = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    asked = [query["sql"] for query in captured.captured_queries]
    found += [sql for sql in asked if not sql.startswith(around)]


@pytest.mark.parametrize("count", [1, 20])
def test_a_batch_of_turns_is_one_look_at_the_row_and_one_write(count: int) -> None:
    a_row()
    turns = [turn(f"i{number}", from_ms=number) for number in range(count)]
    with statements() as asked:
        rows.write(change(turns=turns), NODE)
    assert [sql.split()[0] for sql in asked] == ["SELECT", "INSERT"]
    assert row().turns.count() == count


def test_what_has_not_changed_is_not_written_again() -> None:
    a_row()
    with statements() as asked:
        rows.write(change(fields={"usage": {"total_tokens": 5}}), NODE)
    update = next(sql for sql in asked if sql.startswith("UPDATE"))
    assert '"usage"' in update and '"caller"' not in update
    assert [sql.split()[0] for sql in asked] == ["SELECT", "UPDATE"]


def test_the_end_of_a_call_and_the_carriers_report_of_it_are_one_write_of_the_row() -> None:
    a_row()
    ended = {"state": CallState.ENDED, "end_reason": "caller_hung_up", "ended_at": timezone.now()}
    told = [report("answered"), report("completed", price="0.5", carrier_duration_s=7)]
    with statements() as asked:
        rows.write(change(fields=ended, reports=told), NODE)
    # The row; what was noted of it before; the notes; whether there is anything to sum up.
    assert [sql.split()[0] for sql in asked] == ["SELECT", "UPDATE", "SELECT", "INSERT", "SELECT"]
    assert (row().state, row().carrier_duration_s) == (CallState.ENDED, 7)
    assert [e.detail for e in row().events.order_by("id")] == ["answered", "completed"]


def test_how_far_a_turn_has_been_heard_waits_for_something_that_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[rows.CallChange] = []
    write = rows.write

    def counted(change: rows.CallChange, node: str) -> None:
        written.append(change)
        write(change, node)

    monkeypatch.setattr(rows, "write", counted)

    async def story() -> None:
        async with at_work() as mirror:
            call = mirror.open("u-1", base())
            call.media_opened()
            await mirror.flush()
            began = len(written)
            for number in range(100):
                call.turn(turn("i1", f"words {number}", final=False))
                call.usage({"total_tokens": number})
                await asyncio.sleep(0)
            # Longer than anything that does not wait would need.
            await asyncio.sleep(0.1)
            assert len(written) == began
            assert mirror.unwritten() == ["u-1"], "it is known to be unwritten"
            call.turn(turn("i1", "all of it"))
            await mirror.flush()
            assert len(written) == began + 1
            call.turn(turn("i2", "the beginning of", final=False))
            call.ended(EndReason.CALLER_HUNG_UP)

    asyncio.run(story())
    said = row().turns.order_by("id")
    assert [each.text for each in said] == ["all of it", "the beginning of"]
    assert row().usage == {"total_tokens": 99}


def test_who_watches_is_told_once_of_what_was_written_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    async def publish(call_uuid: str, message: dict[str, Any]) -> bool:
        told.append(message["type"])
        return True

    monkeypatch.setattr(mirror_module, "publish", publish)

    async def story() -> None:
        async with at_work() as mirror:
            call = mirror.open("u-1", base())
            call.claimed(1)
            call.media_opened()
            await mirror.flush()
            for number in range(100):
                call.turn(turn("i1", f"words {number}", final=False))
                call.usage({"total_tokens": number})
            call.turn(turn("i1", "all of it"))
            call.turn(turn("i2", "and more"))
            await mirror.flush()
            # What only the row needs, nobody is told.
            call.usage({"total_tokens": 100})
            call.greeting_heard()
            await mirror.flush()
            call.ended(EndReason.CALLER_HUNG_UP)

    asyncio.run(story())
    assert told == ["call.state", "call.turn", "call.turn", "call.state"]


def test_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "LATER_S", 0.2)

    async def story() -> None:
        async with at_work() as mirror:
            call, other = mirror.open("u-1", base()), mirror.open("u-2", base())
            call.media_opened()
            other.media_opened()
            await mirror.flush()
            call.turn(turn("i1", "so far", final=False))
            async with asyncio.timeout(20):
                while mirror.unwritten():  # noqa: ASYNC110  # the row is what is waited for
                    await asyncio.sleep(0.01)

    asyncio.run(story())
    assert row("u-1").turns.get().text == "so far"
    assert row("u-2").turns.count() == 0
