"""The answer webhook: whatever comes in, a caller gets a flow, and a call is taken in once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.media_leg import Faults
from tests.fakes.stage import Stage, stage
from tests.fakes.waiting import eventually
from tests.fakes.webhooks import Method
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
)

ANSWER = "/webhooks/vonage/answer"


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


# ---------------------------------------------------------------------- what cannot be read


def _nested(depth: int) -> bytes:
    deep = "[" * depth + "]" * depth
    return f'{{"uuid": "nested", "custom_data": {deep}}}'.encode()


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no body": (b"", "JSON"),
    "half an object": (b'{"uuid": "a', "JSON"),
    "not UTF-8": (b'{"uuid": "\xff\xfe"}', "JSON"),
    "an array": (b'[{"uuid": "abc"}]', "list"),
    "a text": (b'"abc"', "str"),
    "null": (b"null", "NoneType"),
    "a number too long to be read": (b'{"uuid": ' + b"9" * 6000 + b"}", "JSON"),
    "brackets without end": (_nested(50_000), "JSON"),
    "no uuid": (b'{"from": "447700900123"}', "uuid"),
    "an empty uuid": (b'{"uuid": ""}', "uuid"),
    "a uuid that is null": (b'{"uuid": null}', "uuid"),
    "a uuid that is a number": (b'{"uuid": 12}', "uuid"),
    "a uuid that is a list": (b'{"uuid": ["a"]}', "uuid"),
    "a uuid of 5000 letters": (b'{"uuid": "' + b"u" * 5000 + b'"}', "uuid"),
    "a uuid with a line break": (b'{"uuid": "a\\nb"}', "uuid"),
    "a uuid with a zero byte": (b'{"uuid": "a\\u0000b"}', "uuid"),
    "a uuid of half a letter": (b'{"uuid": "\\ud800"}', "uuid"),
    "a uuid with spaces": (b'{"uuid": "a b"}', "uuid"),
    "a form": (b"uuid=abc&from=447700900123", "JSON"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_gets_400_that_says_why(shared: Shared, name: str) -> None:
    body, named = UNREADABLE[name]
    rows = Rows.of(shared.stage.server)
    before = rows.count()

    reply = shared.run(send(shared.stage, ANSWER, body))

    assert reply.status_code == 400, (reply.status_code, reply.text[:200])
    assert named in reply.json()["error"], reply.text
    assert len(reply.text) < 1000
    assert rows.count() == before


def test_a_get_without_uuid_gets_400(shared: Shared) -> None:
    reply = shared.run(send(shared.stage, f"{ANSWER}?from=447700900123", method="GET"))

    assert reply.status_code == 400
    assert "uuid" in reply.json()["error"]


def test_a_huge_body_is_refused_and_the_server_lives_on(shared: Shared) -> None:
    s, call_uuid = shared.stage, new_uuid()
    body = json.dumps({**call_payload(call_uuid), "custom_data": "x" * 3_000_000}).encode()

    async def scenario() -> None:
        for path in (ANSWER, "/webhooks/vonage/event", "/webhooks/vonage/fallback"):
            reply = await send(s, path, body)
            assert reply.status_code in (400, 413), reply.status_code
        assert not Rows.of(s.server).knows(call_uuid)
        # Large, and of a size that SIP headers and custom data may well have.
        fair: dict[str, Any] = {"custom_data": "x" * 100_000, "SipHeader_X-Note": "y" * 10_000}
        connects(await ask_answer(s, call_uuid, "POST", **fair))
        await hang_up(s, call_uuid)

    shared.run(scenario())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_other_methods_get_405(shared: Shared, method: str) -> None:
    for path in (ANSWER, "/webhooks/vonage/event", "/webhooks/vonage/fallback"):
        reply = shared.run(send(shared.stage, path, b'{"uuid": "a"}', method=method))

        assert reply.status_code == 405
        assert reply.headers["allow"] == "GET, POST"


# ---------------------------------------------------------------------- who calls

CALLERS: dict[str, dict[str, Any]] = {
    "a number": {"from": "447700900123"},
    "a number with a plus": {"from": "+447700900123"},
    "withheld, missing": {"from": None},
    "withheld, empty": {"from": ""},
    "withheld, anonymous": {"from": "anonymous"},
    "withheld, unknown": {"from": "Unknown"},
    "a SIP address": {"from": "sip:alice@example.com", "endpoint_type": "sip"},
    "a long SIP address": {
        "from": f"sip:{'a' * 150}@example.com;user=phone",
        "endpoint_type": "sip",
        "SipHeader_X-Account": "12",
        "SipHeader_User-to-User": "1234abcd;encoding=hex",
    },
    "an app user": {
        "from": None,
        "from_user": "alice",
        "endpoint_type": "app",
        "custom_data": '{"order": 12}',
    },
    "letters of all kinds": {"from": "Zoë \U0001f4de علي"},
    "fields from the future": {"quantum": "yes", "endpoint_type": "hologram"},
    "a called number with a plus": {"to": f"+{CALLED}"},
    "a called SIP address": {"to": "sip:" + "reception" * 30 + "@example.com"},
    "no called number": {"to": None},
    "a conversation with a long name": {"conversation_uuid": "CON-" + "c" * 400},
    "a region with a long name": {"region_url": f"https://{'r' * 60}.vonage.com/{'p' * 180}"},
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", CALLERS)
def test_whoever_calls_is_connected_and_has_a_row(
    shared: Shared, name: str, method: Method
) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    reply = shared.run(ask_answer(s, call_uuid, method, **CALLERS[name]))

    connects(reply)
    assert rows.call(call_uuid)["agent_name"] == "Receptionist"
    shared.run(hang_up(s, call_uuid))


def test_values_of_other_types_than_announced_do_no_harm(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        for odd in (None, 12, True, ["a"], {"a": 1}, 1e300):
            call_uuid = new_uuid()
            body = {
                "uuid": call_uuid, "from": odd, "to": odd, "conversation_uuid": odd,
                "region_url": odd, "endpoint_type": odd, "from_user": odd, "custom_data": odd,
            }  # fmt: skip
            reply = await send(s, ANSWER, json.dumps(body).encode())
            assert reply.status_code == 200, reply.text
            assert reply.json()[0]["action"] == "connect"
            await hang_up(s, call_uuid)

    shared.run(scenario())


def test_signs_that_no_database_takes_still_lead_to_an_agent(shared: Shared) -> None:
    """A SIP caller chooses what stands in `from`."""
    s = shared.stage

    async def scenario() -> None:
        for odd in ("447700\u0000900123", "\ud800", "a\r\nb", "\u202e123"):
            call_uuid = new_uuid()
            body = json.dumps(call_payload(call_uuid, **{"from": odd, "to": odd})).encode()
            reply = await send(s, ANSWER, body)
            assert reply.status_code == 200, reply.text
            assert reply.json()[0]["action"] == "connect", (odd, reply.json())
            assert Rows.of(s.server).knows(call_uuid)
            await hang_up(s, call_uuid)

    shared.run(scenario())


@pytest.mark.parametrize(
    "call_uuid", ["a", "x" * 128, "63f61863-4a51-4f6b-86e1-46edebcf9356", "ü%2e%2f"]
)
def test_a_uuid_is_an_opaque_text(shared: Shared, call_uuid: str) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call(call_uuid=call_uuid) as phone:
            await phone.wait_for_voice()
        assert s.violations() == []
        await Rows.of(s.server).ended(call_uuid)

    shared.run(scenario())


# ---------------------------------------------------------------------- who answers


def test_numbers_lead_to_their_agents_and_all_others_to_the_default_one(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)
    for arguments in (
        ("agent", "Night desk", "--greeting", "Good night.", "--voice", "speechmatics:sarah"),
        ("number", "+44 20 7946 0001", "--agent", "Night desk"),
    ):
        done = s.server.manage(*arguments)
        assert done.returncode == 0, done.stderr

    async def scenario() -> None:
        for called, agent in (
            ("442079460001", "Night desk"),
            ("+442079460001", "Night desk"),
            ("442079460002", "Receptionist"),
            ("sip:desk@example.com", "Receptionist"),
        ):
            call_uuid = new_uuid()
            connects(await ask_answer(s, call_uuid, to=called))
            assert rows.call(call_uuid)["agent_name"] == agent
            await hang_up(s, call_uuid)

    shared.run(scenario())


def test_without_any_agent_the_caller_hears_an_apology(shared: Shared) -> None:
    s = shared.stage
    assert s.server.manage("agent", "Receptionist", "--no-default").returncode == 0
    try:

        async def scenario() -> None:
            call_uuid = new_uuid()
            first = await ask_answer(s, call_uuid, to="442079460003")
            apologises(first)
            assert (await ask_answer(s, call_uuid, "POST", to="442079460003")).body == first.body
            assert call_uuid not in (await s.server.ahealth())["sessions"]["uuids"]
            async with s.call(called="442079460003") as phone:
                await phone.wait_for_talk()
                await phone.wait_ended()
            assert phone.ended_by == "platform"
            assert s.violations() == []

        shared.run(scenario())
    finally:
        assert s.server.manage("agent", "Receptionist", "--default").returncode == 0


# ---------------------------------------------------------------------- the same call, again


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_twenty_answers_at_once_make_one_call(shared: Shared, method: Method) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()

    async def scenario() -> None:
        before = s.server.active_count()
        replies = await asyncio.gather(
            *(ask_answer(s, call_uuid, method) for _ in range(20)),
        )
        assert len({reply.body for reply in replies}) == 1
        connects(replies[0])
        assert rows.call(call_uuid)["ended_at"] is None
        assert s.server.active_count() == before + 1
        other: Method = "POST" if method == "GET" else "GET"
        assert (await ask_answer(s, call_uuid, other)).body == replies[0].body
        await hang_up(s, call_uuid)
        await rows.ended(call_uuid)
        await eventually("the slot to be free", lambda: s.server.active_count() == before)

    shared.run(scenario())


def test_the_answer_comes_well_within_half_a_second(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        took = []
        for _ in range(10):
            call_uuid = new_uuid()
            took.append((await ask_answer(s, call_uuid)).elapsed_ms)
            await hang_up(s, call_uuid)
        assert sorted(took)[5] < 500, took

    shared.run(scenario())


def test_a_live_call_that_is_answered_again_goes_on_at_the_new_socket(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            first = phone.media
            again = connects(await phone.ask_again())
            assert media_uri(again) != first.uri
            # Nothing happens until the new socket opens, and until then it is the same flow.
            assert media_uri(connects(await phone.ask_again())) == media_uri(again)
            await asyncio.sleep(0.3)
            assert first.open

            phone.replace_flow(again)
            await eventually("the second socket", lambda: phone.media is not first)
            await phone.wait_connected()
            await eventually("the end of the first socket", lambda: not first.open)
            await phone.wait_for_voice(since_s=phone.media.opened_s or 0.0)
            assert (
                s.server.health("/api/health?node=self")["sessions"]["uuids"].count(phone.uuid) == 1
            )
            lines = s.server.lines_of(phone.uuid)
            place = [text for text in lines if "Cleaning up existing session" in text]
            assert len(place) == 1, lines
            # The old one is released before the new one is let in.
            assert any("All resources released".lower() in text.lower() for text in lines)
            third = connects(await phone.ask_again())
            assert media_uri(third) not in (first.uri, media_uri(again))
        row = await rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert s.violations() == []

    shared.run(scenario())


def test_after_the_end_the_same_uuid_gets_an_apology(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
        await rows.ended(phone.uuid)
        before = s.server.active_count()
        first = await ask_answer(s, phone.uuid)
        apologises(first)
        assert (await ask_answer(s, phone.uuid, "POST")).body == first.body
        assert s.server.active_count() == before
        assert rows.call(phone.uuid)["end_reason"] == "caller_hung_up"

    shared.run(scenario())


def test_whoever_hangs_up_before_the_socket_opens_leaves_nothing_behind(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        before = s.server.active_count()
        async with s.call(faults=Faults(socket_delay_s=3.0)) as phone:
            await eventually("the answer", lambda: bool(phone.nccos))
            assert s.server.active_count() == before + 1
            await tell(s, phone.uuid, "completed", price="0.001", duration="0")
            row = await rows.ended(phone.uuid, timeout_s=3)
            assert row["end_reason"] == "caller_hung_up"
            await eventually("the slot", lambda: s.server.active_count() == before)
            # The socket that was under way comes too late.
            assert await phone.knock(media_uri(phone.nccos[0])) == 403
        await eventually("the model's socket", lambda: s.openai.open_sockets == before)

    shared.run(scenario())


# ---------------------------------------------------------------------- when all are busy


@pytest.fixture(scope="module")
def small() -> Iterator[Shared]:
    """A house with room for two calls."""
    with shared_stage(env={"MAX_CONCURRENT_CALLS": "2"}) as running:
        yield running


async def _no_call_is_left(s: Stage) -> None:
    await eventually("the slots", lambda: s.server.active_count() == 0, every_s=0.02)


def test_a_burst_never_takes_more_than_there_is_room_for(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def burst(method: Method) -> None:
        uuids = [new_uuid() for _ in range(10)]
        replies = await asyncio.gather(*(ask_answer(s, each, method) for each in uuids))
        by_uuid = dict(zip(uuids, replies, strict=True))
        taken = [each for each in uuids if flow(by_uuid[each])[0]["action"] == "connect"]
        refused = [each for each in uuids if each not in taken]
        assert len(taken) == 2
        for each, reply in by_uuid.items():
            (connects if each in taken else apologises)(reply)
        assert s.server.active_count() == 2
        for each in refused:
            assert (await rows.ended(each))["end_reason"] == "refused"
        health = await s.server.ahealth()
        assert health["status"] == "degraded" and "full" in health["reasons"]
        assert sorted(health["sessions"]["uuids"]) == sorted(taken)
        # Those who are in get the same again, and so do those who are out.
        assert (await ask_answer(s, taken[0])).body == by_uuid[taken[0]].body
        assert (await ask_answer(s, refused[0])).body == by_uuid[refused[0]].body
        await hang_up(s, *taken)
        await _no_call_is_left(s)
        # Also when there is room again.
        assert (await ask_answer(s, refused[0])).body == by_uuid[refused[0]].body
        assert (await ask_answer(s, refused[1], "POST")).body == by_uuid[refused[1]].body
        assert (await s.server.ahealth())["status"] == "ok"

    async def scenario() -> None:
        for method in ("GET", "POST", "GET"):
            await burst(method)
        assert s.violations() == []

    small.run(scenario())


def test_a_refused_caller_gets_the_same_reply_when_a_slot_has_just_become_free(
    small: Shared,
) -> None:
    """A retry may come in the moment in which somebody else hangs up."""
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        first, second, late = new_uuid(), new_uuid(), new_uuid()
        for each in (first, second):
            connects(await ask_answer(s, each))
        refusal = apologises(await ask_answer(s, late))
        await tell(s, first, "completed")
        await eventually("a slot", lambda: s.server.active_count() == 1, every_s=0.002)
        try:
            again = flow(await ask_answer(s, late))
            assert again == refusal
            assert (await rows.ended(late))["end_reason"] == "refused"
        finally:
            await hang_up(s, first, second, late)
            await _no_call_is_left(s)

    small.run(scenario())


def test_a_full_house_turns_away_whole_calls_and_takes_them_again(small: Shared) -> None:
    s = small.stage

    async def scenario() -> None:
        async with s.call() as one, s.call() as two:
            await asyncio.gather(one.wait_for_voice(), two.wait_for_voice())
            async with s.call() as three:
                await three.wait_for_talk()
                await three.wait_ended()
                assert three.media_legs == []
        await _no_call_is_left(s)
        async with s.call() as four:
            await four.wait_for_voice()
        await _no_call_is_left(s)
        assert s.violations() == []

    small.run(scenario())


def test_a_full_house_with_a_person_puts_the_caller_through() -> None:
    async def scenario() -> None:
        async with stage(env={"MAX_CONCURRENT_CALLS": "1"}) as s:
            told = await s.server.amanage(
                "agent", "Receptionist", "--fallback-number", "+44 7700 900999",
                "--apology", "One moment, I will find somebody.",
            )  # fmt: skip
            assert told.returncode == 0, told.stderr
            busy = new_uuid()
            connects(await ask_answer(s, busy))

            ncco = apologises(await ask_answer(s, late := new_uuid()))
            assert ncco[0]["text"] == "One moment, I will find somebody."
            assert ncco[1]["endpoint"] == [{"type": "phone", "number": "447700900999"}]
            assert ncco[1]["from"] == CALLED
            again = await ask_answer(s, late, "POST")
            assert flow(again) == ncco

            async with s.call() as phone:
                await phone.wait_for_talk("find somebody")
                await eventually("the person", lambda: bool(phone.connected_to))
                assert phone.connected_to == ["447700900999"]
                # What the person's leg reports is not about the call's own leg.
                await asyncio.sleep(0.3)
                phone.person_hangs_up()
                await phone.wait_ended()
            assert s.violations() == []
            await hang_up(s, busy)

    asyncio.run(scenario())
