"""The greeting: the first thing a caller hears, in either voice."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from tests.unit.core.line import CLIPS, Line, agent, of


def test_a_model_that_speaks_is_asked_for_the_greeting_word_by_word() -> None:
    line = Line(agent(greeting="Good morning!"), open_media=False, ready=False)
    (request,) = of(ev.CreateResponse, line.do(ev.ProviderReady()))
    assert request.purpose is ev.Purpose.GREETING
    assert "Good morning!" in request.instructions
    assert not request.tools


@pytest.mark.parametrize("speaks", [True, False])
def test_without_a_greeting_the_model_greets_in_its_own_words(speaks: bool) -> None:
    line = Line(agent(greeting="  "), speaks=speaks)
    assert line.last_request().purpose is ev.Purpose.GREETING
    assert "  " not in line.last_request().instructions
    assert not line.all(ev.SpeakClause)


def test_another_services_voice_speaks_the_greeting_without_the_model() -> None:
    line = Line(agent(greeting="Hello. How can I help?"), speaks=False)
    assert line.requests() == []
    assert line.all(ev.AddAgentWords) == [ev.AddAgentWords("greeting_1", "Hello. How can I help?")]
    clauses = line.all(ev.SpeakClause)
    assert [c.text for c in clauses] == ["Hello.", "How can I help?"]
    for clause in clauses:
        line.spoken(clause, 500)
    line.wait(2)
    turn = line.turn("greeting_1")
    assert (turn.text, turn.final, turn.interrupted) == ("Hello. How can I help?", True, False)


def test_the_greeting_is_made_before_the_phone_is_there_and_heard_after() -> None:
    line = Line(open_media=False)
    line.answer("r", "i", "Hello there", 800, line.last_request().request_id)
    line.wait(3)
    assert not line.all(ev.GreetingHeard, ev.SaveTurn)
    line.do(ev.MediaOpened())
    line.wait(1.2)
    assert len(line.all(ev.GreetingHeard)) == 1
    turn = line.turn("i")
    assert turn.text == "Hello there"
    assert 0 <= turn.from_ms <= 150
    assert turn.to_ms is not None
    assert 800 <= turn.to_ms <= 1100


def test_a_greeting_that_fails_while_the_phone_rings_is_made_anew_before_it_is_there() -> None:
    line = Line(open_media=False)
    for number in (1, 2):
        request = line.last_request()
        line.do(ev.ResponseStarted(f"r{number}", request.request_id))
        line.do(ev.ResponseDone(f"r{number}", "failed", "server_error"))
        line.wait(0.5)
    assert (len(line.requests()), len(line.all(ev.Reconnect))) == (2, 1)
    line.do(ev.ProviderReady())
    assert [request.purpose for request in line.requests()] == [ev.Purpose.GREETING] * 3


def test_the_greeting_counts_as_heard_when_its_first_sound_is_played() -> None:
    line = Line()
    line.answer("r", "i", "Hello there", 2000, line.last_request().request_id)
    assert not line.all(ev.GreetingHeard)
    line.wait(0.3)
    assert line.all(ev.GreetingHeard)
    (heard,) = [done for done in line.done if isinstance(done.command, ev.GreetingHeard)]
    assert line.phone.heard_ms("i", heard.at_s) > 0


def test_a_greeting_that_was_cut_before_its_first_tick_was_heard_all_the_same() -> None:
    line = Line()
    line.answer("r", "i", "Hello there my friend", 2000, line.last_request().request_id)
    line.now += 0.5  # the process was busy: the tick is late, and the caller speaks first
    out = line.do(ev.SpeechStarted("u"))
    assert len(of(ev.GreetingHeard, out)) == 1
    (turn,) = [s.turn for s in of(ev.SaveTurn, out) if s.turn.speaker is ev.Speaker.AGENT]
    assert 0 < turn.from_ms < 200
    assert turn.to_ms == 500


def test_the_caller_who_speaks_into_the_greeting_stops_it() -> None:
    line = Line()
    line.answer("r", "i", "one two three four five six", 3000, line.last_request().request_id)
    line.wait(1.5)
    out = line.do(ev.SpeechStarted("u"))
    assert of(ev.ClearPhone, out)
    (cut,) = of(ev.CutItem, out)
    assert 1300 <= cut.heard_ms <= line.phone.heard_ms("i", line.now)
    assert cut.heard_text == "one two"
    turn = line.turn("i")
    assert (turn.text, turn.interrupted, turn.final) == ("one two", True, True)


def test_the_caller_who_speaks_before_the_greeting_began_gets_an_answer_instead() -> None:
    line = Line()
    request = line.last_request()
    line.do(ev.SpeechStarted("u"))
    assert of(ev.CancelResponse, line.started("r", request.request_id)) == [ev.CancelResponse("r")]
    assert not of(ev.Play, line.do(ev.AgentAudio("r", "i", b"\1\0" * 800)))
    line.do(ev.ResponseDone("r", "cancelled"))
    line.do(ev.SpeechStopped("u"))
    assert line.requests() == [request]


def test_an_interrupted_greeting_of_another_voice_is_told_to_the_model_as_heard() -> None:
    line = Line(agent(greeting="Hello and welcome. What may I do for you today?"), speaks=False)
    first, second = line.all(ev.SpeakClause)
    line.spoken(first, 1000)
    line.spoken(second, 2000)
    line.wait(0.6)
    out = line.do(ev.SpeechStarted("u"))
    assert of(ev.StopSpeaking, out)
    (cut,) = of(ev.CutItem, out)
    assert cut.item_id == "greeting_1"
    assert cut.heard_text == "Hello"
    # What the voice still hands over belongs to nobody.
    assert not of(ev.Play, line.spoken(second, 1000))


def test_a_caller_whom_no_model_comes_to_greet_is_spoken_to_all_the_same() -> None:
    line = Line(clips=CLIPS, ready=False)
    line.wait(8)
    spoken = [play.item_id for play in line.all(ev.Play)]
    assert [item.split("_")[0] for item in spoken] == ["filler", "filler"], spoken
