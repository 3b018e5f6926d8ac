"""The model's service misbehaves in every way it knows: the caller hears words, never silence."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.openai import RealtimeConnection, Refusal, Reply, Script
from tests.fakes.pattern import decode, voice_pcm
from tests.fakes.recordings import heard
from tests.fakes.stage import Stage
from tests.fakes.vonage import PhoneCall
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    PROMISE_S,
    VOICES,
    House,
    Voice,
    answered,
    apologised,
    calling,
    clean,
    expect,
    hears,
    kinds,
    logged_at,
    noises,
    quiet,
    ring,
    silence_for,
    talking,
    turns,
    usage,
)
from tests.integration.support import model_is_up

GREETING = "Good day."
SHORT = Reply(text="Yes, of course.", audio_ms=600)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        yield house


@pytest.fixture(autouse=True)
def _one_test_is_nothing_to_the_next(house: House) -> None:
    """Neither what was scripted and not used, nor calls that could not reach the model."""
    house.stage.openai.next_scripts.clear()
    house.stage.speechmatics.replies.clear()
    house.run(model_is_up(house.stage))


async def goes_on(s: Stage, phone: PhoneCall, conn: RealtimeConnection) -> None:
    """The conversation works: a question is answered aloud."""
    await quiet(phone)
    asked_s = time.monotonic()
    await conn.caller_said("Does it work?")
    await answered(phone, asked_s)


async def replaced(s: Stage, former: RealtimeConnection) -> RealtimeConnection:
    """The session that took over from this one, which was let go."""
    conn = await s.openai.connection(former.index + 2)
    await conn.wait_configured()
    await former.wait_closed()
    assert s.openai.open_sockets == 1
    return conn


# ---------------------------------------------------------------------- opening


def test_a_handshake_refused_twice_is_tried_a_third_time(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        before = s.openai.refused
        s.openai.next_scripts += [Script(refuse=Refusal(503, "server_error"))] * 2
        async with clean(s), ring(s, "openai") as phone:
            await phone.wait_for_voice(8.0)
            assert s.openai.refused == before + 2
            await goes_on(s, phone, await s.connection_of(phone))
            assert phone.talked == []

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize(
    "refusal",
    [Refusal(401, "invalid_api_key"), Refusal(429, "insufficient_quota")],
    ids=lambda refusal: refusal.code,
)
def test_what_trying_again_cannot_help_is_tried_once_and_told_in_words(
    house: House, voice: Voice, refusal: Refusal
) -> None:
    async def scenario() -> None:
        s = house.stage
        before = s.openai.refused
        s.openai.next_scripts.append(Script(refuse=refusal))
        async with clean(s):
            async with ring(s, voice) as phone:
                await apologised(house, phone)
                assert s.openai.refused == before + 1
                assert silent_s(phone) < PROMISE_S
            health = await s.server.ahealth()
            assert health["status"] == "degraded" and not health["checks"]["provider"]["ok"]
            assert "provider_lost" in kinds(house.rows, phone.uuid)
            async with ring(s, voice) as phone:
                await phone.wait_for_voice()
            assert (await s.server.ahealth())["checks"]["provider"]["ok"]

    house.run(scenario())


def test_a_service_that_refuses_for_good_is_given_up_after_three_tries(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        before = s.openai.refused
        s.openai.next_scripts += [Script(refuse=Refusal(503, "server_error"))] * 3
        async with clean(s):
            async with ring(s, "openai") as phone:
                await apologised(house, phone)
                assert s.openai.refused == before + 3 and silent_s(phone) < PROMISE_S
            assert not s.openai.next_scripts

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_service_that_never_says_a_word_keeps_nobody_in_silence(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        s.openai.next_scripts += [Script(hang=True)] * 3
        async with clean(s):
            async with ring(s, voice) as phone:
                await apologised(house, phone)
                if voice == "openai":
                    # A caller who has been greeted is waited for, and waits for nothing.
                    assert silent_s(phone) < PROMISE_S
                    for phrase in ("one_moment", "still_here"):
                        assert heard(phone.playback, phrase), phrase
                assert noises(phone) == 0
            s.openai.next_scripts.clear()
        assert kinds(house.rows, phone.uuid).count("provider_lost") == 1
        greetings = [t for t in turns(house.rows, phone.uuid, "agent") if t.text == GREETING]
        assert len(greetings) == (voice == "speechmatics"), "only the other voice needs no model"

    house.run(scenario())


def silent_s(phone: PhoneCall) -> float:
    """The longest silence that the caller listened to, from the opening of his socket to the end of
    the call; he himself said nothing.
    """
    media = phone.media_legs[-1] if phone.media_legs else None
    assert phone.hung_up_s is not None
    if media is None or media.opened_s is None:
        return phone.hung_up_s - phone.started_s
    return media.playback.longest_silence_s(media.opened_s, phone.hung_up_s)


@pytest.mark.parametrize(
    "script",
    [
        Script(error_then_close=("invalid_api_key", 3000)),
        Script(error_then_close=("model_not_found", 1000)),
        Script(update_error="invalid_value"),
    ],
    ids=["key refused after 101", "no such model", "session.update refused"],
)
def test_an_error_before_the_session_is_ready_ends_the_call_in_words(
    house: House, script: Script
) -> None:
    async def scenario() -> None:
        s = house.stage
        s.openai.next_scripts.append(script)
        async with clean(s):
            async with ring(s, "openai") as phone:
                await apologised(house, phone)
                assert silent_s(phone) < PROMISE_S
            retries = [line for line in s.server.lines_of(phone.uuid) if "attempt" in line]
            assert retries == [], "it cannot be mended by trying again"

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_what_the_caller_says_before_the_model_is_ready_reaches_it(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, updated_delay_s=1.2)
        async with clean(s), ring(s, voice) as phone:
            media = await phone.wait_connected()
            media.speak(voice_pcm(9, 0, 600, media.rate))
            conn = await s.openai.connection(len(s.openai.connections))
            await conn.wait_configured()
            await eventually("the caller's audio", lambda: conn.audio_in_ms)
            early_ms = conn.audio_in_ms
            first = bytes(conn.audio_in)
            frames = [first[at : at + 2400] for at in range(0, len(first) - 2400, 2400)]
            words = [h for f in frames if (h := decode(f, 24_000)) and h.voice == 9]
            assert early_ms >= 900, f"{early_ms:.0f} ms of 1200 came"
            assert len(words) >= 10, "the first words were lost"
            await phone.wait_for_voice()
            # Nothing lags behind for the rest of the call.
            opened_s = media.opened_s
            assert opened_s is not None
            await silence_for(0.5)
            assert conn.audio_in_ms >= (time.monotonic() - opened_s) * 1000 - 300

    house.run(scenario())


# ---------------------------------------------------------------------- breaking off

BREAKS: dict[str, Callable[[RealtimeConnection], Any]] = {
    "1011": lambda conn: conn.close(1011, "keepalive ping timeout"),
    "1001": lambda conn: conn.close(1001, "going away"),
    "session_expired": lambda conn: expires(conn),
    "abort": lambda conn: aborts(conn),
}


async def aborts(conn: RealtimeConnection) -> None:
    conn.abort()


async def expires(conn: RealtimeConnection) -> None:
    await conn.error("session_expired")
    await conn.close(1001)


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("how", BREAKS)
def test_a_model_lost_in_the_middle_of_a_call_is_replaced_by_one_that_knows_it(
    house: House, how: str, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("My name is Ann.")
            await talk.hears(2)
            before = len(talk.phone.playback.utterances())
            await BREAKS[how](talk.conn)
            conn = await replaced(s, talk.conn)
            what_was_heard = [
                ("assistant", GREETING),
                ("user", "My name is Ann."),
                ("assistant", SHORT.text),
            ]
            await eventually("the conversation so far", lambda: conn.told == what_was_heard)
            # The agent waits for the caller: nothing is owed, so nothing is asked for or said.
            await silence_for(0.5)
            assert conn.got("response.create") == []
            assert len(talk.phone.playback.utterances()) == before
            asked_s = time.monotonic()
            await conn.caller_said("And what is my name?")
            heard_s = await answered(talk.phone, asked_s)
            assert talk.phone.playback.longest_silence_s(asked_s, heard_s) < PROMISE_S
            await conn.wait_idle()
            await quiet(talk.phone)
            assert conn.told == what_was_heard and conn.errors == {} and talk.phone.talked == []
            assert noises(talk.phone) == 0
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert kinds(house.rows, talk.phone.uuid).count("provider_lost") == 1
        said = turns(house.rows, talk.phone.uuid)
        assert [(turn.speaker, turn.text) for turn in said[:4]] == [
            ("agent", GREETING),
            ("caller", "My name is Ann."),
            ("agent", SHORT.text),
            ("caller", "And what is my name?"),
        ]
        assert len(said) == 5 and not any(turn.interrupted for turn in said)

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_model_whose_money_has_run_out_is_not_tried_again(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            before = len(s.openai.connections) + s.openai.refused
            lost_s = time.monotonic()
            await talk.conn.error("insufficient_quota")
            await apologised(house, talk.phone)
            assert len(s.openai.connections) + s.openai.refused == before
            assert talk.phone.hung_up_s is not None
            silent = talk.phone.playback.longest_silence_s(lost_s, talk.phone.hung_up_s)
            assert silent < PROMISE_S
            assert talk.phone.events("disconnected") == []

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_what_the_model_said_before_it_was_lost_is_heard_to_its_end(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        answer = Reply(text="word " * 9 + "end.", audio_ms=3000)
        expect(s, voice, answer, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me.")
            await talk.hears(2, 300)
            await talk.conn.wait_idle()
            await eventually("its sound", lambda: not s.speechmatics.in_flight)
            await talk.conn.close(1011)
            conn = await replaced(s, talk.conn)
            sound = talk.sounds()[1]
            await hears(talk.phone, sound.voice, sound.audio_ms - 30)
            await quiet(talk.phone)
            assert conn.got("response.create") == [], "it had been said"
            assert conn.told[-1] == ("assistant", answer.text)
            await goes_on(s, talk.phone, conn)
        await house.rows.ended(talk.phone.uuid)
        said = [turn.text for turn in turns(house.rows, talk.phone.uuid, "agent")]
        assert said[:2] == [GREETING, answer.text] and said.count(GREETING) == 1

    house.run(scenario())


def test_a_question_that_was_being_answered_when_the_model_was_lost_is_answered(
    house: House,
) -> None:
    """What was heard of the answer is told to the next session, which goes on from there."""

    async def scenario() -> None:
        s = house.stage
        text = " ".join(f"word{number}" for number in range(20))
        # As fast as it is heard, so that most of it has not come yet when the session breaks.
        slow = Reply(text=text, audio_ms=8000, burst_ms=8000)
        expect(s, "openai", slow, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me.")
            sound = await talk.hears(2, 1500)
            await talk.conn.close(1011)
            lost_s = time.monotonic()
            conn = await replaced(s, talk.conn)
            await conn.wait_for("response.create")
            await conn.wait_idle()
            await hears(talk.phone, conn.spoken[0].voice or 0, conn.spoken[0].audio_ms - 30)
            end_s = time.monotonic()
            assert talk.phone.playback.longest_silence_s(lost_s, end_s) < PROMISE_S
            assert len(conn.got("response.create")) == 1
            role, told = conn.told[-1]
            assert role == "assistant" and text.startswith(told)
            # As many words as fit into what was heard, and not one more.
            assert 1 <= len(told.split()) <= talk.heard_ms(sound) / (8000 / 20), told
            assert noises(talk.phone) == 0
        await house.rows.ended(talk.phone.uuid)
        said = turns(house.rows, talk.phone.uuid, "agent")
        assert [turn.text for turn in said[:2]] == [GREETING, told] and said[1].interrupted

    house.run(scenario())


def test_the_service_away_in_the_middle_of_a_call_and_back_again(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s):
            async with talking(s, "openai") as talk:
                await talk.hears(1)
                await s.openai.stop()
                try:
                    await apologised(house, talk.phone)
                    async with ring(s, "openai") as phone:
                        await apologised(house, phone)
                finally:
                    await s.openai.start()
            async with talking(s, "openai") as talk:
                await talk.hears(1)

    house.run(scenario())


def test_a_service_that_was_away_for_a_second_was_not_missed(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await s.openai.stop()
            s.openai.next_scripts.append(Script(refuse=Refusal(503, "server_error")))
            await s.openai.start()
            conn = await replaced(s, talk.conn)
            await goes_on(s, talk.phone, conn)
            assert talk.phone.talked == []

    house.run(scenario())


# ---------------------------------------------------------------------- responses


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("purpose", ["greeting", "answer"])
def test_a_response_that_failed_is_asked_for_again(
    house: House, voice: Voice, purpose: str
) -> None:
    async def scenario() -> None:
        s = house.stage
        failed = Reply(status="failed", code="inference_rate_limit_exceeded")
        if purpose == "greeting" and voice == "openai":
            s.openai.next_scripts.append(replies(failed, SHORT))
        else:
            expect(s, voice, failed, SHORT)
        async with clean(s), ring(s, voice) as phone:
            await answered(phone, phone.started_s)
            conn = await s.connection_of(phone)
            await quiet(phone)
            before = len(conn.got("response.create"))
            asked_s = time.monotonic()
            if purpose == "answer":
                await conn.caller_said("Hello?")
                await answered(phone, asked_s)
                assert len(conn.got("response.create")) == before + 1
            assert phone.talked == [] and conn.errors == {}
        await house.rows.ended(phone.uuid)
        if purpose == "answer" or voice == "openai":
            assert "response_failed" in kinds(house.rows, phone.uuid)

    house.run(scenario())


def replies(*all_of_them: Reply) -> Script:
    """A connection whose very first response is the first of these."""
    script = Script()
    script.replies.extend(all_of_them)
    return script


@pytest.mark.parametrize("voice", VOICES)
def test_a_response_that_failed_twice_is_asked_of_another_session(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        failed = Reply(status="failed", code="rate_limit_exceeded")
        expect(s, voice, failed, failed)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            before = len(talk.conn.got("response.create"))
            asked_s = time.monotonic()
            await talk.conn.caller_said("Hello?")
            conn = await replaced(s, talk.conn)
            heard_s = await answered(talk.phone, asked_s)
            assert talk.phone.playback.longest_silence_s(asked_s, heard_s) < PROMISE_S
            assert len(talk.conn.got("response.create")) == before + 1
            assert len(conn.got("response.create")) == 1
            assert conn.told == [("assistant", GREETING), ("user", "Hello?")]
            await goes_on(s, talk.phone, conn)
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert kinds(house.rows, talk.phone.uuid).count("response_failed") == 2

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_response_that_fails_in_the_other_session_too_ends_the_call_in_words(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        failed = Reply(status="failed", code="rate_limit_exceeded")
        expect(s, voice, failed, failed)
        s.openai.next_scripts.append(replies(failed))
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            before = len(s.openai.connections)
            asked_s = time.monotonic()
            await talk.conn.caller_said("Hello?")
            await apologised(house, talk.phone)
            assert talk.phone.hung_up_s is not None
            silent = talk.phone.playback.longest_silence_s(asked_s, talk.phone.hung_up_s)
            assert silent < PROMISE_S
            assert len(s.openai.connections) == before + 1, "it was asked of one more session only"
        assert kinds(house.rows, talk.phone.uuid).count("response_failed") == 3

    house.run(scenario())


def test_a_response_that_is_cut_off_by_its_length_is_heard_and_the_call_goes_on(
    house: House,
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", Reply(text="one two three four", status="incomplete", audio_ms=1600))
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Go on.")
            await talk.hears(2, 700)
            await silence_for(0.5)
            await goes_on(s, talk.phone, talk.conn)
            assert talk.phone.talked == []
        await house.rows.ended(talk.phone.uuid)
        assert "response_incomplete" in kinds(house.rows, talk.phone.uuid)

    house.run(scenario())


def test_an_empty_response_is_not_taken_for_an_answer(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await quiet(talk.phone)
            asked_s = time.monotonic()
            create_no_responses(talk.conn)
            await talk.conn.caller_said("Hello?")
            talk.conn.begin(Reply(), {}, silent=True)
            await answered(talk.phone, asked_s)
            assert talk.phone.talked == []

    house.run(scenario())


def create_no_responses(conn: RealtimeConnection) -> None:
    """From now on the model's service leaves turns unanswered, whatever it was told."""
    conn.session["audio"]["input"]["turn_detection"]["create_response"] = False


