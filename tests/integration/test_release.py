"""How calls are released: replaced, slow peers, a killed process, a drained one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.fakes import recordings
from tests.fakes.openai import Reply, Script
from tests.fakes.stage import stage
from tests.fakes.vonage import PhoneCall, RestMode
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    ONE_MOMENT,
    PROMISE_S,
    VOICES,
    House,
    Voice,
    calling,
    clean,
    end_lines,
    expect,
    kinds,
    logged_at,
    quiet,
    ring,
    silence_for,
    talking,
)
from tests.integration.support import Rows

GREETING = "Good day."
SHORT = Reply(text="Yes, of course.", audio_ms=600)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        yield house


# ---------------------------------------------------------------------- a second socket


@pytest.mark.parametrize("voice", VOICES)
def test_a_new_socket_of_a_live_call_takes_over_once_the_old_one_is_gone(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice)
        expect(s, voice, SHORT)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            phone, first, first_leg = talk.phone, talk.conn, talk.phone.media
            live = house.rows.call(phone.uuid)
            await phone.redial()
            await eventually("the second socket", lambda: len(phone.media_legs) == 2)
            redialled_s = time.monotonic()
            await phone.wait_connected()
            assert phone.media.uri != first_leg.uri, "the same ticket again"
            await phone.wait_for_voice(8.0, since_s=redialled_s)
            assert not first_leg.open and first_leg.close_code == 1000 and not first.open
            assert [c.open for c in s.openai.connections].count(True) == 1
            assert s.server.active_count() == 1
            second = await s.connection_of(phone)
            await quiet(phone)
            asked_s = time.monotonic()
            await second.caller_said("Hello again?")
            await phone.wait_for_voice(since_s=asked_s)
            row = house.rows.call(phone.uuid)
            assert row["id"] == live["id"] and row["ended_at"] is None
            assert phone.talked == [], "the end of the old leg was apologised for"
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        said = [line.partition("] ")[2] for line in s.server.lines_of(phone.uuid)]
        order = [
            next(i for i, line in enumerate(said) if line.startswith(start))
            for start in (
                "Cleaning up existing session before creating new one",
                "🧹 Starting session cleanup...",
                "✓ Closed OpenAI WebSocket",
                "✓ Closed Vonage WebSocket",
                "✅ Session cleanup completed",
                "Closing and removing session",
                "Session removed. Active sessions: 0",
            )
        ]
        assert order == sorted(order)
        assert sum(line.startswith("🧹") for line in said) == 2
        assert not [line for line in said if "non-existent" in line]

    house.run(scenario())


def test_a_call_may_be_answered_again_many_times(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), ring(s, "openai") as phone:
            await phone.wait_for_voice()
            for nth in range(2, 6):
                redialled_s = time.monotonic()
                await phone.redial()
                await eventually("the next socket", partial(has_legs, phone, nth))
                await phone.wait_for_voice(8.0, since_s=redialled_s)
            assert s.server.active_count() == 1 and phone.talked == []
            open_now = [leg for leg in phone.media_legs if leg.open]
            assert open_now == [phone.media]
            # The legs that it left behind have been reported, and count for nothing.
            await eventually("the reports", lambda: len(phone.events("disconnected")) == 4)
            phone.cut_media()
            assert await phone.wait_for_talk() == ONE_MOMENT
            await eventually("another socket", partial(has_legs, phone, 6))
            await phone.wait_for_voice(8.0)

    house.run(scenario())


def has_legs(phone: PhoneCall, many: int) -> bool:
    return len(phone.media_legs) == many


def test_a_caller_who_hangs_up_while_his_socket_is_replaced_leaves_nothing(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        for pause_s in (0.0, 0.01, 0.03, 0.06):
            async with clean(s), ring(s, "openai") as phone:
                await phone.wait_for_voice()
                redialling = asyncio.create_task(phone.redial())
                await silence_for(pause_s)
                await phone.hang_up()
                await redialling
            await house.rows.ended(phone.uuid)

    house.run(scenario())


def test_a_call_that_ends_while_its_socket_opens_ends_in_words_as_well(house: House) -> None:
    """The model is refused at about the moment at which the phone comes: before, with, after."""

    async def scenario() -> None:
        s = house.stage
        silent: list[int] = []
        async with clean(s):
            for nth in range(60):
                delay_s = nth // 2 % 15 / 1000
                refused = ("model_not_found", 1000)
                behaviour = Script(error_then_close=refused, handshake_delay_s=delay_s)
                if nth % 4 == 0:
                    # Five failures in a row, and nobody would be taken in.
                    async with ring(s, "openai") as phone:
                        await phone.wait_for_voice()
                s.openai.next_scripts.append(behaviour)
                async with ring(s, VOICES[nth % 2]) as phone:
                    try:
                        await eventually("words", partial(is_told, phone), PROMISE_S, every_s=0.05)
                    except AssertionError:
                        silent.append(nth)
                        if len(silent) > 2:
                            break
        assert not silent, "callers listened to an open socket that nobody served"

    house.run(scenario())


def is_told(phone: PhoneCall) -> bool:
    """He hears why nobody answers him: from the carrier, or on his socket."""
    return bool(phone.talked) or (
        bool(phone.media_legs) and bool(recordings.heard(phone.playback, "apology"))
    )


# ---------------------------------------------------------------------- peers that hang


@pytest.mark.parametrize("mode", [RestMode.SLOW, RestMode.BROKEN, RestMode.UNKNOWN_LEGS])
def test_a_carrier_that_does_not_hang_up_is_left_and_the_caller_bid_goodbye(
    house: House, mode: RestMode
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT)
        try:
            s.vonage.mode = mode
            async with clean(s), talking(s, "openai") as talk:
                await talk.hears(1)
                await talk.conn.call_tool("end_call", {}, say="Goodbye.")
                await talk.hears(2)
                await talk.phone.wait_for_talk("", 8.0)
                await talk.phone.wait_ended()
                uuid = talk.phone.uuid
                heard_s = talk.phone.playback.utterances()[-1].end_s
                assert talk.phone.hung_up_s is not None
                print(f"{mode}: over {talk.phone.hung_up_s - heard_s:.1f} s after the goodbye")
                assert talk.phone.hung_up_s - heard_s < 4
                assert not any("sorry" in text.lower() for text in talk.phone.talked)
        finally:
            s.vonage.mode = RestMode.GOOD
        row = await house.rows.ended(uuid)
        assert row["end_reason"] == "agent_ended"
        took_s = logged_at(s.server, uuid, "Session removed") - logged_at(s.server, uuid, "🧹")
        assert took_s < 2.5
        assert end_lines(s.server, uuid, "openai") == []

    house.run(scenario())


def test_a_carrier_that_is_busy_for_a_moment_is_asked_again(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        before = len(s.vonage.rest)
        expect(s, "openai", SHORT)
        try:
            s.vonage.mode = RestMode.RATE_LIMITED
            async with clean(s), talking(s, "openai") as talk:
                await talk.hears(1)
                await talk.conn.call_tool("end_call", {}, say="Goodbye.")
                await eventually("the first try", lambda: len(s.vonage.rest) > before, 8.0)
                s.vonage.mode = RestMode.GOOD
                await talk.phone.wait_ended()
                statuses = [r.status for r in s.vonage.rest[before:]]
                print(f"statuses {statuses}, talked {talk.phone.talked}")
                assert statuses[0] == 429 and statuses[-1] == 204
                assert talk.phone.talked == []
        finally:
            s.vonage.mode = RestMode.GOOD

    house.run(scenario())


def test_an_operators_hang_up_ends_the_callers_leg(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            done = await s.server.amanage("hangup", talk.phone.uuid)
            assert done.returncode == 0, done.stderr
            await talk.phone.wait_ended()
            assert talk.phone.ended_by == "platform" and talk.phone.talked == []
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "operator"

    house.run(scenario())


# ---------------------------------------------------------------------- the process ends


def test_a_killed_process_leaves_no_ghost() -> None:
    async def scenario() -> None:
        env = {"HEARTBEAT_SECONDS": "0.5", "LOST_SECONDS": "2"}
        async with stage(env=env) as s:
            rows = Rows.of(s.server)
            async with s.call() as phone, s.call() as other:
                await phone.wait_for_voice()
                await other.wait_for_voice()
                await eventually(
                    "both rows live",
                    lambda: {rows.call(p.uuid)["state"] for p in (phone, other)} == {30},
                )
                s.server.kill()
                await eventually("the model left alone", lambda: not s.openai.open_sockets)
                await asyncio.to_thread(s.server.restart)
                for each in (phone, other):
                    row = await rows.ended(each.uuid, 8.0)
                    assert row["end_reason"] == "lost"
            async with s.call() as phone:
                await phone.wait_for_voice()
                listed = await s.server.amanage("sessions", "--json")
                assert [row["uuid"] for row in json.loads(listed.stdout)] == [phone.uuid]
            row = await rows.ended(phone.uuid)
            assert row["end_reason"] == "caller_hung_up"
            assert "media_replaced" not in kinds(rows, phone.uuid)

    asyncio.run(scenario())
