"""Webhooks on PostgreSQL, which is stricter than SQLite about what fits into a row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.integration.support import (
    Rows,
    Shared,
    ask_answer,
    call_payload,
    connects,
    hang_up,
    new_uuid,
    postgres_database,
    send,
    shared_stage,
    tell,
)
from tests.integration.test_webhooks_answer import CALLERS

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def shared(postgres_url: str) -> Iterator[Shared]:
    with (
        postgres_database(postgres_url) as url,
        shared_stage(env={"DATABASE_URL": url}) as running,
    ):
        yield running


@pytest.mark.parametrize("name", CALLERS)
def test_whoever_calls_is_connected_and_has_a_row(shared: Shared, name: str) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        first = await ask_answer(s, call_uuid, **CALLERS[name])
        connects(first)
        assert (await ask_answer(s, call_uuid, "POST", **CALLERS[name])).body == first.body
        assert call_uuid in s.server.health()["sessions"]["uuids"]
        await tell(s, call_uuid, "completed", price="0.00833333", duration="5")
        row = await rows.ended(call_uuid)
        assert row["agent_name"] == "Receptionist"
        assert not [
            line.text for line in s.server.log if call_uuid in line.text and "refused" in line.text
        ]

    shared.run(scenario())


@pytest.mark.parametrize("odd", ["447700\u0000900123", "a\r\nb", "\U0001f4de" * 90])
def test_signs_that_postgresql_does_not_take_still_lead_to_an_agent_and_a_row(
    shared: Shared, odd: str
) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        # So that an agent is remembered, whatever the database says of the next one.
        remembered = new_uuid()
        connects(await ask_answer(s, remembered))
        body = json.dumps(call_payload(call_uuid, **{"from": odd})).encode()
        reply = await send(s, "/webhooks/vonage/answer", body)
        assert reply.status_code == 200 and reply.json()[0]["action"] == "connect", reply.text
        await hang_up(s, remembered, call_uuid)
        await rows.ended(call_uuid)

    shared.run(scenario())


def test_odd_events_hold_up_nobody_elses_rows(shared: Shared) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        connects(await ask_answer(s, call_uuid))
        for payload in (
            {"status": "completed", "uuid": "a\u0000b"},
            {"status": "a\u0000b", "uuid": call_uuid},
            {"status": "s" * 5000, "uuid": call_uuid},
            {"status": "completed", "uuid": "nobody", "price": "9" * 300, "duration": "9" * 300},
        ):
            reply = await send(s, "/webhooks/vonage/event", json.dumps(payload).encode())
            assert reply.status_code in (204, 400)
        await hang_up(s, call_uuid)
        assert (await rows.ended(call_uuid))["end_reason"] == "caller_hung_up"

    shared.run(scenario())


def test_twenty_answers_at_once_make_one_call(shared: Shared) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        replies = await asyncio.gather(*(ask_answer(s, call_uuid) for _ in range(20)))
        assert len({reply.body for reply in replies}) == 1
        connects(replies[0])
        assert rows.call(call_uuid)["ended_at"] is None
        await hang_up(s, call_uuid)
        await rows.ended(call_uuid)

    shared.run(scenario())


def test_whole_calls_on_postgresql(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as one, s.call(answer_method="POST") as two:
            await asyncio.gather(one.wait_for_voice(), two.wait_for_voice())
            conn = await s.connection_of(one)
            await conn.caller_said("Is this PostgreSQL?")
            await one.wait_for_voice()
        for phone in (one, two):
            assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"
        assert s.violations() == []

    shared.run(scenario())
