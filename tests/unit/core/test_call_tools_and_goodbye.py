"""Tools, and the ways in which a call comes to its end."""

from __future__ import annotations

import json

import pytest

from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from tests.unit.core.line import Line, agent, greeted, of, pcm


def asked(line: Line, response_id: str = "r1") -> Line:
    line.caller_says("u1", 1, "bye")
    line.started(response_id)
    return line


def end_call(line: Line, response_id: str = "r1", call_id: str = "c1") -> list[ev.Command]:
    return line.do(ev.ToolCalled(response_id, call_id, "end_call", "{}"))


def test_a_goodbye_said_beside_the_tool_call_is_heard_and_then_the_call_ends() -> None:
    line = asked(greeted(Line()))
    line.do(ev.AgentText("r1", "i1", "Goodbye then"), ev.AgentAudio("r1", "i1", pcm(2000)))
    line.do(ev.AgentItemDone("r1", "i1"))
    (answer,) = of(ev.AnswerTool, end_call(line))
    assert json.loads(answer.output) == {"ok": True}
    line.do(ev.ResponseDone("r1", "completed"))
    began = line.now
    line.wait(10)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
    assert 1.9 <= line.now - began <= 2.6
    assert line.turn("i1").text == "Goodbye then"
    assert not line.turn("i1").interrupted


def test_a_tool_call_without_words_makes_the_model_say_goodbye_first() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    assert request.purpose is ev.Purpose.GOODBYE
    assert not request.tools
    line.answer("r2", "i2", "Goodbye", 1000, request.request_id)
    line.wait(5)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
    assert line.turn("i2").final


def test_a_goodbye_is_not_interrupted() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    line.answer("r2", "i2", "Goodbye", 2000, request.request_id)
    line.wait(1)
    out = line.do(ev.SpeechStarted("u2"))
    assert not of(ev.ClearPhone, out)
    assert not of(ev.CutItem, out)
    line.wait(3)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
    assert not line.turn("i2").interrupted


def test_a_caller_who_has_more_to_say_calls_the_end_off() -> None:
    line = asked(greeted(Line()))
    line.do(ev.AgentText("r1", "i1", "Goodbye"), ev.AgentAudio("r1", "i1", pcm(2000)))
    end_call(line)
    line.wait(0.5)
    assert of(ev.CutItem, line.do(ev.SpeechStarted("u2")))
    line.do(ev.ResponseDone("r1", "cancelled"), ev.SpeechStopped("u2"))
    line.answer("r2", "i2", "Of course", 1000)
    line.wait(5)
    assert line.end() is None
    assert line.turn("i2").text == "Of course"


def test_the_answer_to_what_was_said_into_a_goodbye_is_not_begun() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    line.answer("r2", "i2", "Goodbye", 3000, request.request_id)
    line.wait(0.5)
    line.caller_says("u2", 0.5)
    assert of(ev.CancelResponse, line.started("r3")) == [ev.CancelResponse("r3")]
    assert not of(ev.Play, line.do(ev.AgentAudio("r3", "i3", pcm(500))))
    line.do(ev.ResponseDone("r3", "cancelled"))
    line.wait(5)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)


def test_a_goodbye_that_does_not_come_is_not_waited_for() -> None:
    """The deadline of an answer passes before that of the goodbye, and changes nothing."""
    line = asked(greeted(Line()))
    end_call(line)
    line.do(ev.ResponseDone("r1", "completed"))
    began = line.now
    line.wait(30)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
    assert line.now - began <= Limits().goodbye_s + 0.1


def test_keys_pressed_into_a_goodbye_do_no_harm() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    line.answer("r2", "i2", "Goodbye", 6000, request.request_id)
    line.wait(1)
    line.do(ev.DtmfPressed("1"))
    line.wait(8)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)
    assert line.turn("keys_1").text == "1"


def test_a_goodbye_that_breaks_off_ends_with_what_was_said() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    line.started("r2", request.request_id)
    line.do(ev.AgentText("r2", "i2", "Good"), ev.AgentAudio("r2", "i2", pcm(800)))
    out = line.do(ev.ResponseDone("r2", "failed", "server_error"))
    assert not of(ev.CreateResponse, out)
    line.wait(3)
    assert len(line.requests()) == 2
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)


def test_a_goodbye_that_is_refused_ends_the_call_without_it() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    line.do(ev.RequestRefused(request.request_id, busy=False, reason="rate_limit"))
    line.wait(1)
    assert line.end() == ev.EndCall(ev.EndReason.AGENT_ENDED, hang_up=True)


def test_a_response_that_fails_after_the_tool_call_still_leads_to_a_goodbye() -> None:
    line = asked(greeted(Line()))
    end_call(line)
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "failed", "server_error")))
    assert request.purpose is ev.Purpose.GOODBYE


def test_nothing_else_is_asked_for_once_the_end_is_near() -> None:
    line = asked(greeted(Line()))
    line.do(ev.AgentText("r1", "i1", "Goodbye"), ev.AgentAudio("r1", "i1", pcm(1500)))
    end_call(line)
    line.do(ev.ToolCalled("r1", "c2", "no_such_tool", "{}"))
    before = len(line.requests())
    line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    line.wait(5)
    assert len(line.requests()) == before
    assert line.end() is not None


def test_a_tool_that_does_not_exist_is_answered_and_the_model_goes_on() -> None:
    line = asked(greeted(Line()))
    out = line.do(ev.ToolCalled("r1", "c1", "order_pizza", '{"size": 1'))
    (answer,) = of(ev.AnswerTool, out)
    assert "error" in json.loads(answer.output)
    assert not of(ev.CreateResponse, out)
    line.wait(3)  # the deadline of a wish that cannot be asked for yet is none
    (request,) = of(ev.CreateResponse, line.do(ev.ResponseDone("r1", "completed")))
    assert request.purpose is ev.Purpose.ANSWER


