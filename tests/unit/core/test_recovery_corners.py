"""Awkward moments of a recovery, and healthy calls that must not be taken for broken ones."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from tests.unit.core.line import CLIPS, GREETING_CLIP, Line, agent, of, pcm

PERSON = "442079460111"


def talk(*, person: str = "", nudge_after_s: float = 120.0, life_s: float | None = None) -> Line:
    """A call whose prepared greeting has been heard, on a phone that returns its marks."""
    profile = agent(
        greeting="Hello, how can I help you?", fallback_number=person, nudge_after_s=nudge_after_s
    )
    line = Line(profile, Limits(), clips=(*CLIPS, GREETING_CLIP), ready=False)
    line.phone.mark_every_ms = 500.0
    line.do(ev.ProviderReady(life_s))
    line.wait(3)
    assert line.turn("greeting_1").final
    return line


def played(line: Line) -> list[str]:
    """The items that were given to the phone, in order, each once."""
    return list(dict.fromkeys(play.item_id for play in line.all(ev.Play)))


# ---------------------------------------------------------------------- the phone


@pytest.mark.parametrize("stalls_s", [0.9, 1.05, 1.5])
def test_a_phone_that_is_silent_for_a_moment_while_nobody_speaks_is_asked_and_believed(
    stalls_s: float,
) -> None:
    line = talk(person=PERSON)
    line.wait(10)
    line.caller_sends = False
    line.wait(stalls_s)
    line.caller_sends = True
    line.wait(5)
    assert len(line.all(ev.AskPhone)) == (stalls_s > 1.0)
    assert "media_half_dead" not in line.notes()
    assert not line.all(ev.TransferToPerson)


# ---------------------------------------------------------------------- on the way out


def half_dead(line: Line) -> None:
    """The agent speaks, and the phone returns no marks any more, until that is noticed."""
    line.caller_says("u1", 1.0, "Question?")
    line.started("r1")
    line.do(
        ev.AgentText("r1", "i1", "This is a long answer."), ev.AgentAudio("r1", "i1", pcm(4000))
    )
    line.wait(0.3)
    line.phone._marks = False
    line.phone._due.clear()
    line.wait(2.6)
    assert line.all(ev.TransferToPerson) == [ev.TransferToPerson()]


def test_a_caller_who_speaks_while_he_is_led_away_does_not_call_it_off() -> None:
    line = talk(person=PERSON)
    half_dead(line)
    line.do(ev.SpeechStarted("u2"))
    line.wait(0.4)
    line.do(ev.SpeechStopped("u2"), ev.ResponseStarted("r2"))
    assert "r2" in [cancel.response_id for cancel in line.all(ev.CancelResponse)]
    line.do(ev.AgentAudio("r2", "i2", pcm(500)))
    assert "i2" not in played(line)
    line.do(ev.MediaClosed(clean=True))
    assert line.end() == ev.EndCall(ev.EndReason.TRANSFERRED, hang_up=False)


def test_a_model_that_goes_while_he_is_led_away_bids_him_no_goodbye() -> None:
    line = talk(person=PERSON)
    line.caller_says("u1", 1.0, "Question?")
    line.do(ev.ProviderLost("insufficient_quota", retryable=False))
    line.wait(1.6)
    line.do(ev.ProviderLost("connection closed: 1006", retryable=True))
    line.wait(2.2)
    assert "farewell" not in played(line)
    line.do(ev.Transferred())
    assert line.end() == ev.EndCall(ev.EndReason.TRANSFERRED, hang_up=False)


def test_who_is_led_away_out_of_a_silence_hears_one_moment_once() -> None:
    line = talk(person=PERSON)
    line.wait(5)
    line.phone._marks = line.caller_sends = False
    line.wait(3.5)
    assert line.all(ev.TransferToPerson) == [ev.TransferToPerson()]
    assert played(line) == ["greeting_1", "leading_away"]


@pytest.mark.parametrize("late_s", [1.9, 2.2, 2.6])
def test_a_goodbye_that_was_said_for_the_model_is_not_said_by_it_too(late_s: float) -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Bye!")
    line.started("r1")
    line.do(ev.ToolCalled("r1", "c1", "end_call", "{}"), ev.ResponseDone("r1", "completed"))
    line.started("r2", line.last_request().request_id)
    line.wait(late_s)
    line.do(ev.AgentText("r2", "i2", "Goodbye then."), ev.AgentAudio("r2", "i2", pcm(900)))
    line.do(ev.AgentItemDone("r2", "i2"), ev.ResponseDone("r2", "completed"))
    line.wait(8)
    assert len(played(line)) == 2, played(line)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
