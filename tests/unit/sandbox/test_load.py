from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.conversation import Ending, Script
from sessions_app.sandbox.faults import Fault, Wish
from sessions_app.sandbox.hearing import is_audible
from sessions_app.sandbox.load import (
    Target,
    at_random,
    in_rotation,
    index_in,
    new_run,
    run_calls,
    uuid_of,
)
from sessions_app.sandbox.tally import CallResult, Spread, Summary
from tests.unit.sandbox.service import Media, Service, listen, running

SECRET = "signature-secret-of-at-least-32-bytes"
TONE = (6000 * np.sin(np.arange(6400) / 5)).astype("<i2").tobytes()
QUICK = Script(patience_s=5.0, goodbye_every=0, interrupt_after_s=0.1)


async def polite(media: Media) -> None:
    await converse(media, TONE)


async def talkative(media: Media) -> None:
    await converse(media, TONE * 10)


async def converse(media: Media, answer: bytes) -> None:
    """Greets; clears when spoken to; answers once the caller is quiet."""
    await media.accept()
    await media.play(TONE)
    quiet = 100
    while (message := await media.next()) is not None:
        if not isinstance(message, bytes):
            continue
        loud = is_audible(message)
        if loud and quiet >= 20:
            await media.command(action="clear")
        quiet = 0 if loud else quiet + 1
        if quiet == 20:
            await media.play(answer)


async def mute(media: Media) -> None:
    await media.accept()
    await media.play(TONE)
    await media.drain()


async def made(service_url: str, **options: Any) -> tuple[list[CallResult], Summary]:
    results: list[CallResult] = []
    to = Target(service_url, SECRET, "key-1", "app-1")
    summary = await run_calls(to, on_result=results.append, **options)
    return sorted(results, key=lambda result: result.index), summary


def test_calls_run_side_by_side_with_faults_in_rotation_and_are_told_as_they_end() -> None:
    async def run() -> None:
        async with running(Service(polite)) as service, asyncio.timeout(60):
            results, summary = await made(
                service.url,
                calls=6,
                at_once=3,
                faults=in_rotation((None, Wish(Fault.OPENAI_QUOTA))),
                script=QUICK,
                run="a" * 20,
            )
        assert [result.index for result in results] == list(range(6))
        assert [result.fault for result in results] == ["none", "openai-quota"] * 3
        assert [index_in("a" * 20, result.uuid) for result in results] == list(range(6))
        assert summary.calls == summary.greeted == 6
        assert summary.outcomes == {Outcome.CALLER_HUNG_UP: 6}
        assert summary.unanswered == 0
        assert [row.fault for row in summary.faults] == ["none", "openai-quota"]
        healthy = summary.faults[0]
        assert healthy.is_good
        assert healthy.endings == {Ending.WENT_ON: 3}
        assert [len(result.replies_s) for result in results] == [2, 1] * 3
        assert all(result.clears >= 1 for result in results)
        assert summary.reply_s.p50 is not None
        params = [h.params for h in service.hooks if h.path.endswith("/answer")]
        faults = [p.get("SipHeader_X-Sandbox-Fault") for p in params]
        assert sorted(map(str, faults)) == ["None"] * 3 + ["openai-quota"] * 3

    asyncio.run(run())


def test_a_caller_who_is_not_answered_met_silence() -> None:
    script = replace(QUICK, patience_s=1.0, silence_limit_s=0.9)

    async def run() -> None:
        async with running(Service(mute)) as service, asyncio.timeout(60):
            (result,), summary = await made(service.url, calls=1, at_once=5, script=script)
        assert result.greeted
        assert result.unanswered == 1
        assert result.met_silence
        assert result.ending is Ending.NOTHING
        assert not summary.is_good

    asyncio.run(run())


def test_a_caller_who_is_never_greeted_says_nothing_and_gives_up() -> None:
    script = replace(QUICK, patience_s=0.5, silence_limit_s=0.4)

    async def run() -> None:
        async with running(Service(listen)) as service, asyncio.timeout(60):
            (result,), _ = await made(service.url, calls=1, at_once=1, script=script)
        assert (result.greeted, result.met_silence, result.unanswered) == (False, True, 0)
        assert result.longest_silence_s < 2.0

    asyncio.run(run())


def test_a_short_call_ends_on_the_first_second_of_the_answer() -> None:
    async def run() -> None:
        async with running(Service(polite)) as service, asyncio.timeout(60):
            script = replace(QUICK, is_short=True)
            (result,), summary = await made(service.url, calls=1, at_once=1, script=script)
        assert result.ending is Ending.WENT_ON
        assert len(result.replies_s) == 1
        assert result.clears == 1, "his one question, and no goodbye"
        assert summary.is_good

    asyncio.run(run())


