"""What a supervisor tells the agent, and when the agent takes it up."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core import prompts
from tests.unit.core.line import CLIPS, Line, agent, greeted, pcm

REFUND = "Offer him a refund."
WHISPER = ev.Whispered(REFUND)


def told(commands: list[ev.Command]) -> list[str]:
    return [command.text for command in commands if isinstance(command, ev.AddWhisper)]


def test_into_silence_it_is_told_and_taken_up_at_once() -> None:
    line = greeted(Line())
    out = line.do(WHISPER)
    whisper, request = (c for c in out if isinstance(c, ev.AddWhisper | ev.CreateResponse))
    assert isinstance(whisper, ev.AddWhisper) and whisper.text.endswith(REFUND)
    assert isinstance(request, ev.CreateResponse)
    assert request.purpose is ev.Purpose.ANSWER
    assert request.instructions == prompts.WHISPERED
    assert ev.Note("whispered") in out
    assert not any(isinstance(command, ev.Play | ev.SaveTurn) for command in out)


def test_while_the_agent_speaks_it_waits_for_what_is_said_next() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.answer("r1", "i1", "We open at nine.", 3000)
    line.wait(1)
    asked = len(line.requests())
    assert told(line.do(WHISPER))
    line.wait(4)
    assert len(line.requests()) == asked


def test_while_the_caller_speaks_it_goes_into_the_answer_to_him() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"))
    asked = len(line.requests())
    assert told(line.do(WHISPER))
    line.wait(1)
    line.do(ev.SpeechStopped("u1"))
    line.answer("r1", "i1", "You may have a refund.", 800)
    line.wait(2)
    assert len(line.requests()) == asked


def test_an_answer_that_is_on_its_way_is_not_asked_for_twice() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    asked = len(line.requests())
    line.do(WHISPER)
    line.started("r1")
    line.do(WHISPER, ev.AgentAudio("r1", "i1", pcm(500)))
    assert len(line.requests()) == asked


@pytest.mark.parametrize("busy", [ev.CallerAudible(True, 60), ev.DtmfPressed("1")])
def test_a_caller_who_begins_to_speak_or_dials_is_not_spoken_over(busy: ev.Event) -> None:
    line = greeted(Line())
    asked = len(line.requests())
    line.do(busy)
    assert told(line.do(WHISPER))
    assert len(line.requests()) == asked


def test_another_session_of_the_model_knows_it_in_its_place() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1, "I want my money back.")
    line.answer("r1", "i1", "One moment.", 500)
    line.wait(1)
    line.do(WHISPER)
    line.answer("r2", "i2", "You may have a refund.", 500, line.last_request().request_id)
    line.wait(1)
    line.do(ev.ProviderLost("gone", retryable=True))
    recalled = line.do(ev.ProviderReady())
    words = [
        command.text
        for command in recalled
        if isinstance(command, ev.AddAgentWords | ev.AddCallerWords | ev.AddWhisper)
    ]
    assert words[-4:] == [
        "I want my money back.",
        "One moment.",
        prompts.whispered(REFUND),
        "You may have a refund.",
    ]


def test_a_model_that_is_not_there_yet_is_told_when_it_is() -> None:
    line = Line(ready=False)
    assert told(line.do(WHISPER)) == []
    assert told(line.do(ev.ProviderReady())) == [prompts.whispered(REFUND)]


def test_a_goodbye_is_not_taken_back_for_it() -> None:
    line = greeted(Line(agent(nudge_after_s=5, nudges_max=0)))
    line.wait(6)
    request = line.last_request()
    assert request.purpose is ev.Purpose.GOODBYE
    line.do(WHISPER)
    line.answer("r1", "i1", "Goodbye.", 500, request.request_id)
    line.wait(5)
    assert line.end() == ev.EndCall(ev.EndReason.CALLER_SILENT, hang_up=True)
    assert line.requests()[-1] is request


def test_while_the_line_is_broken_it_is_kept_for_when_it_is_back() -> None:
    line = greeted(Line(clips=CLIPS))
    line.do(ev.MediaClosed(clean=False))
    assert told(line.do(WHISPER)) == [prompts.whispered(REFUND)]
    assert line.call.past(line.now).memory.recall()[-1] == ev.AddWhisper(prompts.whispered(REFUND))
