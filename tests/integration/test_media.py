"""The phone's socket misbehaves, falls silent or breaks: the call goes on or ends well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.fakes.openai import Reply
from tests.fakes.vonage import Faults
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    ONE_MOMENT,
    PROMISE_S,
    VOICES,
    House,
    Voice,
    answered,
    calling,
    clean,
    end_lines,
    expect,
    kinds,
    quiet,
    ring,
    silence_for,
    talking,
    turns,
)

IDLE_S = 2.0
SHORT = Reply(text="Yes, of course.", audio_ms=600)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling({"CALL_IDLE_SECONDS": f"{IDLE_S:g}"}, greeting="Good day.") as house:
        yield house


FRAMES = (b"", b"\1", b"\1" * 639, b"\1" * 641, b"\1" * 320, b"\1" * 960, b"\1" * 60_000)
TEXTS = (
    "not JSON at all",
    "",
    "[]",
    "null",
    "17",
    '"websocket:dtmf"',
    "{}",
    '{"event": null}',
    '{"event": 5}',
    '{"event": "websocket:never:heard:of", "more": [1, 2, 3]}',
    '{"event": "websocket:connected", "content-type": "audio/l16;rate=8000"}',
    '{"event": "websocket:connected"}',
    '{"event": "websocket:cleared"}',
    '{"event": "websocket:notify"}',
    '{"event": "websocket:notify", "payload": {"mark": "m1"}}',
    '{"event": "websocket:notify", "payload": {"mark": ["m1"]}}',
    '{"event": "websocket:notify", "payload": {"of": "somebody else"}}',
    '{"event": "websocket:media:update", "active": "no"}',
    '{"event": "websocket:dtmf", "digit": "12", "duration": 100}',
    '{"event": "websocket:dtmf", "digit": null}',
    '{"event": "websocket:dtmf"}',
    json.dumps({"event": "x" * 20_000}),
    "[" * 4000,
)


@pytest.mark.parametrize("voice", VOICES)
def test_frames_and_texts_that_make_no_sense_change_nothing(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT)
        async with clean(s), talking(s, voice) as talk:
            for _ in range(3):
                for frame in FRAMES:
                    await talk.phone.media.say_bytes(frame)
                for text in TEXTS:
                    await talk.phone.media.say_text(text)
            await talk.hears(1)
            await silence_for(2.0)
            assert talk.conn.got("conversation.item.create")[1:] == []
            await talk.conn.caller_said("Still there?")
            await talk.hears(2)
            assert talk.phone.media.open and talk.phone.talked == []
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        noted = kinds(house.rows, talk.phone.uuid)
        assert "bad_media_frame" in noted
        assert len(noted) < 12, f"told again and again: {noted}"

    house.run(scenario())


def test_a_message_beyond_all_bounds_costs_its_sender_the_socket_and_nobody_else(
    house: House,
) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), talking(s, "openai") as other, talking(s, "openai") as talk:
            await talk.phone.media.say_bytes(b"\0" * 3_000_000)
            assert await talk.phone.wait_for_talk("", 6.0) == ONE_MOMENT
            await eventually("another socket", lambda: len(talk.phone.media_legs) == 2)
            await talk.phone.wait_for_voice(8.0)
            await quiet(other.phone)
            asked_s = time.monotonic()
            await other.conn.caller_said("And I?")
            await other.phone.wait_for_voice(since_s=asked_s)

    house.run(scenario())


@pytest.mark.parametrize(
    "faults",
    [Faults(binary_first=True), Faults(lost_frames=0.4), Faults(duplicate_events=True)],
    ids=["audio before anything else", "four frames of ten are lost", "every event twice"],
)
def test_a_call_on_a_bad_day_is_a_call_all_the_same(house: House, faults: Faults) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT)
        async with clean(s), talking(s, "openai", faults=faults) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Can you hear me?")
            await talk.hears(2)
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_keys_reach_the_model_as_words_once_for_each_burst(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT, SHORT)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            fixed = len(talk.conn.got("conversation.item.create"))
            asked = len(talk.conn.got("response.create"))
            for nth, keys in enumerate(("98765", "#"), start=1):
                for key in keys:
                    await talk.phone.press(key)
                    await silence_for(0.1)
                await talk.hears(1 + nth)
                told = [e["item"] for e in talk.conn.got("conversation.item.create")[fixed:]]
                items = [item for item in told if item["role"] == "user"]
                assert len(items) == nth
                assert keys in items[-1]["content"][0]["text"]
                assert len(talk.conn.got("response.create")) == asked + nth
            assert talk.phone.media.clears_s == [] and talk.conn.errors == {}
        await house.rows.ended(talk.phone.uuid)
        said = [turn.text for turn in turns(house.rows, talk.phone.uuid, "caller")]
        assert said == ["98765", "#"]
        assert not [line.text for line in s.server.log if "98765" in line.text]

    house.run(scenario())


def test_keys_while_the_agent_speaks_do_not_silence_it(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT, greeting_ms=3000)
        async with clean(s), talking(s, "openai") as talk:
            await talk.phone.press("1")
            await talk.hears(1)
            await talk.hears(2)
            first, second = talk.phone.playback.utterances()
            assert abs(first.to_ms - 3000) < 10 and second.start_s >= first.end_s - 0.02
            assert talk.conn.errors == {} and talk.phone.media.clears_s == []

    house.run(scenario())


# ---------------------------------------------------------------------- silence


async def ended_for_silence(house: House, uuid: str, voice: Voice) -> None:
    row = await house.rows.ended(uuid)
    assert row["end_reason"] == "media_silent"
    asked = [r for r in house.stage.vonage.rest if r.path.endswith(uuid)]
    assert [(r.method, dict(r.body)) for r in asked] == [("PUT", {"action": "hangup"})]
    assert end_lines(house.stage.server, uuid, voice) == []


@pytest.mark.parametrize("voice", VOICES)
def test_a_phone_that_never_sends_audio_is_hung_up(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), ring(s, voice, faults=Faults(lost_frames=1.0)) as phone:
            await phone.wait_for_voice()
            await phone.wait_ended(IDLE_S + 6)
            assert phone.ended_by == "platform" and phone.talked == []
            opened_s = phone.media.opened_s
            assert opened_s is not None and phone.hung_up_s is not None
            assert IDLE_S - 0.1 < phone.hung_up_s - opened_s < IDLE_S + 3
        await ended_for_silence(house, phone.uuid, voice)

    house.run(scenario())


def test_the_caller_behind_a_half_open_connection_is_connected_again(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", Reply(text="word " * 99 + "end.", audio_ms=9000))
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me.")
            await talk.hears(2, 200)
            talk.phone.media.freeze()
            # It returns no marks either: the carrier is asked to connect the caller again.
            assert await talk.phone.wait_for_talk(timeout_s=IDLE_S + 6) == ONE_MOMENT
            await eventually("another socket", lambda: len(talk.phone.media_legs) == 2)
            await talk.phone.wait_for_voice(8.0)
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"

    house.run(scenario())


def test_a_muted_phone_is_not_taken_for_a_dead_one_until_it_is_unmuted(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.phone.media.mute()
            await silence_for(IDLE_S + 1.2)
            assert talk.phone.media.open and not talk.phone.over.is_set()
            await talk.phone.media.mute(False)
            await silence_for(0.3)
            asked_s = time.monotonic()
            await talk.conn.caller_said("I am back.")
            await talk.phone.wait_for_voice(since_s=asked_s)
            talk.phone.media.muted = True  # says nothing about it this time
            await talk.phone.wait_ended(IDLE_S + 6)
        await ended_for_silence(house, talk.phone.uuid, "openai")

    house.run(scenario())


# ---------------------------------------------------------------------- breaking


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_whose_line_is_cut_leaves_nothing_behind(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text="word " * 29 + "end.", audio_ms=9000))
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me.")
            await talk.hears(2, 300)
            await talk.phone.abort()
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] in ("media_lost", "caller_hung_up")
        assert end_lines(s.server, talk.phone.uuid, voice) == []
        last = turns(house.rows, talk.phone.uuid, "agent")[-1]
        assert last.interrupted and last.final and len(last.text.split()) < 15

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_media_socket_that_breaks_alone_is_made_anew_and_the_conversation_goes_on(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text="word " * 29 + "end.", audio_ms=9000))
        async with clean(s), talking(s, voice) as talk:
            phone = talk.phone
            await talk.hears(1)
            await talk.conn.caller_said("My name is Ann.")
            await talk.hears(2, 900)
            broken_s = time.monotonic()
            phone.cut_media()
            assert await phone.wait_for_talk() == ONE_MOMENT
            assert time.monotonic() - broken_s < PROMISE_S
            await eventually("another socket", lambda: len(phone.media_legs) == 2)
            opened_s = (await phone.wait_connected()).opened_s or 0.0
            back_s = await answered(phone, opened_s)
            assert phone.playback.longest_silence_s(opened_s, back_s) < PROMISE_S
            conn = s.openai.connections[-1]
            assert conn is not talk.conn
            (greeting, caller, cut) = conn.told[:3]
            assert (greeting, caller) == (("assistant", "Good day."), ("user", "My name is Ann."))
            assert cut[0] == "assistant" and 0 < len(cut[1].split()) < 15, "as far as it was heard"
            await conn.wait_idle()
            await quiet(phone)
            asked_s = time.monotonic()
            await conn.caller_said("And what is my name?")
            await answered(phone, asked_s)
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert [k for k in kinds(house.rows, phone.uuid) if k.startswith("media_")] == [
            "media_broke",
            "media_replaced",
        ]
        said = [turn.text for turn in turns(house.rows, phone.uuid)]
        assert said[:3] == ["Good day.", "My name is Ann.", cut[1]] and said.count("Good day.") == 1
        assert len(phone.events("disconnected")) == 1

    house.run(scenario())


def test_a_line_that_breaks_again_and_again_is_given_up_in_words(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), talking(s, "openai") as talk:
            phone = talk.phone
            await talk.hears(1)
            for legs in (1, 2, 3):
                await eventually("a socket", lambda: len(phone.media_legs) == legs)  # noqa: B023
                await phone.wait_connected()
                await phone.wait_for_voice(8.0)
                phone.cut_media()
            assert "cannot take your call" in await phone.wait_for_talk("Sorry")
            await phone.wait_ended()
        assert phone.talked[:-1] == [ONE_MOMENT, ONE_MOMENT]
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "media_lost"

    house.run(scenario())


def test_a_socket_that_is_never_dialled_gives_its_slot_back(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        faults = Faults(socket_never_opens=True)
        async with clean(s), ring(s, "speechmatics", faults=faults) as phone:
            assert "sorry" in (await phone.wait_for_talk()).lower()
            await phone.wait_ended()
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "media_never_opened"
        await eventually(
            "the removal", lambda: any("removed" in t for t in s.server.lines_of(phone.uuid))
        )
        assert not [t for t in s.server.lines_of(phone.uuid) if "✓ Closed Vonage WebSocket" in t]

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_who_hangs_up_before_the_first_word_leaves_nothing(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        for pause_s in (0.0, 0.02, 0.05, 0.1, 0.2):
            expect(s, voice, updated_delay_s=0.05, handshake_delay_s=0.03)
            async with clean(s), ring(s, voice) as phone:
                await silence_for(pause_s)
                await phone.hang_up()
            if house.rows.knows(phone.uuid):
                await house.rows.ended(phone.uuid)
            s.openai.next_scripts.clear()

    house.run(scenario())