def test_half_an_answer_whose_rest_never_comes_is_silence_though_the_next_is_whole() -> None:
    """A second socket takes over in mid-answer, greets, and answers what is asked later."""
    script = replace(QUICK, patience_s=3.0, fault_silence_limit_s=1.5)

    async def run() -> None:
        async with running(Service(talkative)) as service, asyncio.timeout(60):
            wish = Wish(Fault.PHONE_SECOND_SOCKET)
            (result,), _ = await made(
                service.url, calls=1, at_once=1, script=script, faults=in_rotation((wish,))
            )
        assert result.struck
        assert result.ending is Ending.WENT_ON
        assert result.met_silence
        assert not result.given_up

    asyncio.run(run())


def test_a_caller_whose_phone_is_half_dead_hears_nothing_more_and_gives_up() -> None:
    script = replace(QUICK, patience_s=1.2, fault_silence_limit_s=0.6)

    async def run() -> None:
        async with running(Service(talkative)) as service, asyncio.timeout(60):
            wish = Wish(Fault.PHONE_HALF_DEAD)
            (result,), _ = await made(
                service.url, calls=1, at_once=1, script=script, faults=in_rotation((wish,))
            )
        assert result.struck
        assert result.met_silence
        assert result.ending is Ending.NOTHING
        assert result.broken

    asyncio.run(run())


def test_an_apology_from_the_carrier_is_one_and_no_answer() -> None:
    async def run() -> None:
        service = Service(talkative)
        service.on_event["disconnected"] = [{"action": "talk", "text": "Sorry, goodbye."}]
        async with running(service), asyncio.timeout(60):
            wish = Wish(Fault.PHONE_ABORTS)
            (result,), summary = await made(
                service.url, calls=1, at_once=1, script=QUICK, faults=in_rotation((wish,))
            )
        assert result.ending is Ending.APOLOGY
        assert result.talked == ("Sorry, goodbye.",)
        assert not result.met_silence
        assert not summary.is_good, "the conversation could have gone on over another socket"

    asyncio.run(run())


def test_faults_of_speech_ring_an_agent_that_has_such_a_voice() -> None:
    async def run() -> None:
        async with running(Service(polite)) as service, asyncio.timeout(60):
            to = Target(service.url, SECRET, "key-1", "app-1", speech_agent="Sarah")
            plan = in_rotation((Wish(Fault.TTS_CUT), None))
            await run_calls(to, calls=2, at_once=2, faults=plan, script=QUICK)
        asked = [h.params for h in service.hooks if h.path.endswith("/answer")]
        agents = {p.get("SipHeader_X-Sandbox-Fault"): p.get("SipHeader_X-Agent") for p in asked}
        assert agents == {"tts-cut": "Sarah", None: None}

    asyncio.run(run())


def test_a_service_that_does_not_answer_is_broken_and_the_run_goes_on() -> None:
    async def run() -> None:
        results, summary = await made("http://127.0.0.1:9", calls=2, at_once=2, script=QUICK)
        assert [result.outcome for result in results] == [Outcome.NOT_ANSWERED] * 2
        assert all(result.errors for result in results)
        assert summary.broken == 2
        assert not summary.is_good
        assert summary.first_sound_s == Spread(None, None, None)

    asyncio.run(run())


def test_random_faults_come_in_every_so_manieth_call_and_again_with_the_same_seed() -> None:
    wishes = [Wish(fault) for fault in Fault]
    plan, again, other = (at_random(wishes, 10, seed) for seed in (1, 1, 2))
    drawn = [plan(index) for index in range(1000)]
    assert [index for index, wish in enumerate(drawn) if wish] == list(range(9, 1000, 10))
    assert drawn == [again(index) for index in range(1000)]
    assert drawn != [other(index) for index in range(1000)]
    assert len(set(drawn)) > 30


def test_a_calls_number_is_read_from_its_uuid_and_from_nobody_elses() -> None:
    run = new_run()
    assert len(uuid_of(run, 0)) == 32
    assert index_in(run, uuid_of(run, 4711)) == 4711
    assert index_in(run, uuid_of(new_run(), 4711)) is None
    assert index_in(run, run) is None


@pytest.mark.parametrize(("calls", "at_once"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(calls: int, at_once: int) -> None:
    with pytest.raises(ValueError, match="wanted 1 or more"):
        asyncio.run(run_calls(Target("", SECRET, "k", "a"), calls=calls, at_once=at_once))
