from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.hearing import is_audible
from sessions_app.sandbox.load import CallResult, Script, Spread, Target, run_calls, summarise
from tests.unit.sandbox.service import Media, Service, running

SECRET = "signature-secret-of-at-least-32-bytes"
TONE = (6000 * np.sin(np.arange(6400) / 5)).astype("<i2").tobytes()
QUICK = Script(patience_s=5.0, goodbye_every=0, interrupt_after_s=0.1)


def target(service: Service) -> Target:
    return Target(service.url, SECRET, "key-1", "app-1")


async def polite(media: Media) -> None:
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
            await media.play(TONE)


async def mute(media: Media) -> None:
    await media.accept()
    await media.play(TONE)
    await media.drain()


def test_calls_run_side_by_side_with_faults_in_rotation_and_are_told_as_they_end() -> None:
    told: list[CallResult] = []

    async def run() -> None:
        async with running(Service(polite)) as service, asyncio.timeout(60):
            results, summary = await run_calls(
                target(service),
                calls=6,
                at_once=3,
                faults=(None, Fault.OPENAI_MUTE),
                script=QUICK,
                on_result=told.append,
            )
        assert [result.index for result in results] == list(range(6))
        assert [result.fault for result in results] == [None, Fault.OPENAI_MUTE] * 3
        assert len({result.uuid for result in results}) == 6
        assert sorted(told, key=lambda result: result.index) == results
        assert summary.calls == summary.greeted == 6
        assert summary.outcomes == {Outcome.CALLER_HUNG_UP: 6}
        assert summary.broken == summary.unanswered == 0
        assert [len(result.replies_s) for result in results] == [2, 1] * 3
        assert all(result.clears >= 1 for result in results)
        assert summary.reply_s.p50 is not None
        params = [h.params for h in service.hooks if h.path.endswith("/answer")]
        faults = [p.get("SipHeader_X-Sandbox-Fault") for p in params]
        assert sorted(map(str, faults)) == ["None"] * 3 + ["openai-mute"] * 3

    asyncio.run(run())


def test_a_caller_who_is_not_answered_met_silence() -> None:
    script = replace(QUICK, patience_s=1.0, silence_limit_s=0.9)

    async def run() -> None:
        async with running(Service(mute)) as service, asyncio.timeout(60):
            (result,), summary = await run_calls(target(service), calls=1, at_once=5, script=script)
        assert result.greeted
        assert result.unanswered == 1
        assert result.met_silence
        assert not summary.is_good

    asyncio.run(run())


def test_a_service_that_does_not_answer_is_broken_and_the_run_goes_on() -> None:
    async def run() -> None:
        nobody = Target("http://127.0.0.1:9", SECRET, "k", "a")
        results, summary = await run_calls(nobody, calls=2, at_once=2, script=QUICK)
        assert [result.outcome for result in results] == [Outcome.NOT_ANSWERED] * 2
        assert all(result.errors for result in results)
        assert summary.broken == 2
        assert not summary.is_good
        assert summary.first_sound_s == Spread(None, None, None)

    asyncio.run(run())


@pytest.mark.parametrize(("calls", "at_once"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(calls: int, at_once: int) -> None:
    with pytest.raises(ValueError, match="wanted 1 or more"):
        asyncio.run(run_calls(Target("", SECRET, "k", "a"), calls=calls, at_once=at_once))


def test_spreads_are_of_the_nearest_rank() -> None:
    assert Spread.of([]) == Spread(None, None, None)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread.of([float(n) for n in range(1, 101)]) == Spread(50.0, 96.0, 100.0)


def test_no_calls_have_a_summary_too() -> None:
    summary = summarise([], 0.0)
    assert (summary.calls, summary.longest_silence_s) == (0, 0.0)