def test_an_answer_that_does_not_come_is_asked_for_again(house: House) -> None:
    """Not begun, begun without a sound, or broken off in the middle: all at the same time."""

    async def scenario() -> None:
        s = house.stage
        text = "This is a sentence. And this is another one which never comes to its end."
        half: dict[Voice, Reply] = {
            "openai": Reply(text="one two three four", audio_ms=1600, stall=True),
            "speechmatics": Reply(text=text, stall=True),
        }

        async def stuck(how: str, voice: Voice) -> None:
            async with ring(s, voice) as phone:
                await phone.wait_for_voice()
                conn = await s.connection_of(phone)
                await quiet(phone)
                if how != "half of it":
                    create_no_responses(conn)
                asked_s = time.monotonic()
                await conn.caller_said("Hello?")
                if how == "half of it":
                    await answered(phone, asked_s)
                    await quiet(phone)
                elif how == "created only":
                    conn.begin(Reply(stall=True), {}, silent=True)
                stuck_s = time.monotonic()
                heard_s = await answered(phone, stuck_s, 18.0)
                silent_s = phone.playback.longest_silence_s(stuck_s, heard_s)
                print(f"{how}, {voice}: answered after {heard_s - stuck_s:.1f} s")
                assert silent_s < PROMISE_S, f"{how}, {voice}: {silent_s:.1f} s of silence"
                assert heard(phone.playback, "one_moment") and noises(phone) == 0
                assert phone.talked == [] and conn.errors == {}
                # A model that does not even begin is let go; one that does is asked once more.
                assert conn.open is (how != "none")

        async with clean(s), asyncio.TaskGroup() as calls:
            for how in ("none", "created only", "half of it"):
                for voice in VOICES:
                    expect(s, voice, *([half[voice]] if how == "half of it" else []))
                    calls.create_task(stuck(how, voice))
                    await s.openai.connection(len(s.openai.connections) + 1)

    house.run(scenario())


