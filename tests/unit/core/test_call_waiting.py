"""What a call does when somebody says nothing: the caller, the model, or the phone."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.limits import Limits
from tests.unit.core.line import CLIPS, RATE_HZ, Line, agent, greeted, of, pcm, silent_pcm


def played_ms(line: Line, item_id: str) -> int:
    """How much of the item was given to the phone."""
    given = sum(len(play.pcm) for play in line.all(ev.Play) if play.item_id == item_id)
    return given * 1000 // (2 * RATE_HZ)


def nudged(line: Line, number: int) -> None:
    line.wait(12)
    request = line.last_request()
    assert request.purpose is ev.Purpose.NUDGE
    assert not request.tools
    line.answer(f"rn{number}", f"in{number}", "Are you there?", 1000, request.request_id)
    line.wait(1.5)


def test_a_silent_caller_is_spoken_to_twice_then_bid_goodbye_and_hung_up_on() -> None:
    line = greeted(Line(agent(nudge_after_s=10, nudges_max=2)))
    nudged(line, 1)
    nudged(line, 2)
    line.wait(12)
    request = line.last_request()
    assert request.purpose is ev.Purpose.GOODBYE
    line.answer("rg", "ig", "Goodbye", 1000, request.request_id)
    line.wait(5)
    assert line.end() == ev.EndCall(ev.EndReason.CALLER_SILENT, hang_up=True)
    assert len(line.requests()) == 4


def test_the_silence_is_counted_from_the_end_of_what_the_agent_says() -> None:
    line = Line(agent(nudge_after_s=10))
    line.answer("r", "i", "a long greeting", 8000, line.last_request().request_id)
    line.wait(17.5)
    assert len(line.requests()) == 1
    line.wait(1.5)
    assert len(line.requests()) == 2


def test_a_caller_who_speaks_is_patient_company_again() -> None:
    line = greeted(Line(agent(nudge_after_s=10, nudges_max=1)))
    nudged(line, 1)
    line.caller_says("u1", 1)
    line.answer("r1", "i1", "yes", 500)
    line.wait(1)
    line.wait(12)
    assert line.last_request().purpose is ev.Purpose.NUDGE


def test_a_caller_who_presses_keys_is_not_silent() -> None:
    line = greeted(Line(agent(nudge_after_s=10, nudges_max=1)))
    nudged(line, 1)
    line.wait(9)
    line.do(ev.DtmfPressed("1"))
    line.wait(2)
    assert line.last_request().purpose is ev.Purpose.ANSWER
    line.answer("r1", "i1", "yes", 500, line.last_request().request_id)
    line.wait(12)
    assert line.last_request().purpose is ev.Purpose.NUDGE


def test_nobody_is_nudged_while_the_leg_is_muted_nor_right_after() -> None:
    line = greeted(Line(agent(nudge_after_s=10)))
    line.do(ev.MediaMuted(muted=True))
    line.wait(60)
    assert len(line.requests()) == 1
    line.do(ev.MediaMuted(muted=False))
    line.wait(5)
    assert len(line.requests()) == 1
    line.wait(6)
    assert line.last_request().purpose is ev.Purpose.NUDGE


def test_keys_are_collected_and_answered_together() -> None:
    line = greeted(Line())
    for key in "12#":
        line.do(ev.DtmfPressed(key))
        line.wait(0.5)
    line.wait(1.2)
    (words,) = line.all(ev.AddCallerWords)
    assert words.text.endswith("12#")
    assert line.last_request().purpose is ev.Purpose.ANSWER
    turn = line.turn("keys_1")
    assert (turn.text, turn.speaker, turn.final) == ("12#", ev.Speaker.CALLER, True)


def test_keys_pressed_while_the_caller_speaks_are_answered_with_his_turn() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"), ev.DtmfPressed("5"))
    line.wait(4)
    assert line.all(ev.AddCallerWords)
    assert len(line.requests()) == 1


def test_keys_pressed_while_the_model_answers_are_answered_after_it() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", pcm(500)))
    line.do(ev.DtmfPressed("5"))
    line.wait(4)
    assert len(line.requests()) == 1
    line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    assert len(line.requests()) == 2


# ---------------------------------------------------------------------- the model


def test_a_response_that_failed_is_asked_for_again() -> None:
    line = Line()
    request = line.last_request()
    line.started("r1", request.request_id)
    line.do(ev.ResponseDone("r1", "failed", "server_error"))
    assert line.notes() == ["response_failed"]
    line.wait(1)
    again = line.last_request()
    assert again.request_id != request.request_id
    assert (again.purpose, again.instructions) == (request.purpose, request.instructions)


@pytest.mark.parametrize("status", ["failed", "completed", "incomplete"])
def test_a_model_that_gives_nothing_twice_is_tried_anew_and_then_given_up(status: str) -> None:
    line = Line()
    for number in range(3):
        line.started(f"r{number}", line.last_request().request_id)
        line.do(ev.ResponseDone(f"r{number}", status, "why"))
        line.wait(1)
        if number == 1:
            assert line.all(ev.Reconnect) == [ev.Reconnect()]
            line.do(ev.ProviderReady())
    assert [request.purpose for request in line.requests()] == [ev.Purpose.GREETING] * 3
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=False)


def test_what_cannot_be_helped_is_not_asked_for_again() -> None:
    line = Line()
    line.started("r1", line.last_request().request_id)
    line.do(ev.ResponseDone("r1", "failed", "insufficient_quota", retryable=False))
    line.wait(1)
    assert len(line.requests()) == 1
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=False)


def test_an_answer_that_breaks_off_is_said_again_shorter() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "Well I"), ev.AgentAudio("r1", "i1", pcm(400)))
    line.do(ev.ResponseDone("r1", "failed", "server_error"))
    line.wait(1)
    assert line.last_request().purpose is ev.Purpose.ANSWER
    assert "cut off" in line.last_request().instructions


@pytest.mark.parametrize(("why", "asked"), [("max_output_tokens", 2), ("content_filter", 1)])
def test_an_answer_that_was_too_long_is_gone_on_with_once(why: str, asked: int) -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    for number in range(asked):
        line.do(ev.AgentText(f"r{number + 1}", f"i{number}", "Well I"))
        line.do(ev.AgentAudio(f"r{number + 1}", f"i{number}", pcm(400)))
        line.do(ev.ResponseDone(f"r{number + 1}", "incomplete", why))
        line.wait(1)
        assert len(line.requests()) == asked
        line.started("r2", line.last_request().request_id)
    assert "response_incomplete" in line.notes()
    assert line.turn("i0").text == "Well I"


def test_words_without_a_sound_are_no_answer() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(
        ev.AgentText("r1", "i1", "You cannot hear me"),
        ev.AgentItemDone("r1", "i1"),
        ev.ResponseDone("r1", "completed"),
    )
    line.wait(1)
    assert len(line.requests()) == 2
    assert "response_failed" in line.notes()


def test_a_turn_that_nobody_begins_to_answer_is_asked_of_a_new_session_then_given_up() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.wait(7)
    assert len(line.requests()) == 1
    line.wait(2)
    assert line.all(ev.Reconnect)
    line.do(ev.ProviderReady())
    line.wait(2)
    assert line.last_request().purpose is ev.Purpose.ANSWER
    line.wait(9)
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=False)
    assert line.notes().count("answer_overdue") == 2


def test_after_a_sleep_of_our_own_the_model_is_given_its_time_again() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.now += 60
    line.call.heard_caller_s = line.now
    line.do(ev.Tick(late_s=52.0))
    assert "answer_overdue" not in line.notes()
    line.wait(7)
    assert "answer_overdue" not in line.notes()
    line.wait(2)
    assert "answer_overdue" in line.notes()


def test_a_response_that_begins_and_stays_mute_is_cancelled_and_asked_for_again() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    out = line.wait(9)
    assert of(ev.CancelResponse, out) == [ev.CancelResponse("r1")]
    assert of(ev.CreateResponse, out)
    assert not of(ev.Play, line.do(ev.AgentAudio("r1", "i1", pcm(200))))


@pytest.mark.parametrize("speaks", [True, False])
def test_an_answer_that_stops_in_the_middle_is_not_waited_for_in_silence(speaks: bool) -> None:
    line = Line(agent(greeting=""), speaks=speaks)
    line.started("r1", line.last_request().request_id)
    if speaks:
        line.do(ev.AgentText("r1", "i1", "Well I"), ev.AgentAudio("r1", "i1", pcm(700)))
    else:
        line.do(ev.AgentText("r1", "i1", "Well. I"))
        line.spoken(line.all(ev.SpeakClause)[0], 700)
    out = line.wait(10)
    assert of(ev.CancelResponse, out) == [ev.CancelResponse("r1")]
    assert of(ev.CreateResponse, out)
    assert "answer_overdue" in line.notes()
    turn = line.turn("i1")
    assert turn.final
    assert turn.interrupted


def test_an_answer_that_stops_again_is_asked_of_a_new_session() -> None:
    line = Line()
    for number in range(3):
        line.started(f"r{number}", line.last_request().request_id)
        line.do(ev.AgentAudio(f"r{number}", f"i{number}", pcm(300)))
        line.wait(10)
        if number == 1:
            assert line.all(ev.Reconnect)
            line.do(ev.ProviderReady())
            line.wait(1)
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=False)


def test_sound_that_comes_after_its_response_was_done_does_not_hold_the_call_up() -> None:
    line = greeted(Line(agent(nudge_after_s=10)))
    line.caller_says("u1", 1)
    line.answer("r1", "i1", "yes", 500)
    line.do(ev.AgentAudio("r1", "i9", pcm(100)))
    line.wait(30)
    assert len(line.requests()) > 1


@pytest.mark.parametrize("audio", [b"\0\x10", b"\0\x10" * 7])
def test_an_item_with_next_to_no_sound_is_settled_like_any_other(audio: bytes) -> None:
    line = greeted(Line(agent(nudge_after_s=10)))
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", audio), ev.AgentItemDone("r1", "i1"))
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(12)
    assert line.last_request().purpose is ev.Purpose.NUDGE


def test_an_item_without_any_sound_is_no_answer() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", b""), ev.AgentItemDone("r1", "i1"))
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(1)
    assert line.last_request().purpose is ev.Purpose.ANSWER
    assert line.call.speaking.silent


def test_an_answer_of_nothing_but_silence_is_dropped_and_asked_for_again() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    for _ in range(90):
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(100)))
    line.do(ev.AgentItemDone("r1", "i1"))
    out = line.do(ev.ResponseDone("r1", "completed"))
    assert of(ev.ClearPhone, out), "what there was of nothing was played"
    assert played_ms(line, "i1") <= 1500, "nine seconds of nothing were on their way"
    line.wait(1)
    assert line.last_request().purpose is ev.Purpose.ANSWER


@pytest.mark.parametrize("pieces", [150, 5, 1])
def test_an_answer_that_falls_silent_is_gone_on_with(pieces: int) -> None:
    """The rest of the words came, and for sound there was silence."""
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "We are open from nine to five on every day of the week."))
    line.do(ev.AgentAudio("r1", "i1", pcm(600)))
    for _ in range(pieces):
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(15_000 / pieces)))
    line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    line.wait(1)
    request = line.last_request()
    assert request.purpose is ev.Purpose.ANSWER and request.instructions == prompts.CUT_OFF
    assert line.all(ev.CutItem)[0].heard_ms == 600
    assert played_ms(line, "i1") <= 600 + 1500
    line.wait(3)
    turn = line.turn("i1")
    assert turn.interrupted and turn.text.startswith("We are") and "week" not in turn.text


def test_a_pause_in_an_answer_is_part_of_it() -> None:
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "Let me see. Yes."), ev.AgentAudio("r1", "i1", pcm(600)))
    for _ in range(14):
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(100)))
    line.do(ev.AgentAudio("r1", "i1", pcm(400)), ev.AgentItemDone("r1", "i1"))
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(5)
    assert played_ms(line, "i1") == 2400
    assert not line.turn("i1").interrupted and "response_failed" not in line.notes()


def test_an_answer_that_falls_silent_while_it_comes_is_given_up() -> None:
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "We are open."), ev.AgentAudio("r1", "i1", pcm(600)))
    for _ in range(60):
        line.wait(0.2)
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(200)))
    assert "silence_broken" in line.notes() and "answer_overdue" in line.notes()


def test_silence_that_goes_on_coming_is_no_answer_either() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    for _ in range(9):
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(1000)))
        line.wait(1)
    assert "answer_overdue" in line.notes()
    assert line.last_request().purpose is ev.Purpose.ANSWER


def test_a_busy_model_is_asked_again_a_moment_later() -> None:
    line = Line()
    request = line.last_request()
    out = line.do(ev.RequestRefused(request.request_id, busy=True, reason="busy"))
    assert not of(ev.CreateResponse, out), "asking at once would be asked and refused in a circle"
    line.wait(1)
    assert line.last_request().request_id != request.request_id
    assert line.last_request().purpose is ev.Purpose.GREETING


def test_a_model_that_is_busy_for_ever_is_lost() -> None:
    line = Line()
    for _ in range(200):
        line.do(ev.RequestRefused(line.last_request().request_id, busy=True, reason="busy"))
        if line.wait(0.5) and not line.call.model.ready:
            line.do(ev.ProviderReady())
    assert line.all(ev.Reconnect) == [ev.Reconnect()]
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=False)
    assert line.now - line.began_s < 30


def test_a_model_busy_with_its_own_answer_is_asked_when_that_is_done() -> None:
    line = greeted(Line())
    line.do(ev.DtmfPressed("1"))
    line.wait(2)
    request = line.last_request()
    line.started("r1")
    line.do(ev.RequestRefused(request.request_id, busy=True, reason="busy"))
    line.do(ev.AgentAudio("r1", "i1", pcm(12_000)))
    line.wait(10)
    assert line.last_request() is request
    line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    line.wait(0.5)
    assert line.last_request().request_id != request.request_id
    line.wait(3)
    assert line.end() is None


def test_a_clause_without_a_letter_is_not_given_to_the_voice() -> None:
    """A speech service answers such a text with no sound at all, which would count as a fault."""
    line = Line(agent(greeting="Hello! \N{GRINNING FACE}"), speaks=False)
    clauses = line.all(ev.SpeakClause)
    assert [clause.text for clause in clauses] == ["Hello!"]
    line.spoken(clauses[0], 500)
    line.wait(2)
    assert line.turn("greeting_1").final


# ---------------------------------------------------------------------- the phone


def test_a_phone_that_sends_nothing_ends_the_call() -> None:
    line = greeted(Line(limits=Limits(media_silence_s=30)))
    line.caller_sends = False
    line.do(ev.SpeechStarted("u1"))
    line.wait(60)
    assert line.end() == ev.EndCall(ev.EndReason.MEDIA_SILENT, hang_up=True)
    assert 29.9 <= line.now - line.call.heard_caller_s <= 30.1


def test_a_muted_leg_may_be_silent_for_as_long_as_it_likes() -> None:
    line = greeted(Line(limits=Limits(media_silence_s=30, max_s=3300)))
    line.do(ev.MediaMuted(muted=True))
    line.caller_sends = False
    line.wait(600)
    assert line.end() is None
    line.do(ev.MediaMuted(muted=False))
    line.do(ev.SpeechStarted("u1"))
    line.wait(29)
    assert line.end() is None
    line.wait(2)
    assert line.end() == ev.EndCall(ev.EndReason.MEDIA_SILENT, hang_up=True)


def test_media_that_never_opens_ends_the_call() -> None:
    line = Line(open_media=False)
    line.answer("r", "i", "Hello", 500, line.last_request().request_id)
    line.wait(60)
    assert line.end() == ev.EndCall(ev.EndReason.MEDIA_NEVER_OPENED, hang_up=False)
    assert line.now - line.began_s == pytest.approx(30)


@pytest.mark.parametrize("marks", [True, False])
def test_a_phone_is_heard_whether_or_not_it_returns_marks(marks: bool) -> None:
    line = Line(marks=marks)
    line.answer("r", "i", "Hello there", 1500, line.last_request().request_id)
    line.wait(6)
    turn = line.turn("i")
    assert (turn.text, turn.final) == ("Hello there", True)
    line.caller_says("u1", 1)
    line.answer("r2", "i2", "Good", 1000)
    line.wait(1.5)
    assert line.turn("i2").final


def test_sound_that_waits_for_the_phone_makes_no_busy_loop() -> None:
    line = Line()
    line.phone.holding = True
    line.answer("r", "i", "Hello there", 1500, line.last_request().request_id)
    line.wait(20)
    line.phone.holding = False
    line.wait(5)
    assert line.turn("i").final


def test_a_phone_that_keeps_its_marks_makes_no_busy_loop() -> None:
    line = Line()
    line.answer("r", "i", "Hello there", 1500, line.last_request().request_id)
    line.wait(3)
    line.phone._marks = False
    line.caller_says("u1", 1)
    line.answer("r2", "i2", "Good", 1000)
    line.answer("r3", "i3", "Better", 1000)
    line.wait(3)
    assert line.all(ev.ConnectAgain)
    line.wait(6)
    assert line.turn("i2").final and line.end() is not None


def test_words_that_never_sounded_are_given_up_with_their_response() -> None:
    line = greeted(Line(agent(nudge_after_s=10)))
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "You cannot hear me"))
    line.wait(9)
    line.answer("r2", "i2", "But now", 800, line.last_request().request_id)
    line.wait(13)
    assert line.last_request().purpose is ev.Purpose.NUDGE


def test_a_foreign_answer_that_stops_while_ours_is_asked_for_makes_no_busy_loop() -> None:
    """The model began one of its own, and refuses ours only when that is over."""
    line = Line()
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "Well"), ev.AgentAudio("r1", "i1", pcm(80)))
    line.do(ev.AgentItemDone("r1", "i1"))
    out = line.wait(12)
    assert of(ev.Reconnect, out) == [ev.Reconnect()], "neither of the two came to anything"
