"""From memory to rows: coalesced, never lost, never in the way of anything."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, OperationalError, connections
from django.utils import timezone

from sessions_app import handover, rows
from sessions_app import mirror as mirror_module
from sessions_app import publish as publish_module
from sessions_app.core.events import EndReason
from sessions_app.mirror import CallMirror, DatabaseBusy, Mirror
from sessions_app.models import CallRecord, CallState
from tests.unit.rows.conftest import NODE, a_row, at_work, base, report, row, turn

pytestmark = pytest.mark.django_db(transaction=True)


async def settled(mirror: Mirror) -> None:
    """Everything noted so far has been written."""
    async with asyncio.timeout(20):
        while not await mirror.flush():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def away_for(monkeypatch: pytest.MonkeyPatch, times: int, error: type[Exception]) -> list[str]:
    """The database refuses so many changes; gives the uuids of those it took."""
    write, tries, took = rows.write, iter(range(10**6)), []

    def refusing(change: rows.CallChange, node: str) -> None:
        if next(tries) < times:
            raise error("server closed the connection unexpectedly")
        write(change, node)
        took.append(change.uuid)

    monkeypatch.setattr(rows, "write", refusing)
    return took


def test_a_call_from_its_answer_to_its_end() -> None:
    async def story() -> None:
        async with at_work() as mirror:
            call = mirror.open("u-1", base())
            call.answered()
            call.claimed(1)
            call.media_opened()
            call.greeting_heard()
            call.turn(turn())
            call.usage({"total_tokens": 5})
            call.note("caller_silent", "once")
            await settled(mirror)
            call.ended(EndReason.AGENT_ENDED)

    asyncio.run(story())
    record = row()
    assert (record.state, record.end_reason) == (CallState.ENDED, "agent_ended")
    assert record.answered_at and record.media_opened_at and record.greeting_heard_at
    assert record.ticket_claimed == 1
    assert record.usage == {"total_tokens": 5}
    assert [t.text for t in record.turns.all()] == ["hello"]
    assert [e.kind for e in record.events.all()] == ["caller_silent"]


def test_many_changes_of_one_call_become_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    took = away_for(monkeypatch, 0, OperationalError)

    async def story() -> None:
        async with at_work() as mirror:
            call = mirror.open("u-1", base())
            for number in range(500):
                call.turn(turn("i1", f"word {number}"))
                call.usage({"total_tokens": number})
            await settled(mirror)

    asyncio.run(story())
    assert len(took) <= 2
    assert row().turns.get().text == "word 499"
    assert row().usage == {"total_tokens": 499}


def test_a_database_that_is_away_for_a_while_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away_for(monkeypatch, 7, OperationalError)

    async def story() -> None:
        async with at_work() as mirror:
            calls = [mirror.open(f"u-{n}", base()) for n in range(3)]
            for call in calls:
                call.media_opened()
                call.turn(turn("i1", "first"))
                call.note("one")
            assert not await mirror.flush()
            assert mirror.trouble
            # Calls that are not to be taken for lost, whatever has become of their sessions.
            assert sorted(set(mirror.unwritten())) == ["u-0", "u-1", "u-2"]
            for call in calls:
                call.turn(turn("i1", "second"))
                call.turn(turn("i2", "third"))
                call.note("two")
            for call in calls:
                call.ended(EndReason.CALLER_HUNG_UP)
            mirror.report(report("completed", "u-1", carrier_duration_s=7))
            await settled(mirror)
            assert not mirror.trouble
            assert mirror.unwritten() == []

    with caplog.at_level(logging.INFO, "sessions_app.mirror"):
        asyncio.run(story())
    for number in range(3):
        record = row(f"u-{number}")
        assert (record.state, record.end_reason) == (CallState.ENDED, "caller_hung_up")
        assert sorted(t.text for t in record.turns.all()) == ["second", "third"]
        notes = [e.kind for e in record.events.exclude(kind="carrier")]
        assert notes == ["one", "two"]
    assert row("u-1").carrier_duration_s == 7
    told = [record.getMessage() for record in caplog.records]
    assert sum("cannot be written" in line for line in told) == 1, "told once, not at every try"
    assert sum("written again" in line for line in told) == 1


def test_a_report_is_written_with_its_call_and_alone_where_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[rows.CallChange] = []
    write = rows.write

    def noted(change: rows.CallChange, node: str) -> None:
        written.append(change)
        write(change, node)

    monkeypatch.setattr(rows, "write", noted)
    a_row("u-2")

    async def story() -> None:
        async with at_work() as mirror:
            mirror.report(report("completed", "u-1"))
            mirror.report(report("answered", "u-2"))
            mirror.report(report("completed", "u-2"))
            mirror.open("u-1", base()).ended(EndReason.CALLER_HUNG_UP)
            await mirror.flush()

    asyncio.run(story())
    told = [(change.uuid, bool(change.fields), len(change.reports)) for change in written]
    assert told == [("u-1", True, 1), ("u-2", False, 2)]
    assert [event.detail for event in row("u-1").events.all()] == ["completed"]


@pytest.mark.parametrize("refused", ["ours", "the carrier's"])
def test_what_the_carrier_says_and_what_we_say_do_not_fall_together(refused: str) -> None:
    a_row()

    async def story() -> None:
        async with at_work() as mirror:
            call = mirror.open("u-1", base())
            call.note("something")
            if refused == "ours":
                call.fields["ticket_claimed"] = 99  # more than was given out
                mirror.report(report("completed", carrier_duration_s=7))
            else:
                mirror.report(report("completed", carrier_duration_s="no number"))
            await mirror.flush()
            assert not mirror.trouble

    asyncio.run(story())
    assert row().carrier_duration_s == (7 if refused == "ours" else None)
    kinds = [event.kind for event in row().events.all()]
    assert kinds == (["carrier"] if refused == "ours" else ["something"])


def test_a_change_the_database_refuses_is_dropped_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = rows.write

    def poisoned(change: rows.CallChange, node: str) -> None:
        if change.uuid == "u-1":
            raise DataError("value too long")
        write(change, node)

    monkeypatch.setattr(rows, "write", poisoned)

    async def story() -> None:
        async with at_work() as mirror:
            for number in range(3):
                mirror.open(f"u-{number}", base()).media_opened()
            assert await mirror.flush()

    with caplog.at_level(logging.ERROR, "sessions_app.mirror"):
        asyncio.run(story())
    assert sorted(CallRecord.objects.values_list("uuid", flat=True)) == ["u-0", "u-2"]
    assert len(caplog.records) == 1


def test_what_was_noted_while_a_write_failed_does_not_go_back_in_state() -> None:
    call = CallMirror("u-1", base(), lambda mirror: None)
    call.media_opened()
    taken = call.take()
    call.answered()  # the carrier's report comes late
    call.put_back(taken)
    rows.write(call.take(), NODE)
    assert row().state == CallState.LIVE


def test_an_end_that_could_not_be_written_is_not_undone_by_a_late_report() -> None:
    a_row()
    call = CallMirror("u-1", base(), lambda mirror: None)
    call.ended(EndReason.AGENT_ENDED)
    taken = call.take()
    call.answered()
    call.put_back(taken)
    rows.write(call.take(), NODE)
    assert (row().state, row().end_reason) == (CallState.ENDED, "agent_ended")


def test_the_moment_of_the_answer_is_the_first_one_told() -> None:
    call = CallMirror("u-1", base(), lambda mirror: None)
    early = timezone.now() - timedelta(seconds=3)
    call.fields["answered_at"] = early
    call.media_opened()
    rows.write(call.take(), NODE)
    assert row().answered_at == early


def test_a_session_that_is_replaced_leaves_its_words_behind() -> None:
    """Two sessions of one call have notes at once: the former's last ones, the newcomer's first."""

    async def story() -> None:
        async with at_work() as mirror:
            former = mirror.open("u-1", base())
            former.turn(turn("i1", "of the former"))
            former.ended(EndReason.REPLACED)
            newcomer = mirror.open("u-1", base())
            newcomer.claimed(1)
            newcomer.turn(turn("i2", "of the newcomer"))

    asyncio.run(story())
    assert sorted(t.text for t in row().turns.all()) == ["of the former", "of the newcomer"]
    assert [e.kind for e in row().events.all()] == ["media_replaced"]
    assert row().is_live


def test_both_sessions_of_a_call_keep_their_words_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away_for(monkeypatch, 3, OperationalError)

    async def story() -> None:
        async with at_work() as mirror:
            former = mirror.open("u-1", base())
            former.turn(turn("i1", "of the former"))
            assert not await mirror.flush()
            former.ended(EndReason.REPLACED)
            newcomer = mirror.open("u-1", base())
            newcomer.turn(turn("i2", "of the newcomer"))
            newcomer.ended(EndReason.AGENT_ENDED)
            await settled(mirror)

    asyncio.run(story())
    assert sorted(t.text for t in row().turns.all()) == ["of the former", "of the newcomer"]
    assert row().end_reason == "agent_ended"


def test_what_is_being_written_at_the_end_of_the_process_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, go_on = threading.Event(), threading.Event()
    write = rows.write

    def stuck(change: rows.CallChange, node: str) -> None:
        if not began.is_set():
            began.set()
            go_on.wait(10)
            raise OperationalError("the connection was lost")
        write(change, node)

    monkeypatch.setattr(rows, "write", stuck)

    async def story() -> None:
        mirror = Mirror(NODE)
        running = asyncio.create_task(mirror.run())
        mirror.open("u-1", base()).ended(EndReason.SHUTDOWN)
        await asyncio.to_thread(began.wait, 10)
        mirror.stop()
        go_on.set()
        await asyncio.wait_for(running, 10)
        await settled(mirror)
        await mirror.write(connections.close_all)
        await mirror.aclose()

    asyncio.run(story())
    assert row().end_reason == "shutdown"


def test_a_flush_that_is_given_up_waiting_for_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, go_on = threading.Event(), threading.Event()
    write = rows.write

    def stuck(change: rows.CallChange, node: str) -> None:
        if not began.is_set():
            began.set()
            go_on.wait(10)
            raise OperationalError("the connection was lost")
        write(change, node)

    monkeypatch.setattr(rows, "write", stuck)

    async def story() -> None:
        mirror = Mirror(NODE)
        mirror.open("u-1", base()).ended(EndReason.AGENT_ENDED)
        impatient = asyncio.create_task(mirror.flush())
        await asyncio.to_thread(began.wait, 10)
        impatient.cancel()
        await asyncio.wait([impatient])
        go_on.set()
        await settled(mirror)
        await settled(mirror)
        await mirror.write(connections.close_all)
        await mirror.aclose()

    asyncio.run(story())
    assert row().end_reason == "agent_ended"


def test_a_channel_layer_that_hangs_does_not_hold_up_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging:
        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(publish_module, "get_channel_layer", Hanging)
    monkeypatch.setattr(publish_module, "TIMEOUT_S", 0.05, raising=False)

    async def story() -> None:
        async with at_work() as mirror:
            for number in range(20):
                mirror.open(f"u-{number}", base()).media_opened()
            async with asyncio.timeout(10):
                await mirror.flush()

    asyncio.run(story())
    assert CallRecord.objects.filter(state=CallState.LIVE).count() == 20


def test_questions_beyond_what_can_wait_are_told_so_at_once() -> None:
    go_on = threading.Event()

    async def story() -> None:
        async with at_work() as mirror:
            asking = [
                asyncio.create_task(mirror.query(lambda: go_on.wait(10), 10))
                for _ in range(mirror_module.QUERIES_MOST)
            ]
            await asyncio.sleep(0.01)
            with pytest.raises(DatabaseBusy):
                await mirror.query(lambda: None, 10)
            go_on.set()
            await asyncio.gather(*asking)
            assert await mirror.query(lambda: 7, 10) == 7

    asyncio.run(story())


def test_a_question_that_takes_too_long_is_given_up_and_its_place_comes_back() -> None:
    go_on = threading.Event()

    async def story() -> None:
        async with at_work() as mirror:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await mirror.query(lambda: go_on.wait(10), 0.05)
            assert time.monotonic() - began < 5
            go_on.set()
            await asyncio.gather(
                *(mirror.query(lambda: 7, 10) for _ in range(mirror_module.QUERIES_MOST - 1))
            )

    asyncio.run(story())


def test_a_dead_database_does_not_keep_the_process_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away_for(monkeypatch, 10**6, OperationalError)

    async def story() -> None:
        mirror = Mirror(NODE)
        mirror.open("u-1", base()).media_opened()
        began = time.monotonic()
        await mirror.aclose(timeout_s=0.3)
        assert time.monotonic() - began < 10

    asyncio.run(story())


def test_a_supplier_without_end_is_not_told_without_end() -> None:
    call = CallMirror("u-1", base(), lambda mirror: None)
    for _ in range(5000):
        call.note("noise", "x" * 10_000)
    change = call.take()
    assert len(change.notes) <= mirror_module.NOTES_MOST
    assert all(len(note.detail) <= 500 for note in change.notes)


def test_of_two_processes_that_come_with_one_ticket_one_is_let_in() -> None:
    a_row(node="dead")
    barrier = threading.Barrier(2, timeout=10)

    def claim(node: str) -> bool:
        barrier.wait()
        try:
            while True:
                try:
                    return handover.take_over("u-1", node, 1, claim=True) is not None
                except OperationalError:  # SQLite's table lock; PostgreSQL waits by itself
                    time.sleep(0.01)
        finally:
            connections.close_all()

    for generation in range(1, 6):
        CallRecord.objects.update(ticket_claimed=0, node="dead")
        with ThreadPoolExecutor(2) as threads:
            won = list(threads.map(claim, ["one", "two"]))
        assert sorted(won) == [False, True], generation
        assert row().node == ("one" if won[0] else "two")


@pytest.mark.parametrize(
    ("changes", "over_s", "took_s", "begins_ms"),
    [
        (3, 0.25, 0.002, [0, 10, 20]),  # few: not further apart than need be
        (50, 0.25, 0.002, [5 * n for n in range(50)]),  # many: over all of the time
        (4, 0.02, 0.013, [0, 13, 26, 39]),  # late: no rest at all
        (3, 0.0, 0.002, [0, 2, 4]),  # at once, as at the end of everything
    ],
)
def test_a_batch_leaves_the_loop_its_time(
    changes: int,
    over_s: float,
    took_s: float,
    begins_ms: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    began: list[int] = []

    def write(change: rows.CallChange, node: str) -> None:
        nonlocal now_s
        began.append(round((now_s - 100) * 1000))
        now_s += took_s

    def sleep(seconds: float) -> None:
        nonlocal now_s
        assert seconds > 0
        now_s += seconds

    monkeypatch.setattr(rows, "write", write)
    batch = [rows.CallChange(f"u-{number}", None) for number in range(changes)]
    written, trouble = mirror_module._write(batch, NODE, over_s, clock=lambda: now_s, sleep=sleep)
    assert (written, trouble) == (changes, "")
    assert began == begins_ms


def test_rows_that_are_written_by_themselves_are_written_over_some_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spread: list[float] = []

    def write(changes: list[rows.CallChange], node: str, over_s: float) -> tuple[int, str]:
        spread.append(over_s)
        return len(changes), ""

    monkeypatch.setattr(mirror_module, "_write", write)

    async def story() -> None:
        mirror = Mirror(NODE)
        running = asyncio.create_task(mirror.run())
        mirror.open("u-1", base()).answered()
        async with asyncio.timeout(20):
            while not spread:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        mirror.open("u-2", base()).answered()
        await mirror.flush()
        mirror.stop()
        await running
        await mirror.aclose()

    asyncio.run(story())
    assert spread[0] == mirror_module.FLUSH_EVERY_S
    # Whoever waits for the rows waits for nothing else.
    assert spread[1] == 0