def test_a_busy_model_is_not_besieged(house: House) -> None:
    """Its answer is on its way but has not been announced when a pressed key wants another."""

    async def scenario() -> None:
        s = house.stage
        slow = Reply(text="At last.", audio_ms=400, created_delay_s=2.5)
        expect(s, "openai", slow, SHORT)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.phone.press("7")
            await silence_for(0.3)
            await talk.conn.caller_said("Hello?")
            await talk.hears(2)
            await talk.hears(3)
            busy = talk.conn.errors["conversation_already_has_active_response"]
            print(f"refused as busy {busy} times")
            assert busy <= 12
            assert set(talk.conn.errors) <= {"conversation_already_has_active_response"}

    house.run(scenario())


def test_usage_is_summed_over_every_response_the_cancelled_ones_included(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        slow = Reply(text="word " * 29 + "end.", audio_ms=6000, burst_ms=4000)
        expect(s, "openai", slow, SHORT, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("One.")
            await talk.hears(2, 500)
            await talk.conn.caller_said("Two.")
            await talk.hears(3)
            await silence_for(0.2)
        row = await house.rows.ended(talk.phone.uuid)
        done = [e.event["response"] for e in talk.conn.sent if e.type == "response.done"]
        assert [r["status"] for r in done] == ["completed", "cancelled", "completed"]
        spent = usage(row)
        assert spent["responses"] == 3 and spent["transcriptions"] == 2
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            assert spent[name] == sum(r["usage"][name] for r in done)
        cached = sum(r["usage"]["input_token_details"]["cached_tokens"] for r in done)
        assert cached in spent.values()

    house.run(scenario())


# ---------------------------------------------------------------------- what comes in

GARBAGE: list[str | bytes] = [
    "this is no JSON",
    "[]",
    "null",
    '"text"',
    '{"type": 5}',
    "{}",
    b"\x00\x01\x02",
    '{"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": "%%"}',
    '{"type": "response.output_audio.delta", "response_id": "r", "item_id": null, "delta": "AA=="}',
    '{"type": "response.output_audio_transcript.delta"}',
    '{"type": "response.created", "response": null}',
    '{"type": "response.done", "response": {"id": "resp_nobody", "status": "in a mood"}}',
    '{"type": "response.output_item.done", "response_id": "r", "item": {"type": "function_call"}}',
    '{"type": "conversation.item.input_audio_transcription.completed", "item_id": "nobody"}',
    '{"type": "input_audio_buffer.speech_stopped", "item_id": "nobody", "audio_end_ms": -5}',
    '{"type": "error", "error": "a text"}',
    '{"type": "error", "error": {"type": null, "code": null, "message": null}}',
    '{"type": "error"}',
    json.dumps({"type": "session.mystery", "depth": {"of": ["things"] * 50}}),
    '{"type": "a" ' + " " * 100_000 + "}",
    "[" * 5000 + "]" * 5000,
]


@pytest.mark.parametrize("voice", VOICES)
def test_garbage_and_unknown_events_change_nothing(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, unknown_events=True)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            for message in GARBAGE:
                await talk.conn.send_raw(message)
            for code in ("item_truncate_invalid_item_id", "response_cancel_not_active", "whatever"):
                await talk.conn.error(code)
            await goes_on(s, talk.phone, talk.conn)
            await talk.conn.wait_idle()
            await silence_for(0.5)
            assert talk.phone.talked == [] and talk.phone.media.open
            assert talk.conn.errors == {}
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        noted = kinds(house.rows, talk.phone.uuid)
        assert "provider_unknown_event" in noted and "provider_garbage" in noted
        assert len(noted) < 20, "garbage fills the row"

    house.run(scenario())


def test_words_that_come_late_out_of_order_or_never_stand_where_they_were_said(
    house: House,
) -> None:
    async def scenario() -> None:
        s = house.stage
        script = expect(s, "openai", SHORT, SHORT, SHORT, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            script.transcription_delay_s = 3.0
            await talk.conn.caller_said("First.")
            await talk.hears(2)
            script.transcription_delay_s = 0.1
            await talk.conn.caller_said("Second.")
            await talk.hears(3)
            await talk.conn.caller_said("mumble", transcription_fails=True)
            await talk.hears(4)
            await silence_for(2.0)
        await house.rows.ended(talk.phone.uuid)
        said = [(turn.speaker, turn.text) for turn in turns(house.rows, talk.phone.uuid)]
        assert said == [
            ("agent", GREETING),
            ("caller", "First."),
            ("agent", SHORT.text),
            ("caller", "Second."),
            ("agent", SHORT.text),
            ("caller", ""),
            ("agent", SHORT.text),
        ]
        assert all(turn.final for turn in turns(house.rows, talk.phone.uuid))
        assert "transcription_failed" in kinds(house.rows, talk.phone.uuid)

    house.run(scenario())


def test_a_tool_that_does_not_exist_is_answered_once_and_the_talk_goes_on(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", SHORT)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            for arguments in ("{}", "not json at all"):
                asked_s = time.monotonic()
                call_id = await talk.conn.call_tool("open_the_safe", arguments)
                assert "error" in json.loads(await talk.conn.tool_output(call_id))
                await answered(talk.phone, asked_s)
                await talk.conn.wait_idle()
                await silence_for(1.0)
            assert talk.conn.conversation.unanswered == [] and talk.conn.errors == {}

    house.run(scenario())


def test_a_service_that_does_not_answer_our_goodbye_holds_nothing_up(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        async with clean(s, within_s=8.0), talking(s, "openai") as talk:
            await talk.hears(1)
            talk.conn.fall_dumb()
            await talk.phone.hang_up()
            uuid = talk.phone.uuid
            await s.server.wait_for_log(f"[{uuid}] Session removed", 6.0)
            took_s = logged_at(s.server, uuid, "Session removed") - logged_at(s.server, uuid, "🧹")
            print(f"released after {took_s:.2f} s")
            assert 0.2 < took_s < 2.0

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_is_answered_again_right_after_all_of_this(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        s.openai.next_scripts.clear()
        s.speechmatics.replies.clear()
        async with clean(s), talking(s, voice) as talk:
            first = await talk.hears(1)
            await hears(talk.phone, first.voice, first.audio_ms - 20)
            await goes_on(s, talk.phone, talk.conn)

    house.run(scenario())
