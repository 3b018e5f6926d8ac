"""The caller interrupts: the phone falls silent, and every memory ends at what was heard."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.openai import Reply
from tests.fakes.speechmatics import Outcome, TtsReply
from tests.fakes.vonage import Faults
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    VOICES,
    House,
    Said,
    Sound,
    Talk,
    Voice,
    calling,
    clean,
    cleared,
    expect,
    ring,
    silence_for,
    talking,
    turns,
)

#: Words of one length, so that every word takes the same time whoever speaks them.
GREETING = "This desk will help with what ever they want from here."
LONG = Reply(text="word " * 29 + "end.", audio_ms=9000, burst_ms=150)
SHORT = Reply(text="As you like.", audio_ms=600)
#: What may lie between the clear and what the transcript claims, at the most.
MODEST_MS = 500
#: The phone cannot name the voice of a piece of a frame shorter than 8 ms.
MEASURE_MS = 9


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        yield house


@dataclass(frozen=True, slots=True)
class Cut:
    """An interruption: when the model heard the caller, when the phone was told to be silent."""

    speech_s: float
    clear_s: float

    @property
    def ms(self) -> float:
        return (self.clear_s - self.speech_s) * 1000


async def interrupt(talk: Talk) -> Cut:
    """The caller begins to speak, and the phone is told to be silent."""
    before = len(talk.phone.media.clears_s)
    speech_s = await talk.conn.speech_started()
    cut = Cut(speech_s, await cleared(talk.phone, before + 1))
    print(f"{talk.voice}: cleared {cut.ms:.1f} ms after speech_started")
    assert 0 <= cut.ms < 1000
    return cut


async def falls_silent(talk: Talk, cut: Cut, for_s: float = 0.5) -> None:
    await silence_for(for_s)
    talk.phone.playback.advance(time.monotonic())
    assert talk.phone.playback.first_audible_s(cut.clear_s) is None, "something stale was played"


def heard_words(text: str, audio_ms: float, heard_ms: float) -> int:
    """How many whole words fit into what was heard, if every character takes the same time."""
    reach = len(text) * (heard_ms + MEASURE_MS) / audio_ms
    return sum(word.end() <= reach for word in re.finditer(r"\S+", text))


async def model_remembers(talk: Talk, sound: Sound, text: str, nth: int = 1) -> str:
    """The nth cut in the model's memory claims what was heard, hardly less; the words left."""
    heard_ms = talk.heard_ms(sound)
    if talk.voice == "openai":
        await talk.conn.wait_for("conversation.item.truncate", nth)
        truncation = talk.conn.truncations[nth - 1]
        assert truncation.voice == sound.voice
        assert heard_ms - MODEST_MS <= truncation.audio_end_ms <= heard_ms + MEASURE_MS
        assert truncation.audio_end_ms > 0
        return ""
    await talk.conn.wait_for("conversation.item.delete", nth)
    created = await eventually(
        "the words that were heard",
        lambda: [
            event["item"]
            for event in talk.conn.got("conversation.item.create")
            if event["item"].get("role") == "assistant" and event["item"]["id"].startswith("cut_")
        ][nth - 1 : nth],
    )
    left = str(created[0]["content"][0]["text"])
    assert text.startswith(left) and left
    assert len(left.split()) <= heard_words(text, sound.audio_ms, heard_ms)
    assert left.split() != text.split()
    return left


async def interrupted_turn(house: House, talk: Talk, nth: int, text: str) -> Said:
    """The nth turn of the agent in the rows, which was cut short."""
    found = await eventually(
        "the turn's row",
        lambda: [t for t in turns(house.rows, talk.phone.uuid, "agent") if t.final][nth - 1 : nth],
    )
    assert found[0].interrupted and text.startswith(found[0].text) and found[0].text != text
    return found[0]


