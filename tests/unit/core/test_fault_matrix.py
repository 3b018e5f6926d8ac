"""Every fault at every moment of a call, in virtual time: what the caller hears, 20 ms by 20 ms.

The promise: a fault of ours or of a supplier's never leaves him more than three seconds without a
voice; where it can be recovered from, the conversation goes on; where it cannot, he hears why, and
the call ends.
"""

from __future__ import annotations

import itertools

import pytest

from sessions_app.core import events as ev
from tests.unit.core.world import Fault, Phase, World

PROMISE_S = 3.0
#: A model thinks before it answers, and a voice before it speaks: that is no fault, and comes
#: before the first sound that a phone swallows.
THINKING_S = 0.5

OF_VOICE = {Fault.VOICE_REFUSED, Fault.VOICE_STALLS, Fault.VOICE_BREAKS, Fault.VOICE_SLOW}
OF_OWN_VOICE = {Fault.SILENT_AUDIO, Fault.FALLS_SILENT, Fault.TEXT_ONLY, Fault.TEXT_ALWAYS}
LEAVINGS = {
    Fault.ABORTED: ev.EndReason.MEDIA_LOST,
    Fault.HUNG_UP: ev.EndReason.CALLER_HUNG_UP,
    Fault.HUNG_UP_BY_EVENT: ev.EndReason.CALLER_HUNG_UP,
}
OF_PHONE = {Fault.HALF_DEAD, Fault.FROZEN_PHONE, *LEAVINGS}
DEAD_PHONES = {Fault.HALF_DEAD, Fault.FROZEN_PHONE}
FOR_GOOD = {
    Fault.QUOTA,
    Fault.REFUSED_AFTER_DROP,
    Fault.FAILS_ALWAYS,
    Fault.FAILS_FINALLY,
    Fault.DEAF_ALWAYS,
    Fault.MUTE_ALWAYS,
}
RECOVERABLE = set(Fault) - OF_PHONE - FOR_GOOD

#: A socket that is not open yet cannot break.
APPLIES = [
    (fault, phase, speaks)
    for fault, phase, speaks in itertools.product(Fault, Phase, (True, False))
    if not (fault in OF_PHONE and phase is Phase.BEFORE_GREETING)
    if not (fault in OF_VOICE and speaks)
    if not (fault in OF_OWN_VOICE and not speaks)
]


def name(case: object) -> str:
    return {True: "own voice", False: "other voice"}[case] if isinstance(case, bool) else str(case)


@pytest.mark.parametrize(("fault", "phase", "speaks"), APPLIES, ids=name)
def test_the_promise_is_kept(fault: Fault, phase: Phase, speaks: bool) -> None:
    world = World(fault, phase, speaks=speaks).run()
    assert fault is Fault.NONE or world.struck_s is not None, "it never struck"
    thinking_s = max(THINKING_S, world.silent_at_strike_s)
    most_s = PROMISE_S + thinking_s * (fault in DEAD_PHONES)
    assert world.longest_s <= most_s, f"silent for {world.longest_s:.2f} s"
    end = world.end()
    assert end is not None, "the call goes on for ever"
    if speaks and fault is not Fault.TEXT_ALWAYS:
        assert not world.all(ev.ChangeVoice), "its own voice can be heard"
    if fault is Fault.NEARS_ITS_END and phase in (Phase.CALLER_SPEAKING, Phase.AGENT_SPEAKING):
        assert world.notes().count("session_renewed") == 1
        assert "silence_broken" not in world.notes(), "it was heard"
    if fault is Fault.LUMPS:
        assert not world.all(ev.FeedSilence), "silence would break off what he says"
    if fault in RECOVERABLE:
        assert end.reason is ev.EndReason.AGENT_ENDED, end
        assert world.turn >= 4, "the conversation did not go on"
        assert not world.all(ev.TransferToPerson)
        assert world.greetings == 0, "the greeting is prepared, and said once"
    elif fault in FOR_GOOD:
        # Where he is being bid goodbye already, he is not told of a fault.
        assert end.reason in (ev.EndReason.PROVIDER_FAILED, ev.EndReason.AGENT_ENDED)
        assert end.hang_up or phase is Phase.BEFORE_GREETING
        if fault is Fault.FAILS_FINALLY:
            assert not world.all(ev.Reconnect), "money is not found in another session"
    elif fault in DEAD_PHONES:
        assert end.reason in (ev.EndReason.REPLACED, ev.EndReason.AGENT_ENDED)
    else:
        assert end.reason is LEAVINGS[fault] or phase is Phase.AT_HANG_UP


@pytest.mark.parametrize("fault", sorted(FOR_GOOD))
def test_where_nothing_helps_the_agents_person_does(fault: Fault) -> None:
    world = World(fault, Phase.CALLER_SPEAKING, person="442079460111").run()
    assert world.longest_s <= PROMISE_S
    end = world.end()
    assert end == ev.EndCall(ev.EndReason.TRANSFERRED, hang_up=False)


def test_a_model_that_only_writes_is_spoken_for_by_another_service() -> None:
    world = World(Fault.TEXT_ALWAYS, Phase.AGENT_SPEAKING).run()
    assert world.all(ev.ChangeVoice) == [ev.ChangeVoice(own=False)]
    assert world.answers_heard >= 4 and not world.all(ev.Reconnect)


def test_a_service_that_cannot_speak_for_it_is_asked_once() -> None:
    world = World(Fault.TEXT_ALWAYS, Phase.AGENT_SPEAKING)
    world.voice_fails = True
    world.run()
    assert world.longest_s <= PROMISE_S
    told = world.all(ev.ChangeVoice)
    assert told[:2] == [ev.ChangeVoice(own=False), ev.ChangeVoice(own=True)]
    assert ev.ChangeVoice(own=False) not in told[1:]
    assert len(world.all(ev.Reconnect)) >= 1
    assert world.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=True)


def test_a_response_that_fails_in_the_other_voice_still_has_a_new_session_before_it() -> None:
    world = World(Fault.TEXT_ALWAYS, Phase.AGENT_SPEAKING)
    while not world.all(ev.ChangeVoice):
        world.run(most_s=0.1)
    world.fails = 1
    world.run()
    assert len(world.all(ev.Reconnect)) == 1
    assert world.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)


def test_another_session_is_told_to_write_too() -> None:
    world = World(Fault.TEXT_ALWAYS, Phase.AGENT_SPEAKING)
    while not world.all(ev.ChangeVoice):
        world.run(most_s=0.1)
    world.run(most_s=2.0)
    world.lost("close_1006")
    world.run()
    assert world.all(ev.ChangeVoice) == [ev.ChangeVoice(own=False)] * 2
    assert world.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)


def test_where_no_service_can_speak_for_it_he_hears_why() -> None:
    world = World(Fault.TEXT_ALWAYS, Phase.AGENT_SPEAKING, spare_voice=False).run()
    assert world.longest_s <= PROMISE_S
    assert world.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=True)
    assert not world.all(ev.ChangeVoice)
