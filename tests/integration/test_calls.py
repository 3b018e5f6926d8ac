"""A whole call in both voices at every media rate: greeted, answered, ended, nothing left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.fakes.openai import Reply
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    VOICES,
    House,
    Talk,
    Voice,
    calling,
    clean,
    end_lines,
    expect,
    kinds,
    talking,
    turns,
    usage,
)

GREETING = "Good morning."
QUESTION = "When are you open?"
ANSWER = "From nine to five."
GOODBYE = "Goodbye then."


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        yield house


async def question_and_answer(talk: Talk) -> None:
    """The greeting, a question and its answer, each heard to the end and without a gap."""
    await talk.hears(1)
    await talk.conn.caller_said(QUESTION)
    await talk.hears(2)
    assert talk.conn.caller() == talk.phone.tone, "the model hears somebody else"


def without_gaps(talk: Talk) -> None:
    """Everything was heard from its first to its last millisecond, in order, in one piece."""
    heard = talk.phone.playback.utterances()
    said = talk.sounds()
    assert [each.voice for each in heard] == [sound.voice for sound in said]
    for utterance, sound in zip(heard, said, strict=True):
        # The last frame may be filled up with silence, and voice 15 begins a little low.
        assert abs(utterance.from_ms) < 10 and abs(utterance.to_ms - sound.audio_ms) < 10
        assert utterance.gaps_ms < 15, f"{utterance.gaps_ms} ms of silence within a sentence"


async def left_in_rows(house: House, talk: Talk, reason: str) -> None:
    row = await house.rows.ended(talk.phone.uuid)
    assert row["end_reason"] == reason
    assert None not in (row["media_opened_at"], row["greeting_heard_at"], row["answered_at"])
    assert end_lines(talk.stage.server, talk.phone.uuid, talk.voice) == []


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_is_greeted_and_answered_and_hangs_up(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text=ANSWER, burst_ms=0))
        async with clean(s):
            async with talking(s, voice) as talk:
                await question_and_answer(talk)
                await talk.phone.hang_up()
            without_gaps(talk)
            assert talk.phone.talked == [] and talk.phone.events("disconnected") == []
            assert talk.conn.errors == {} and talk.conn.got("response.cancel") == []
            assert talk.phone.media.clears_s == [], "nothing was there to be cleared"
        await left_in_rows(house, talk, "caller_hung_up")
        listed = await s.server.amanage("sessions", "--json")
        assert json.loads(listed.stdout) == [], listed
        said = turns(house.rows, talk.phone.uuid)
        assert [(turn.speaker, turn.text) for turn in said] == [
            ("agent", GREETING),
            ("caller", QUESTION),
            ("agent", ANSWER),
        ]
        assert not any(turn.interrupted for turn in said) and all(turn.final for turn in said)
        spent = usage(house.rows.call(talk.phone.uuid))
        responses = 2 if voice == "openai" else 1  # whose greeting needs no model
        assert (spent["responses"], spent["input_tokens"]) == (responses, 120 * responses)

    house.run(scenario())


@pytest.mark.parametrize("says", [GOODBYE, ""], ids=["says goodbye itself", "is asked to"])
@pytest.mark.parametrize("voice", VOICES)
def test_the_agent_ends_the_call_once_its_goodbye_was_heard(
    house: House, voice: Voice, says: str
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text=ANSWER, burst_ms=0), Reply(text=GOODBYE))
        hung_up_before = len(s.vonage.rest)
        async with clean(s):
            async with talking(s, voice) as talk:
                await question_and_answer(talk)
                call_id = await talk.conn.call_tool("end_call", {}, say=says)
                assert json.loads(await talk.conn.tool_output(call_id)) is not None
                await talk.hears(3)
                await talk.phone.wait_ended()
            without_gaps(talk)
            goodbye = talk.phone.playback.utterances()[-1]
            phone = talk.phone
            assert phone.ended_by == "platform"
            assert phone.hung_up_s is not None and phone.hung_up_s >= goodbye.end_s - 0.02
            assert phone.hung_up_s - goodbye.end_s < 3, "the caller was kept waiting after it"
            assert phone.talked == [] and phone.events("disconnected") == []
        asked = [(r.method, r.path, dict(r.body)) for r in s.vonage.rest[hung_up_before:]]
        assert asked == [("PUT", f"/v1/calls/{phone.uuid}", {"action": "hangup"})]
        asked_for = (1 if voice == "openai" else 0) + (0 if says else 1)
        assert len(talk.conn.got("response.create")) == asked_for, "a greeting, a goodbye"
        await left_in_rows(house, talk, "agent_ended")
        assert "agent_ends_call" in kinds(house.rows, phone.uuid)
        last = turns(house.rows, phone.uuid)[-1]
        assert (last.speaker, last.interrupted) == ("agent", False)
        assert last.text == GOODBYE

    house.run(scenario())


@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_the_other_media_rates_sound_the_same(rate: int) -> None:
    """Both voices at once; at 24 kHz one of them is resampled upwards, at 8 kHz both downwards."""

    async def scenario(house: House) -> None:
        s = house.stage

        async def call(voice: Voice) -> None:
            async with talking(s, voice) as talk:
                await question_and_answer(talk)
                await talk.conn.call_tool("end_call", {}, say=GOODBYE)
                await talk.hears(3)
                await talk.phone.wait_ended()
                assert talk.phone.media.rate == rate
            without_gaps(talk)
            await left_in_rows(house, talk, "agent_ended")

        async with clean(s), asyncio.TaskGroup() as calls:
            for voice in VOICES:
                expect(s, voice, Reply(text=ANSWER, burst_ms=0))
                calls.create_task(call(voice))
                await s.openai.connection(len(s.openai.connections) + 1)

    with calling({"VONAGE_MEDIA_RATE": str(rate)}, greeting=GREETING) as house:
        house.run(scenario(house))


@pytest.mark.parametrize("voice", VOICES)
def test_the_phone_is_never_fed_more_than_a_second_or_so_ahead(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text="word " * 12 + "end.", burst_ms=0))
        most_ms = 0.0

        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said(QUESTION)
            long = await talk.sound(2)

            def heard_enough() -> bool:
                nonlocal most_ms
                most_ms = max(most_ms, talk.phone.playback.queued_ms)
                return talk.heard_ms(long) >= 2500

            await eventually("most of the answer", heard_enough, 15.0)
            (_, utterance) = talk.phone.playback.utterances()
            assert utterance.gaps_ms < 15
        print(f"{voice}: at most {most_ms:.0f} ms ahead")
        assert 300 < most_ms <= 1300

    house.run(scenario())