def test_a_tool_called_twice_is_answered_once() -> None:
    line = asked(greeted(Line()))
    out = line.do(*[ev.ToolCalled("r1", "c1", "order_pizza", "{}")] * 3)
    assert len(of(ev.AnswerTool, out)) == 1


def test_two_tools_of_one_response_lead_to_one_new_response() -> None:
    line = asked(greeted(Line()))
    out = line.do(ev.ToolCalled("r1", "c1", "a", "{}"), ev.ToolCalled("r1", "c2", "b", "{}"))
    assert [a.call_id for a in of(ev.AnswerTool, out)] == ["c1", "c2"]
    before = len(line.requests())
    line.do(ev.ResponseDone("r1", "completed"))
    assert len(line.requests()) == before + 1


def test_a_tool_of_an_interrupted_response_is_answered_and_has_no_effect() -> None:
    """It stands in the model's memory; without an answer the next response could be refused."""
    line = asked(greeted(Line()))
    line.do(ev.AgentAudio("r1", "i1", pcm(2000)))
    line.wait(0.5)
    line.do(ev.SpeechStarted("u2"))
    out = end_call(line)
    (answer,) = of(ev.AnswerTool, out)
    assert "error" in json.loads(answer.output)
    line.do(ev.ResponseDone("r1", "cancelled"), ev.SpeechStopped("u2"))
    line.answer("r2", "i2", "Yes?", 500)
    line.wait(3)
    assert line.end() is None


@pytest.mark.parametrize("hang_up", [True, False])
def test_who_may_ends_the_call_at_once(hang_up: bool) -> None:
    line = asked(greeted(Line()))
    line.do(ev.AgentText("r1", "i1", "one two three four"), ev.AgentAudio("r1", "i1", pcm(4000)))
    line.do(ev.AgentItemDone("r1", "i1"))
    line.wait(2.2)
    out = line.do(ev.EndRequested(ev.EndReason.OPERATOR, hang_up=hang_up))
    assert out[-1] == ev.EndCall(ev.EndReason.OPERATOR, hang_up)
    turn = line.turn("i1")
    assert (turn.text, turn.final, turn.interrupted) == ("one two", True, True)
    assert line.do(ev.EndRequested(ev.EndReason.DRAINED), ev.Tick(), ev.CallerGone()) == []
    assert line.call.next_deadline() is None


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ev.CallerGone(), ev.EndReason.CALLER_HUNG_UP),
        (ev.MediaClosed(clean=True), ev.EndReason.CALLER_HUNG_UP),
        (ev.MediaClosed(clean=False, for_good=True), ev.EndReason.MEDIA_LOST),
    ],
)
def test_a_caller_who_has_gone_is_not_hung_up_on(event: ev.Event, reason: ev.EndReason) -> None:
    line = greeted(Line())
    assert line.do(event)[-1] == ev.EndCall(reason, hang_up=False)


def test_media_that_closes_while_the_agent_says_goodbye_was_ended_by_the_agent() -> None:
    line = asked(greeted(Line()))
    line.do(ev.AgentText("r1", "i1", "Goodbye"), ev.AgentAudio("r1", "i1", pcm(1500)))
    end_call(line)
    assert line.do(ev.MediaClosed(clean=True))[-1] == ev.EndCall(
        ev.EndReason.AGENT_ENDED, hang_up=False
    )


def test_the_caller_is_told_before_the_longest_duration_ends_the_call() -> None:
    line = Line(agent(nudges_max=10), Limits(max_s=60))
    greeted(line)
    while line.now - line.began_s < 46:
        line.caller_says(f"u{line.now}", 1)
        line.answer(f"r{line.now}", f"i{line.now}", "well", 500)
        line.wait(2)
    assert line.last_request().purpose is not ev.Purpose.GOODBYE
    line.wait(4)
    request = line.last_request()
    assert request.purpose is ev.Purpose.GOODBYE
    assert 47.9 <= line.now - line.began_s <= 60
    line.answer("rg", "ig", "Sorry, goodbye", 1500, request.request_id)
    line.wait(20)
    assert line.end() == ev.EndCall(ev.EndReason.MAX_DURATION, hang_up=True)
    assert line.now - line.began_s < 58
    assert line.turn("ig").final


def test_the_longest_duration_holds_while_the_caller_talks_on_and_on() -> None:
    line = Line(agent(max_call_s=40))
    greeted(line)
    line.do(ev.SpeechStarted("u1"))
    line.wait(100)
    assert line.end() == ev.EndCall(ev.EndReason.MAX_DURATION, hang_up=True)
    assert 39 <= line.now - line.began_s <= 40.1


def test_an_agent_may_shorten_the_longest_duration_and_not_lengthen_it() -> None:
    line = Line(agent(max_call_s=5000), Limits(max_s=30))
    greeted(line)
    line.do(ev.SpeechStarted("u1"))
    line.wait(100)
    assert line.now - line.began_s <= 30.1


def test_nothing_follows_the_end_even_when_words_come_with_it() -> None:
    """Words that arrive in the moment in which the goodbye is given up."""
    line = Line(agent(greeting=""), speaks=False)
    line.started("r1", line.last_request().request_id)
    end_call(line)
    line.now += Limits().goodbye_s + 1
    out = line.do(ev.AgentText("r1", "i1", "Goodbye then. And "))
    assert isinstance(out[-1], ev.EndCall)
