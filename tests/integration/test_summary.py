"""The summary of a call: made by a worker beside the servers, once, also after everything failed.

What the job library and the sweep wait for (half a minute, some minutes) is shortened by moving the
due times in the rows, as time itself would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.openai import HttpReply
from tests.fakes.server import RunningServer
from tests.fakes.stage import Stage
from tests.fakes.waiting import eventually
from tests.integration.support import (
    Row,
    Rows,
    Shared,
    ask_answer,
    connects,
    hang_up,
    new_uuid,
    shared_stage,
)

LONG_AGO = "2026-01-01 00:00:00"


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


async def a_talk(s: Stage, *said: str) -> str:
    """A call in which the caller says something; its uuid, once its row has ended."""
    async with s.call() as phone:
        await phone.wait_for_voice()
        conn = await s.connection_of(phone)
        for text in said:
            await conn.caller_said(text)
            await conn.wait_idle()
        await asyncio.sleep(0.5)
    await Rows.of(s.server).ended(phone.uuid)
    return phone.uuid


async def state(rows: Rows, call_uuid: str, wanted: str, timeout_s: float = 20.0) -> Row:
    """The row once its summary is as wanted."""

    def probe() -> Row | None:
        row = rows.call(call_uuid)
        return row if row["summary_state"] == wanted else None

    try:
        found = await eventually(f"a summary {wanted}", probe, timeout_s, every_s=0.1)
    except AssertionError as error:
        row = rows.call(call_uuid)
        error.add_note(f"it is {row['summary_state']}: {row['summary_error']}")
        raise
    assert found is not None
    return found


def summary_of(row: Row) -> dict[str, Any]:
    held = row["summary"]
    found = json.loads(held) if isinstance(held, str) else held
    assert isinstance(found, dict)
    return found


def now_due(rows: Rows) -> None:
    """Jobs that wait for a later time may begin."""
    rows.ask("UPDATE django_tasks_database_dbtaskresult SET run_after = ? WHERE status = 'READY'",
             LONG_AGO)  # fmt: skip


def overdue(rows: Rows) -> None:
    """Whoever was to make a summary by now has not."""
    rows.ask("UPDATE sessions_app_callrecord SET summary_due_at = ? "
             "WHERE summary_due_at IS NOT NULL", LONG_AGO)  # fmt: skip


def requests_about(s: Stage, text: str) -> int:
    return sum(text in json.dumps(each.body) for each in s.openai.summaries)


def test_a_call_with_words_gets_a_summary_and_one_without_gets_none(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        silent = new_uuid()
        connects(await ask_answer(s, silent))
        await hang_up(s, silent)
        await rows.ended(silent)
        call_uuid = await a_talk(s, "My name is Ada, I want to cancel order 4711.")
        assert rows.call(call_uuid)["summary_state"] == "pending"
        with s.server.worker():
            row = await state(rows, call_uuid, "done")
        made = summary_of(row)
        assert made["summary"] == "as discussed"  # the stand-in's smallest good answer
        assert {"intent", "sentiment", "follow_up", "callback_requested"} <= set(made)
        assert row["summary_error"] == "" and row["summary_due_at"] is None
        assert rows.call(silent)["summary_state"] == "none"

        request = s.openai.summaries[-1].body
        text = json.dumps(request)
        assert "order 4711" in text
        assert "447700900123" not in text
        assert request["text"]["format"]["strict"] is True
        assert request["model"] == "gpt-6-luna"
        assert request.get("store") is False
        assert requests_about(s, "order 4711") == 1
        assert s.violations() == []

    shared.run(scenario())


def test_summaries_are_made_later_when_no_worker_ran_meanwhile(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        said = [f"This is caller number {n}." for n in range(3)]
        uuids = [await a_talk(s, text) for text in said]
        # Two workers at once make each of them once.
        with s.server.worker(), s.server.worker():
            for call_uuid in uuids:
                await state(rows, call_uuid, "done")
        assert [requests_about(s, text) for text in said] == [1, 1, 1]
        assert s.violations() == []

    shared.run(scenario())


BAD: dict[str, HttpReply] = {
    "the server is broken": HttpReply(500),
    "a page instead of JSON": HttpReply(200, b"<html>busy</html>", "text/html"),
    "a response without output": HttpReply(200, {"id": "r", "status": "completed", "output": []}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_went_wrong_is_shown_and_tried_again_later(shared: Shared, name: str) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        s.openai.summary_replies.extend([BAD[name]] * 5)
        call_uuid = await a_talk(s, f"Today {name}.")
        with s.server.worker():
            await eventually(
                "the reason on the row",
                lambda: rows.call(call_uuid)["summary_error"],
                30,
                every_s=0.1,
            )
            row = rows.call(call_uuid)
            assert row["summary_state"] == "pending", row["summary_state"]
            assert s.openai.api_key not in row["summary_error"]
            s.openai.summary_replies.clear()
            now_due(rows)
            row = await state(rows, call_uuid, "done")
            assert row["summary_error"] == "" and row["summary_attempts"] == 2
        assert s.openai.violations == []

    shared.run(scenario())


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(401, {"error": {"type": "invalid_request_error", "code": "invalid_api_key"}}),
        HttpReply(429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}),
    ],
    ids=["a wrong key", "an unpaid bill"],
)
def test_what_trying_again_cannot_help_ends_as_failed_with_its_reason(
    shared: Shared, reply: HttpReply
) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        s.openai.summary_replies.append(reply)
        call_uuid = await a_talk(s, "Nobody will ever sum this up.")
        with s.server.worker():
            row = await state(rows, call_uuid, "failed")
        assert row["summary_error"] and row["summary_due_at"] is None
        assert not s.openai.summary_replies

    shared.run(scenario())


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        s.openai.summary_replies.append(HttpReply(200, stall_s=30))
        call_uuid = await a_talk(s, "The worker will not survive this.")
        with s.server.worker() as worker:
            await state(rows, call_uuid, "running")
            await eventually("the request", lambda: requests_about(s, "not survive") == 1)
            worker.kill()
        assert rows.call(call_uuid)["summary_state"] == "running"
        with s.server.worker():
            # Until it is overdue, it might still be under way; then any server asks again.
            overdue(rows)
            beside = RunningServer(s.openai, s.speechmatics, s.vonage, beside=s.server)
            async with beside:
                row = await state(rows, call_uuid, "done", timeout_s=30)
        assert row["summary_attempts"] == 2
        assert requests_about(s, "not survive") == 2
        assert s.violations() == []

    shared.run(scenario())


def test_a_worker_ends_cleanly_when_it_is_asked_to(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        call_uuid = await a_talk(s, "The worker may go home after this.")
        with s.server.worker() as worker:
            await state(rows, call_uuid, "done")
            assert worker.exit_code is None, worker.tail()
            assert await asyncio.to_thread(worker.terminate, 10) == 0
        everything = worker.tail(200)
        assert s.openai.api_key not in everything
        assert s.vonage.credentials.signature_secret not in everything

    shared.run(scenario())


def test_health_tells_of_jobs_that_nobody_takes(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        call_uuid = await a_talk(s, "Nobody is at work today.")
        assert (await s.server.ahealth())["checks"]["worker"]["ok"] is True
        now_due(rows)
        rows.ask(
            "UPDATE django_tasks_database_dbtaskresult SET enqueued_at = ? WHERE status = 'READY'",
            LONG_AGO,
        )
        report = await s.server.ahealth()
        assert report["status"] == "degraded" and "worker away" in report["reasons"]
        assert report["checks"]["worker"]["ok"] is False
        with s.server.worker():
            await state(rows, call_uuid, "done")
        assert (await s.server.ahealth())["checks"]["worker"]["ok"] is True

    shared.run(scenario())
