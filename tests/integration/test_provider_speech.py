"""The speech service misbehaves: its errors never reach the phone, and the model speaks instead."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fakes.openai import Reply
from tests.fakes.speechmatics import Outcome, TtsReply
from tests.fakes.stage import Stage
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    PROMISE_S,
    House,
    answered,
    calling,
    clean,
    expect,
    hears,
    kinds,
    noises,
    quiet,
    ring,
    silence_for,
    talking,
    turns,
)

GREETING = "Good day."
ONE, TWO, THREE = "Here is the first.", "This one is second.", "And the third ends it."
THREE_SENTENCES = Reply(text=f"{ONE} {TWO} {THREE}")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        yield house


def spoken(s: Stage, since: int) -> list[str]:
    """The texts that were given a voice, in the order in which they were asked for."""
    return [r.text for r in s.speechmatics.requests[since:] if r.outcome is Outcome.COMPLETE]


@pytest.mark.parametrize(
    "first",
    [
        TtsReply(status=503, content_type="text/plain", body=b"try later"),
        TtsReply(status=429, content_type="application/json", body=b'{"error": "slow down"}'),
        TtsReply(status=500),
        TtsReply(cut_after_ms=0),
    ],
    ids=["503", "429", "500", "cut before the first byte"],
)
def test_a_request_that_failed_before_its_first_sound_is_made_again(
    house: House, first: TtsReply
) -> None:
    async def scenario() -> None:
        s = house.stage
        before = len(s.speechmatics.requests)
        s.speechmatics.replies.append(first)
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(len(talk.sounds()))
            await quiet(talk.phone)
            assert spoken(s, before) == [GREETING]
            (heard,) = talk.phone.playback.utterances()
            assert abs(heard.from_ms) < 10 and heard.gaps_ms < 15 and talk.phone.talked == []

    house.run(scenario())


@pytest.mark.parametrize(
    "reply",
    [
        TtsReply(status=503, content_type="text/plain", body=b"no"),
        TtsReply(status=401, content_type="application/json", body=b"{}"),
        TtsReply(content_type="text/html", body=b"<html>" + b"welcome to our portal " * 2000),
        TtsReply(content_type="application/json", body=b'{"error": "quota"}' * 500),
        TtsReply(content_type="audio/wav", body=b"RIFF\x24\x10\x00\x00WAVEfmt " + b"\0" * 4000),
        TtsReply(audio_ms=1, chunk_bytes=(1,), cut_after_ms=0),
    ],
    ids=["503 for ever", "401", "an HTML page", "JSON with 200", "a WAV file", "cut for ever"],
)
def test_a_service_that_gives_no_sound_is_replaced_by_the_models_own_voice(
    house: House, reply: TtsReply
) -> None:
    async def scenario() -> None:
        s = house.stage
        usual, s.speechmatics.otherwise = s.speechmatics.otherwise, reply
        before = len(s.openai.connections)
        try:
            async with clean(s), ring(s, "speechmatics") as phone:
                media = await phone.wait_connected()
                heard_s = await answered(phone, phone.started_s, 15.0)
                conn = await s.connection_of(phone)
                assert media.opened_s is not None
                assert media.playback.longest_silence_s(media.opened_s, heard_s) < PROMISE_S
                await conn.wait_idle()
                await hears(phone, conn.spoken[0].voice or 0, conn.spoken[0].audio_ms - 30)
                await quiet(phone)
                assert noises(phone) == 0, "what came instead of a voice reached the caller"
                assert [item.text for item in conn.spoken] == [GREETING]
                tried = len(s.speechmatics.requests)
                asked_s = time.monotonic()
                await conn.caller_said("Are you there?")
                await answered(phone, asked_s)
                await conn.wait_idle()
                assert conn.session["output_modalities"] == ["audio"]
                assert len(conn.got("session.update")) == 2 and conn.errors == {}
                assert len(s.openai.connections) == before + 1, "it is the same conversation"
                assert len(s.speechmatics.requests) == tried, "it is not tried in every turn"
                assert phone.talked == []
        finally:
            s.speechmatics.otherwise = usual
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "caller_hung_up"
        assert kinds(house.rows, phone.uuid).count("voice_failed") == 1
        said = [turn.text for turn in turns(house.rows, phone.uuid, "agent")]
        assert said.count(GREETING) == 1

    house.run(scenario())


@pytest.mark.parametrize("how", ["stalls", "is cut"])
def test_a_sound_that_breaks_off_is_taken_up_by_the_model(house: House, how: str) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "speechmatics", THREE_SENTENCES, Reply(text="As I said.", audio_ms=900))
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            await quiet(talk.phone)
            before = len(s.speechmatics.requests)
            broken = TtsReply(stall_after_ms=600) if how == "stalls" else TtsReply(cut_after_ms=600)
            s.speechmatics.replies += [TtsReply(), broken]
            asked_s = time.monotonic()
            await talk.conn.caller_said("Tell me.")
            own = (await eventually("its own voice", lambda: talk.conn.spoken, 15.0))[0]
            await talk.conn.wait_idle()
            await hears(talk.phone, own.voice or 0, own.audio_ms - 30)
            end_s = time.monotonic()
            silent_s = talk.phone.playback.longest_silence_s(asked_s, end_s)
            print(f"{how}: {silent_s:.1f} s of silence")
            assert silent_s < PROMISE_S
            first, second = s.speechmatics.requests[before : before + 2]
            assert talk.phone.playback.voice_heard_ms(first.voice) > first.audio_ms - 30
            assert 500 < talk.phone.playback.voice_heard_ms(second.voice) < 700
            # A text with a hole in it may mean the opposite.
            third = [r for r in s.speechmatics.requests[before:] if r.text == THREE]
            heard = {u.voice for u in talk.phone.playback.utterances()}
            assert not heard & {r.voice for r in third if r.first_byte_s is not None}
            assert noises(talk.phone) == 0
            assert len(talk.conn.got("response.create")) == 1, "the rest is asked for once"
        await house.rows.ended(talk.phone.uuid)
        said = turns(house.rows, talk.phone.uuid, "agent")
        cut = next(turn for turn in said if turn.text.startswith(ONE))
        assert THREE not in cut.text and cut.text != f"{ONE} {TWO}" and cut.interrupted
        # The model knows exactly what the row tells.
        assert ("assistant", cut.text) in talk.conn.told
        assert said[-1].text == "As I said." and "voice_failed" in kinds(
            house.rows, talk.phone.uuid
        )

    house.run(scenario())


def test_chunks_of_odd_sizes_are_put_together_again(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "speechmatics", THREE_SENTENCES)
        odd = TtsReply(chunk_bytes=(1, 333, 2, 4097, 7, 641))
        s.speechmatics.replies += [odd] * 4
        before = len(s.speechmatics.requests)
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            await talk.conn.caller_said("Tell me.")
            await talk.hears(4)
            heard = talk.phone.playback.utterances()
            made = s.speechmatics.requests[before:]
            assert [u.voice for u in heard] == [r.voice for r in made]
            assert [r.text for r in made] == [GREETING, ONE, TWO, THREE]
            for utterance, request in zip(heard, made, strict=True):
                # A byte out of step would be noise, which decodes to any place but the right one.
                assert abs(utterance.from_ms) < 25 and utterance.gaps_ms < 45
                assert abs(utterance.to_ms - request.audio_ms) < 25

    house.run(scenario())


def test_the_next_sentence_is_fetched_while_the_one_before_is_heard(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        expect(s, "speechmatics", THREE_SENTENCES)
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            before = len(s.speechmatics.requests)
            # The slowest answer, the longest sentence: order is that of the text all the same.
            s.speechmatics.replies += [TtsReply(speed=3.0), TtsReply(first_byte_delay_s=0.4)]
            await talk.conn.caller_said("Tell me.")
            await talk.hears(2, 100)
            third = await eventually(
                "the third request", lambda: s.speechmatics.requests[before + 2 : before + 3]
            )
            heard_when_asked_ms = talk.heard_ms(talk.sounds()[1], third[0].at_s)
            assert heard_when_asked_ms < 60 * len(ONE), "the first had been heard by then"
            await talk.hears(4)
            one, two, three = talk.phone.playback.utterances()[1:]
            assert [one.voice, two.voice, three.voice] == [
                r.voice for r in s.speechmatics.requests[before:]
            ]
            for earlier, later in ((one, two), (two, three)):
                pause_s = later.start_s - earlier.end_s
                assert -0.05 < pause_s < 0.3, f"{pause_s:.2f} s between two sentences"
            assert [r.text for r in s.speechmatics.requests[before:]] == [ONE, TWO, THREE]
        await house.rows.ended(talk.phone.uuid)
        said = turns(house.rows, talk.phone.uuid, "agent")
        assert [turn.text for turn in said] == [GREETING, THREE_SENTENCES.text]

    house.run(scenario())


def test_nothing_is_put_into_the_middle_of_a_sentence_and_little_at_its_end(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        # 23 ms beyond a whole number of frames, in pieces that end within frames and samples.
        s.speechmatics.replies.append(TtsReply(audio_ms=1003, chunk_bytes=(999,)))
        async with clean(s), talking(s, "speechmatics") as talk:
            await talk.hears(1)
            await quiet(talk.phone)
            pcm = b"".join(part.pcm for part in talk.phone.playback.played)
            sound = pcm.strip(b"\0")
            assert b"\0" * 40 not in sound, "silence within the sentence"
            rate = talk.phone.media.rate
            assert abs(len(sound) / (2 * rate) * 1000 - 1003) < 2
            assert len(pcm) / (2 * rate) * 1000 < 1003 + 21
            assert len(pcm) % talk.phone.media.frame_bytes == 0

    house.run(scenario())


def test_a_caller_who_leaves_in_the_middle_of_a_sentence_ends_its_request(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        s.speechmatics.replies.append(TtsReply(audio_ms=8000, speed=1.5))
        async with clean(s, within_s=3.0), talking(s, "speechmatics") as talk:
            request = s.speechmatics.requests[-1]
            await silence_for(0.3)
            await talk.phone.hang_up()
            await eventually("the end of it", lambda: request.outcome is Outcome.CANCELLED, 3.0)

    house.run(scenario())