@pytest.mark.parametrize("voice", VOICES)
def test_the_greeting_can_be_interrupted(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT)
        async with clean(s), talking(s, voice) as talk:
            greeting = await talk.hears(1, 1200)
            cut = await interrupt(talk)
            await falls_silent(talk, cut)
            left = await model_remembers(talk, greeting, GREETING)
            turn = await interrupted_turn(house, talk, 1, GREETING)
            assert turn.text == (left or turn.text)
            heard = heard_words(GREETING, greeting.audio_ms, talk.heard_ms(greeting))
            assert len(turn.text.split()) <= max(heard, 4)
            await talk.conn.caller_said("Wait.")
            await talk.hears(2)
            assert talk.conn.errors == {} and talk.conn.got("response.cancel") == []

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_an_answer_can_be_interrupted_long_after_the_model_has_finished_it(
    house: House, voice: Voice
) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, LONG, SHORT, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me everything.")
            answer = await talk.hears(2, 2500)
            assert talk.conn.active is None, "the response ought to be done by now"
            cut = await interrupt(talk)
            await falls_silent(talk, cut)
            left = await model_remembers(talk, answer, LONG.text)
            turn = await interrupted_turn(house, talk, 2, LONG.text)
            assert turn.text == (left or turn.text)
            assert len(turn.text.split()) <= 30 * talk.heard_ms(answer) / answer.audio_ms
            await talk.conn.caller_said("Stop.")
            await talk.hears(3)
            assert talk.conn.errors == {} and talk.conn.got("response.cancel") == []
        await house.rows.ended(talk.phone.uuid)
        said = [(t.speaker, t.interrupted) for t in turns(house.rows, talk.phone.uuid)]
        assert said == [
            ("agent", False), ("caller", False), ("agent", True), ("caller", False),
            ("agent", False),
        ]  # fmt: skip

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_late_pieces_of_an_interrupted_response_are_not_played(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        slow = Reply(text="late " * 39 + "end.", audio_ms=9000, burst_ms=5000, late_deltas=15)
        expect(s, voice, slow, SHORT, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me everything.")
            if voice == "openai":
                answer = await talk.hears(2, 600)
            else:  # whose first words are spoken when a sentence is complete
                answer = None
                await silence_for(1.0)
            assert talk.conn.active is not None, "the response ought to be going on"
            speech_s = await talk.conn.speech_started()
            if voice == "openai":
                await falls_silent(talk, Cut(speech_s, await cleared(talk.phone)), 1.0)
                assert answer is not None
                assert talk.conn.truncations[0].audio_end_ms <= talk.heard_ms(answer) + MEASURE_MS
            else:
                await silence_for(1.0)
                assert len(talk.sounds()) == 1, "a dead response was given a voice"
            await talk.conn.caller_said("Stop.")
            answer_at = 3 if voice == "openai" else 2
            await talk.hears(answer_at)
            assert [u.voice for u in talk.phone.playback.utterances()][-1] == (
                talk.sounds()[answer_at - 1].voice
            )
            assert talk.conn.errors == {}

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_may_interrupt_twice_in_a_row(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        second = Reply(text="other " * 29 + "end.", audio_ms=9000, burst_ms=150)
        expect(s, voice, LONG, second, SHORT, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me everything.")
            for nth, reply in enumerate((LONG, second), start=1):
                sound = await talk.hears(nth + 1, 900)
                cut = await interrupt(talk)
                await falls_silent(talk, cut, 0.2)
                await model_remembers(talk, sound, reply.text, nth)
                await talk.conn.caller_said(f"No, {nth}.")
            await talk.hears(4)
            assert talk.conn.errors == {} and talk.conn.got("response.cancel") == []
        await house.rows.ended(talk.phone.uuid)
        said = [(t.speaker, t.interrupted) for t in turns(house.rows, talk.phone.uuid)]
        assert said == [
            ("agent", False), ("caller", False), ("agent", True), ("caller", False),
            ("agent", True), ("caller", False), ("agent", False),
        ]  # fmt: skip

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_what_was_cut_before_its_first_sound_is_forgotten_whole(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT)
        async with clean(s), ring(s, voice, faults=Faults(socket_delay_s=0.8)) as phone:
            conn = await s.openai.connection(len(s.openai.connections) + 1)
            if voice == "openai":
                await eventually("the greeting", lambda: conn.spoken)
                await conn.wait_idle()
                expected = conn.spoken[0].id
            else:
                await conn.wait_for("conversation.item.create")
                expected = "greeting_1"
            await conn.speech_started()
            deleted = await conn.wait_for("conversation.item.delete")
            assert deleted.event["item_id"] == expected
            assert conn.got("conversation.item.truncate") == []
            await phone.wait_connected()
            await conn.caller_said("Hello?")
            await phone.wait_for_voice()
            await silence_for(0.8)
            voices = {u.voice for u in phone.playback.utterances()}
            assert len(voices) == 1, "the greeting that was cut is heard all the same"
            assert conn.errors == {}
        await house.rows.ended(phone.uuid)
        assert [turn.text for turn in turns(house.rows, phone.uuid, "agent")] == [SHORT.text]

    house.run(scenario())


def test_later_items_of_a_response_are_forgotten_with_the_one_that_was_cut(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        three = Reply(text="one two three four five six", messages=3, audio_ms=6000, burst_ms=100)
        expect(s, "openai", three, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Go on.")
            first = await talk.hears(2, 700)
            await talk.conn.wait_idle()
            items = [item.id for item in talk.conn.spoken[1:]]
            assert len(items) == 3
            cut = await interrupt(talk)
            await falls_silent(talk, cut)
            await model_remembers(talk, first, "one two")
            await talk.conn.wait_for("conversation.item.delete", 2)
            assert talk.conn.deleted == items[1:]
            assert talk.conn.errors == {}
        await house.rows.ended(talk.phone.uuid)
        (_, turn) = turns(house.rows, talk.phone.uuid, "agent")
        assert turn.interrupted and turn.text in ("", "one")

    house.run(scenario())


def test_a_synthesis_under_way_is_ended_and_what_follows_is_not_asked_for(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        text = "This is the first sentence of several. Here is the second one. And a third."
        expect(s, "speechmatics", Reply(text=text), SHORT, greeting_ms=400)
        s.speechmatics.replies.append(TtsReply(speed=1.2))
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me everything.")
            sentence = await talk.hears(2, 600)
            request = s.speechmatics.requests[-1]
            assert request.outcome is Outcome.STREAMING
            cut = await interrupt(talk)
            await eventually("the end of the request", lambda: request.outcome is Outcome.CANCELLED)
            await falls_silent(talk, cut)
            assert s.speechmatics.requests[-1] is request and s.speechmatics.in_flight == 0
            await model_remembers(talk, sentence, "This is the first sentence of several.")
            await talk.conn.caller_said("Stop.")
            await talk.hears(3)
            # What is left of the sentence stands where the sentence stood: before the caller's.
            order = [i for i in talk.conn.conversation.order if i != "greeting_1"]
            kinds = [talk.conn.conversation.items[i].data["role"] for i in order]
            assert kinds == ["user", "assistant", "user", "assistant"]
            assert talk.conn.errors == {}

    house.run(scenario())


def test_the_transcript_never_has_words_that_were_not_reached(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        text = "Internationalisation specialists do as we say to them by and by at all of it."
        expect(s, "speechmatics", Reply(text=text), greeting_ms=400)
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Who does it?")
            answer = await talk.hears(2, 1500)
            await interrupt(talk)
            await silence_for(0.4)
            heard_ms = talk.heard_ms(answer)
            reached = heard_words(text, answer.audio_ms, heard_ms)
            turn = await interrupted_turn(house, talk, 2, text)
            assert len(turn.text.split()) <= reached, (
                f"after {heard_ms:.0f} of {answer.audio_ms} ms: {turn.text!r}"
            )

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_speech_while_nothing_is_played_clears_and_cuts_nothing(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, SHORT, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            await silence_for(0.4)
            await talk.conn.caller_said("Hello?")
            await talk.hears(2)
            await silence_for(0.4)
            await talk.conn.caller_said("Hello again?")
            await talk.hears(3)
            assert talk.phone.media.clears_s == []
            assert talk.conn.truncations == [] and talk.conn.deleted == []
            assert talk.conn.errors == {}

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_goodbye_is_heard_to_its_end_whatever_the_caller_says(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        goodbye = Reply(text="Thank you for your call and goodbye.", audio_ms=2000)
        expect(s, voice, goodbye, greeting_ms=400)
        async with clean(s):
            async with talking(s, voice) as talk:
                await talk.hears(1)
                await talk.conn.call_tool("end_call", {})
                await talk.hears(2, 500)
                await talk.conn.caller_said("Bye!")
                await talk.phone.wait_ended()
            (_, last) = talk.phone.playback.utterances()
            assert abs(last.to_ms - talk.sounds()[1].audio_ms) < 10 and last.gaps_ms < 15
            assert talk.phone.ended_by == "platform" and talk.phone.talked == []
        row = await house.rows.ended(talk.phone.uuid)
        assert row["end_reason"] == "agent_ended"

    house.run(scenario())


@pytest.mark.parametrize("voice", VOICES)
def test_a_caller_who_goes_on_before_the_goodbye_keeps_the_call(house: House, voice: Voice) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, voice, Reply(text="Goodbye.", created_delay_s=1.0), SHORT, greeting_ms=400)
        async with clean(s), talking(s, voice) as talk:
            await talk.hears(1)
            tool = await talk.conn.call_tool("end_call", {}, say="well " * 29 + "end.")
            await talk.conn.speech_started()
            await talk.conn.wait_idle()
            await talk.conn.caller_said("One more thing!")
            await silence_for(3.0)
            assert not talk.phone.over.is_set(), "hung up on a caller who was speaking"
            output = talk.conn.conversation.calls.get(tool, "never called")
            assert output is not None, "the tool was called and not answered"
            await talk.conn.caller_said("Are you there?")
            await talk.phone.wait_for_voice(since_s=time.monotonic())

    house.run(scenario())


def test_a_response_that_begins_while_the_caller_speaks_is_not_heard(house: House) -> None:
    """It was made for a turn that was not the caller's last word."""

    async def scenario() -> None:
        s = house.stage
        late = Reply(text="late " * 9 + "end.", audio_ms=3000, created_delay_s=0.6)
        expect(s, "openai", late, SHORT, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("I would like")
            await silence_for(0.2)
            speech_s = await talk.conn.speech_started()
            await silence_for(1.5)
            talk.phone.playback.advance(time.monotonic())
            assert talk.phone.playback.first_audible_s(speech_s) is None
            await talk.conn.caller_said("to know when you are open.")
            await talk.phone.wait_for_voice(since_s=time.monotonic())

    house.run(scenario())


def test_a_phone_that_stalls_is_not_believed_to_have_played(house: House) -> None:
    """The network between the carrier and us stands still for a second and a half."""

    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", LONG, greeting_ms=400)
        async with clean(s), talking(s, "openai") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me everything.")
            answer = await talk.hears(2, 1500)
            talk.phone.media.freeze()
            await silence_for(1.6)
            heard_ms = talk.heard_ms(answer, time.monotonic())
            await talk.conn.speech_started()
            truncate = await talk.conn.wait_for("conversation.item.truncate")
            talk.phone.media.thaw()
            claimed_ms = truncate.event["audio_end_ms"]
            print(f"heard {heard_ms:.0f} ms, claimed {claimed_ms} ms")
            await cleared(talk.phone)
            await silence_for(0.3)
            assert claimed_ms <= talk.heard_ms(answer) + MEASURE_MS

    house.run(scenario())


def test_marks_that_come_back_after_a_clear_do_no_harm(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "openai", LONG, LONG, greeting_ms=400)
        faults = Faults(returns_marks_on_clear=True)
        async with clean(s), talking(s, "openai", faults=faults) as talk:
            await talk.hears(1)
            for nth in (1, 2):
                await talk.conn.caller_said("Tell me everything.")
                sound = await talk.hears(nth + 1, 1300)
                await interrupt(talk)
                await model_remembers(talk, sound, LONG.text, nth)

    house.run(scenario())
