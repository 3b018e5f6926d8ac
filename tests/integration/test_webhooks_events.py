"""Event webhooks: in any order, twice, late, about any leg, with whatever comes next year."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.fakes.media_leg import Faults
from tests.fakes.waiting import eventually
from tests.fakes.webhooks import Addresses
from tests.integration.support import (
    CALLED,
    Rows,
    Shared,
    apologises,
    ask_answer,
    call_payload,
    connects,
    flow,
    hang_up,
    media_uri,
    new_uuid,
    send,
    shared_stage,
    tell,
    tell_of_media,
)

EVENT = "/webhooks/vonage/event"
MEDIA_FAILED = ("unanswered", "failed", "disconnected")


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


@pytest.fixture(scope="module")
def with_person() -> Iterator[Shared]:
    """An agent with a person behind it."""
    with shared_stage() as running:
        told = running.stage.server.manage(
            "agent", "Receptionist", "--fallback-number", "+44 7700 900999"
        )
        assert told.returncode == 0, told.stderr
        yield running


# ---------------------------------------------------------------------- no harm, no effect

HARMLESS: dict[str, dict[str, object]] = {
    "nothing at all": {},
    "an error without uuid": {
        "reason": "Syntax error in NCCO. Invalid value type or action.",
        "conversation_uuid": "CON-1",
        "timestamp": "2026-11-22T12:00:00.123Z",
    },
    "a transfer": {
        "type": "transfer", "uuid": "LIVE", "conversation_uuid_from": "CON-1",
        "conversation_uuid_to": "CON-2", "timestamp": "2026-11-22T12:00:00.123Z",
    },
    "a recording": {
        "recording_url": "https://api.nexmo.com/v1/files/aaaaaaaa", "recording_uuid": "r",
        "conversation_uuid": "CON-1", "size": 12345,
    },
    "keys": {"uuid": "LIVE", "dtmf": {"digits": "12", "timed_out": True}},
    "a status nobody announced": {"uuid": "LIVE", "status": "levitating"},
    "a status in capitals": {"uuid": "LIVE", "status": "COMPLETED?"},
    "a status that is a number": {"uuid": "LIVE", "status": 12},
    "a status that is null": {"uuid": "LIVE", "status": None},
    "an end without uuid": {"status": "completed"},
    "an end with an odd uuid": {"status": "completed", "uuid": ["LIVE"]},
    "an end with a huge uuid": {"status": "completed", "uuid": "u" * 5000},
    "an end of an unknown call": {"status": "completed", "uuid": "nobody-knows-me"},
    "an answering machine": {"status": "machine", "call_uuid": "LIVE", "sub_state": "beep_start"},
    "a human": {"status": "human", "call_uuid": "LIVE"},
    "headers of an odd kind": {"status": "ringing", "uuid": "LIVE", "headers": "x"},
    "headers with an odd uuid": {
        "status": "ringing", "uuid": "LIVE", "headers": {"call_uuid": {"a": 1}},
    },
    "another leg that ends": {
        "status": "completed", "uuid": "another-leg", "conversation_uuid": "LIVE-CONVERSATION",
        "to": "447700900999", "headers": {},
    },
    "a realtime event": {"type": "audio:record:done", "body": {"channel": {"id": "x"}}},
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_report_of_our_leg_gets_204_and_changes_nothing(
    shared: Shared, name: str
) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        connects(await ask_answer(s, call_uuid))
        text = json.dumps(HARMLESS[name])
        text = text.replace("LIVE-CONVERSATION", f"CON-{call_uuid}").replace("LIVE", call_uuid)
        before = rows.count()
        for _ in range(2):
            reply = await send(s, EVENT, text.encode())
            assert (reply.status_code, reply.content) == (204, b"")
        assert rows.count() == before
        assert call_uuid in s.server.health("/api/health?node=self")["sessions"]["uuids"]
        assert rows.call(call_uuid)["ended_at"] is None
        await hang_up(s, call_uuid)

    shared.run(scenario())


UNREADABLE = {
    "an array": b'[{"status": "completed"}]',
    "half an object": b'{"status": ',
    "brackets without end": b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_event_that_cannot_be_read_gets_400(shared: Shared, name: str) -> None:
    reply = shared.run(send(shared.stage, EVENT, UNREADABLE[name]))

    assert reply.status_code == 400, reply.status_code
    assert reply.json()["error"]


ODD_SIGNS = {
    "half a letter": "\ud800",
    "a zero byte": "a\u0000b",
    "a line break": "line\nINFO [x] ✅ forged line",
}


@pytest.mark.parametrize("name", ODD_SIGNS)
def test_signs_that_no_log_and_no_database_takes_are_survived(shared: Shared, name: str) -> None:
    s, odd = shared.stage, ODD_SIGNS[name]
    of_caller = (
        {"status": "completed", "uuid": odd},
        {"status": odd, "uuid": "x"},
        {"status": "ringing", "uuid": "x", "headers": {"call_uuid": odd}},
    )
    of_media = [
        {"status": status, "uuid": "x", "headers": {"call_uuid": odd}, "conversation_uuid": odd}
        for status in MEDIA_FAILED
    ]

    async def scenario() -> None:
        call_uuid = new_uuid()
        connects(await ask_answer(s, call_uuid))
        for payload in (*of_caller, *of_media):
            reply = await send(s, EVENT, json.dumps(payload).encode())
            assert reply.status_code in (200, 204, 400), (payload, reply.status_code)
        assert not [line.text for line in s.server.log if line.text.startswith("INFO [x]")]
        # What could not be written of them holds up nobody else.
        await hang_up(s, call_uuid)
        await Rows.of(s.server).ended(call_uuid)

    shared.run(scenario())


# ---------------------------------------------------------------------- the caller's leg


def test_events_may_come_in_any_order_and_many_times(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)
    chance = random.Random(20261123)

    async def scenario() -> None:
        for _ in range(4):
            call_uuid = new_uuid()
            early = ["ringing", "started"]
            for status in early:
                assert (await tell(s, call_uuid, status)).status == 204
            connects(await ask_answer(s, call_uuid))
            statuses = ["started", "ringing", "answered"] * 5
            chance.shuffle(statuses)
            replies = await asyncio.gather(*(tell(s, call_uuid, each) for each in statuses))
            assert {reply.status for reply in replies} == {204}
            ends = await asyncio.gather(
                *(
                    tell(
                        s, call_uuid, "completed", price=f"0.0{n}", duration=str(n),
                        end_time="2026-11-22T12:00:01.000Z", disconnected_by="user", sip_code=200,
                    )
                    for n in range(1, 6)
                )
            )  # fmt: skip
            assert {reply.status for reply in ends} == {204}
            row = await rows.ended(call_uuid)
            assert row["end_reason"] == "caller_hung_up"
            # After the end, again: nothing goes back.
            for status in ("answered", "ringing", "completed", "started"):
                assert (await tell(s, call_uuid, status, price="9.9")).status == 204
            await asyncio.sleep(0.6)
            last = rows.call(call_uuid)
            assert (last["state"], last["ended_at"]) == (row["state"], row["ended_at"])
            noted = rows.events(call_uuid)
            for status in ("started", "ringing", "answered", "completed"):
                assert noted.count(f"carrier {status}") == 1, noted
            # Price and duration are of one and the same report: the one that came first.
            assert last["carrier_duration_s"] in range(1, 6)
            assert Decimal(str(last["price"])) == Decimal(f"0.0{last['carrier_duration_s']}")

    shared.run(scenario())


def test_the_end_closes_a_session_whose_socket_stays_open(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        for status in ("completed", "failed", "rejected", "busy", "cancelled", "timeout"):
            async with s.call() as phone:
                await phone.wait_for_voice()
                conn = await s.connection_of(phone)
                began_s = time.monotonic()
                assert (await tell(s, phone.uuid, status)).status == 204
                await eventually("the socket's end", lambda: not phone.media.open, 3)
                await conn.wait_closed(3)
                assert time.monotonic() - began_s < 2.5
                row = await rows.ended(phone.uuid, 3)
                assert row["end_reason"] == "caller_hung_up"
            uuids = s.server.health("/api/health?node=self")["sessions"]["uuids"]
            assert phone.uuid not in uuids
        assert s.violations() == []

    shared.run(scenario())


def test_whoever_hangs_up_while_the_agent_speaks_has_hung_up(shared: Shared) -> None:
    """The close frame crosses our audio; whichever half notices first, the reason is the same."""
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def one(nth: int) -> str:
        async with s.call() as phone:
            await phone.wait_for_voice(timeout_s=10)
            await asyncio.sleep(0.02 * nth)
        return str((await rows.ended(phone.uuid, 10))["end_reason"])

    async def scenario() -> None:
        reasons: list[str] = []
        for _ in range(6):
            reasons += await asyncio.gather(*(one(nth) for nth in range(5)))
        assert reasons == ["caller_hung_up"] * 30
        assert s.violations() == []

    shared.run(scenario())


def test_price_and_duration_land_on_the_row_once(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call(faults=Faults(duplicate_events=True)) as phone:
            await phone.wait_for_voice()
            await asyncio.sleep(1.1)
        told = next(
            each.payload for each in phone.events("completed") if each.payload["uuid"] == phone.uuid
        )

        def priced() -> bool:
            return rows.call(phone.uuid)["price"] is not None

        await eventually("the price", priced)
        row = rows.call(phone.uuid)
        assert row["carrier_duration_s"] == int(told["duration"])
        assert Decimal(str(row["price"])) == Decimal(told["price"])
        assert row["end_reason"] == "caller_hung_up"
        # A late one that says something else comes too late, and one of the other leg is not it.
        await tell(s, phone.uuid, "completed", price="77", duration="7777")
        await tell(s, phone.uuid, "completed", price="NaN", duration="-1")
        leg = {"call_uuid": phone.uuid}
        await tell(s, str(uuid.uuid4()), "completed", price="88", duration="888", headers=leg)
        await asyncio.sleep(0.8)
        last = rows.call(phone.uuid)
        assert (last["price"], last["carrier_duration_s"]) == (
            row["price"],
            row["carrier_duration_s"],
        )
        assert s.violations() == []

    shared.run(scenario())


@pytest.mark.parametrize(
    "odd", ["", "free", "NaN", "-1", "Infinity", "1e400", "1e-400", "0E+999999", "9" * 200]
)
def test_a_price_that_is_none_does_not_keep_the_row_from_ending(shared: Shared, odd: str) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        connects(await ask_answer(s, call_uuid))
        assert (await tell(s, call_uuid, "completed", price=odd, duration=odd)).status == 204
        await rows.ended(call_uuid)

    shared.run(scenario())


@pytest.mark.parametrize("event_method", ["GET", "POST"])
def test_a_whole_call_with_every_event_twice(shared: Shared, event_method: str) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        where = Addresses.of(
            s.server.url,
            "POST",
            event_method,  # type: ignore[arg-type]
        )
        faults = Faults(duplicate_events=True, duplicate_answer=True)
        async with s.vonage.call(where, faults=faults) as phone:
            await phone.wait_for_voice()
        row = await rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert s.violations() == []

    shared.run(scenario())


def test_an_end_that_overtakes_the_answer_leaves_no_slot_taken_for_long(shared: Shared) -> None:
    """The caller hangs up while the answer webhook is under way."""
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        before = s.server.active_count()
        for _ in range(10):
            call_uuid = new_uuid()
            done, reply = await asyncio.gather(
                tell(s, call_uuid, "completed"), ask_answer(s, call_uuid)
            )
            assert done.status == 204
            flow(reply)
            await tell(s, call_uuid, "completed")
            await rows.ended(call_uuid)
        await eventually("the slots", lambda: s.server.active_count() == before)

    shared.run(scenario())


# ---------------------------------------------------------------------- the media leg


def test_a_media_leg_that_fails_gets_its_flow_at_every_delivery(with_person: Shared) -> None:
    """Before the socket: the session ends, and every delivery gets the very same words."""
    s, rows = with_person.stage, Rows.of(with_person.stage.server)

    async def scenario() -> None:
        for status in MEDIA_FAILED:
            call_uuid, leg = new_uuid(), str(uuid.uuid4())
            ncco = connects(await ask_answer(s, call_uuid))
            first = await tell_of_media(s, ncco, status, leg=leg)
            said = apologises(first)
            assert said[-1]["endpoint"] == [{"type": "phone", "number": "447700900999"}]
            assert said[-1]["from"] == CALLED
            row = await rows.ended(call_uuid)
            assert row["end_reason"] in ("media_lost", "media_never_opened")
            for _ in range(3):
                again = await tell_of_media(s, ncco, status, leg=leg)
                assert again.body == first.body, (status, again.body, first.body)
            # The caller's own leg may end before the last delivery.
            await tell(s, call_uuid, "completed")
            await asyncio.sleep(0.4)
            apologises(await tell_of_media(s, ncco, status, leg=leg))
            assert call_uuid not in s.server.health("/api/health?node=self")["sessions"]["uuids"]

    with_person.run(scenario())


def test_a_late_report_of_a_media_leg_does_not_end_a_call_that_is_fresh(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            ncco = phone.nccos[0]
            for status in MEDIA_FAILED:
                for _ in range(2):
                    flow(await tell_of_media(s, ncco, status))
            await asyncio.sleep(1.5)
            assert phone.media.open
            heard_s = time.monotonic()
            conn = await s.connection_of(phone)
            await conn.caller_said("Are you still there?")
            await phone.wait_for_voice(since_s=heard_s)
        assert s.violations() == []

    shared.run(scenario())


def test_reports_of_the_media_leg_that_are_no_failure_get_204(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            for status in ("started", "ringing", "answered", "completed", "levitating"):
                reply = await tell_of_media(s, phone.nccos[0], status)
                assert (reply.status, reply.body) == (204, b"")
            await asyncio.sleep(1.0)
            assert phone.media.open
        assert s.violations() == []

    shared.run(scenario())


def test_a_media_leg_of_an_unknown_call_still_gets_words(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        ncco = [
            {
                "endpoint": [
                    {
                        "uri": "ws://127.0.0.1:1/media/nobody",
                        "headers": {"call_uuid": "nobody-knows-me"},
                    }
                ]
            }
        ]
        for status in MEDIA_FAILED:
            for _ in range(2):
                apologises(await tell_of_media(s, ncco, status))
            # Without our header, recognised by where it leads.
            bare = {**call_payload(str(uuid.uuid4())), "to": "wss://example.com/media/x"}
            url = f"{s.server.url}{EVENT}"
            apologises(await s.vonage.forge(url, {**bare, "status": status, "headers": {}}))

    shared.run(scenario())


def test_after_the_call_the_media_leg_gets_a_goodbye_or_an_apology(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
        await rows.ended(phone.uuid)
        said = [flow(await tell_of_media(s, phone.nccos[0], "disconnected")) for _ in range(3)]
        assert said[0] == said[1] == said[2]
        assert said[0][0]["action"] == "talk"

    shared.run(scenario())


def test_a_socket_that_never_opens_ends_in_words_and_not_in_silence(with_person: Shared) -> None:
    s, rows = with_person.stage, Rows.of(with_person.stage.server)

    async def scenario() -> None:
        async with s.call(faults=Faults(socket_never_opens=True)) as phone:
            await phone.wait_for_talk()
            await eventually("the person", lambda: bool(phone.connected_to))
            phone.person_hangs_up()
            await phone.wait_ended()
        row = await rows.ended(phone.uuid)
        assert row["end_reason"] in ("media_lost", "media_never_opened")
        assert s.violations() == []

    with_person.run(scenario())


def test_a_cut_media_connection_is_made_again_the_same_at_every_delivery(
    with_person: Shared,
) -> None:
    s, rows = with_person.stage, Rows.of(with_person.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            phone.cut_media()
            (told,) = await eventually("the report", lambda: phone.events("disconnected"))
            first = flow(told)
            assert [action["action"] for action in first] == ["talk", "connect"]
            assert media_uri(first) != media_uri(phone.nccos[0])
            again = await tell_of_media(
                s, phone.nccos[0], "disconnected", leg=str(told.payload["uuid"])
            )
            assert again.body == told.body
            await eventually("the second socket", lambda: len(phone.media_legs) == 2)
            await phone.wait_connected()
            await phone.wait_for_voice()
            # A delivery that comes as late as this one disturbs nobody.
            flow(await tell_of_media(s, first, "disconnected", leg=str(told.payload["uuid"])))
            await asyncio.sleep(1.2)
            assert phone.media.open and len(phone.media_legs) == 2
        assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"
        assert not phone.connected_to and s.violations() == []

    with_person.run(scenario())


def test_a_caller_who_is_connected_again_and_whose_socket_does_not_come_gets_his_person(
    with_person: Shared,
) -> None:
    s, rows = with_person.stage, Rows.of(with_person.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            phone.faults = replace(phone.faults, socket_never_opens=True)
            phone.cut_media()
            await eventually("the person", lambda: bool(phone.connected_to), 15.0)
            phone.person_hangs_up()
            await phone.wait_ended()
        row = await rows.ended(phone.uuid)
        assert row["end_reason"] in ("transferred", "media_never_opened")
        assert s.violations() == []

    with_person.run(scenario())


def test_the_old_media_leg_of_a_renewed_call_may_report_late(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            old = phone.nccos[0]
            first = phone.media
            await phone.redial()
            await eventually("the second socket", lambda: phone.media is not first)
            await phone.wait_connected()
            flow(await tell_of_media(s, old, "disconnected"))
            await asyncio.sleep(1.2)
            assert phone.media.open
            assert phone.media.uri != media_uri(old)
        assert s.violations() == []

    shared.run(scenario())
