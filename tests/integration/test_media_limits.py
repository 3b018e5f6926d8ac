"""Calls that would never end by themselves: bounded, and ended in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.fakes.openai import Reply
from tests.fakes.phone import PhoneCall
from tests.integration.conversation import (
    VOICES,
    House,
    Voice,
    calling,
    clean,
    expect,
    kinds,
    ring,
    turns,
)

MAX_S = 14.0
NUDGE_S = 2.0
GREETING = "Good day."


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    agent = {"nudge_after_s": f"{NUDGE_S:g}", "nudges_max": "2", "greeting": GREETING}
    with calling({"CALL_MAX_SECONDS": f"{MAX_S:g}"}, **agent) as house:
        yield house


def length_s(phone: PhoneCall) -> float:
    opened_s = phone.media.opened_s
    assert opened_s is not None and phone.hung_up_s is not None
    return phone.hung_up_s - opened_s


def heard_whole(phone: PhoneCall, to_ms: float) -> None:
    last = phone.playback.utterances()[-1]
    assert abs(last.to_ms - to_ms) < 10 and last.gaps_ms < 15, "the goodbye was cut"
    assert phone.hung_up_s is not None and phone.hung_up_s >= last.end_s - 0.02


def test_a_caller_who_says_nothing_is_spoken_to_twice_and_then_bid_goodbye(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        words = ("Are you there?", "Can you hear me?", "I hang up now. Goodbye.")
        uuids: list[str] = []

        async def silent(voice: Voice) -> None:
            async with ring(s, voice) as phone:
                uuids.append(phone.uuid)
                await phone.wait_ended(MAX_S)
                assert phone.ended_by == "platform" and phone.talked == []
                spoken = phone.playback.utterances()
                if voice == "openai":
                    assert len(spoken) == 4
                    pauses = [b.start_s - a.end_s for a, b in pairwise(spoken)]
                    print("pauses", [f"{p:.2f}" for p in pauses])
                    assert all(NUDGE_S - 0.2 < p < NUDGE_S + 2 for p in pauses)
                    heard_whole(phone, 500)

        async with clean(s), asyncio.TaskGroup() as calls:
            for voice in VOICES:
                expect(s, voice, *(Reply(text=text, audio_ms=500, burst_ms=0) for text in words))
                calls.create_task(silent(voice))
                await s.openai.connection(len(s.openai.connections) + 1)
        for uuid in uuids:
            row = await house.rows.ended(uuid)
            assert row["end_reason"] == "caller_silent"
            said = [turn.text for turn in turns(house.rows, uuid, "agent")]
            told = kinds(house.rows, uuid)
            # On a machine that stood still meanwhile the silence is broken from disk.
            late = "silence_broken" in told
            goodbye = "Thank you for calling. Goodbye." if late else words[-1]
            assert said == [GREETING, *words[:2], goodbye], told
            assert told.count("caller_silent") == 2

    house.run(scenario())


def test_a_call_that_lasts_too_long_is_ended_and_with_a_goodbye_if_he_listens(
    house: House,
) -> None:
    async def scenario() -> None:
        s = house.stage
        long = Reply(text="word " * 9 + "end.", audio_ms=1500, burst_ms=0)
        listeners: list[str] = []
        talkers: list[str] = []

        async def chats(voice: Voice, *, listens: bool) -> None:
            async with ring(s, voice) as phone:
                (listeners if listens else talkers).append(phone.uuid)
                await phone.wait_for_voice()
                conn = await s.connection_of(phone)
                if not listens:
                    await conn.speech_started()
                while listens and not phone.over.is_set() and conn.open:
                    await conn.caller_said("And then?")
                    await asyncio.sleep(2.2)
                await phone.wait_ended(MAX_S + 5)
                print(f"{voice}, {'listens' if listens else 'talks'}: {length_s(phone):.1f} s")
                assert phone.ended_by == "platform" and phone.talked == []
                assert MAX_S * 0.7 < length_s(phone) < MAX_S + 2
                if listens:
                    purposes = [
                        (event["response"].get("metadata") or {}).get("purpose")
                        for event in conn.got("response.create")
                    ]
                    assert purposes[-1] == "goodbye"
                    assert phone.playback.utterances()[-1].gaps_ms < 15

        async with clean(s), asyncio.TaskGroup() as calls:
            for listens in (True, False):
                for voice in VOICES:
                    expect(s, voice, *[long] * 12)
                    calls.create_task(chats(voice, listens=listens))
                    await s.openai.connection(len(s.openai.connections) + 1)
        for uuid in (*listeners, *talkers):
            row = await house.rows.ended(uuid)
            assert row["end_reason"] == "max_duration"
        for uuid in listeners:
            last = turns(house.rows, uuid, "agent")[-1]
            assert not last.interrupted and last.text == long.text

    house.run(scenario())
