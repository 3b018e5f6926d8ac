"""A model that is lost and comes back, renewed sessions, other voices, and ways out."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from sessions_app.core.memory import Memory
from sessions_app.core.past import Past
from tests.unit.core.line import CLIPS, GREETING_CLIP, Line, agent, greeted, of, pcm, silent_pcm

HOUR_S = 3600.0


def told(line: Line) -> list[ev.ProviderCommand]:
    """What a session that comes now is told of the conversation."""
    return of(
        ev.AddAgentWords | ev.AddCallerWords | ev.AddToolCall | ev.AnswerTool,
        line.do(ev.ProviderReady()),
    )


# ---------------------------------------------------------------------- what is told


def test_a_new_session_is_told_what_was_heard_in_the_order_of_speaking() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"))
    line.wait(1)
    line.do(ev.SpeechStopped("u1"))
    line.answer("r1", "i1", "We close at six.", 1000)
    line.wait(1.5)
    # Words of the caller come late; he spoke before the answer all the same.
    line.do(ev.CallerTranscript("u1", "When do you close?", final=True))
    line.do(ev.ProviderLost("close_1006", retryable=True))
    assert [command.text for command in told(line)] == [
        "Hello there",
        "When do you close?",
        "We close at six.",
    ]


def test_what_was_cut_off_by_the_caller_is_told_as_it_was_heard() -> None:
    line = Line()
    line.answer("r", "i", "one two three four five six", 3000, line.last_request().request_id)
    line.wait(1.2)
    line.do(ev.SpeechStarted("u1"), ev.SpeechStopped("u1"))
    line.do(ev.ProviderLost("close_1006", retryable=True))
    (heard,) = told(line)
    assert heard.text.startswith("one") and "four" not in heard.text


def test_what_is_being_heard_is_told_under_its_own_name_and_cut_there_later() -> None:
    line = Line()
    line.answer("r", "item_a", "one two three four five six", 3000, line.last_request().request_id)
    line.wait(0.5)
    line.do(ev.ProviderLost("close_1006", retryable=True))
    assert told(line) == [ev.AddAgentWords("item_a", "one two three four five six")]
    line.wait(0.5)
    (cut,) = of(ev.CutItem, line.do(ev.SpeechStarted("u1")))
    assert cut.item_id == "item_a" and 700 <= cut.heard_ms <= 1000


def test_of_an_answer_that_broke_off_only_what_sounds_is_told_and_the_rest_is_asked_for() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1, "Tell me.")
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "one two three four five six seven eight nine ten " * 4))
    line.do(ev.AgentAudio("r1", "i1", pcm(1500)))
    line.do(ev.ProviderLost("close_1006", retryable=True))
    words = [command for command in told(line) if isinstance(command, ev.AddAgentWords)]
    assert words[-1].item_id == "i1" and 3 <= len(words[-1].text.split()) <= 10
    assert "Go on from there" in line.last_request().instructions
    assert not line.call._retaining, "the question has begun to be answered"


def test_functions_and_their_results_are_told_together() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1, "Look it up.")
    line.started("r1")
    line.do(ev.ToolCalled("r1", "call_1", "lookup", "{}"), ev.ResponseDone("r1", "completed"))
    line.do(ev.ProviderLost("close_1006", retryable=True))
    tools = [c for c in told(line) if isinstance(c, ev.AddToolCall | ev.AnswerTool)]
    assert [type(c) for c in tools] == [ev.AddToolCall, ev.AnswerTool]
    assert line.last_request().purpose is ev.Purpose.ANSWER, "its result is still to be spoken"


def test_the_conversation_that_is_told_is_bounded() -> None:
    memory = Memory()
    for number in range(5000):
        turn = ev.Turn(f"u{number}", ev.Speaker.CALLER, "word " * 40, number, number, False, True)
        memory.keep([ev.SaveTurn(turn)])
    recalled = memory.recall()
    assert 50 <= len(recalled) <= 120
    assert sum(len(command.text) for command in recalled) <= 24_000  # type: ignore[union-attr]


# ---------------------------------------------------------------------- what is asked for then


def test_where_nothing_is_owed_nothing_is_said() -> None:
    line = greeted(Line(clips=CLIPS))
    asked = len(line.requests())
    line.do(ev.ProviderLost("close_1006", retryable=True))
    line.wait(3)
    line.do(ev.ProviderReady())
    line.wait(4)
    assert len(line.requests()) == asked
    assert not [turn for turn in line.all(ev.SaveTurn) if "moment" in turn.turn.text]


def test_a_caller_who_speaks_while_there_is_no_model_stops_the_agent_and_is_answered() -> None:
    line = Line(clips=CLIPS)
    line.answer("r", "i", "one two three four five six", 6000, line.last_request().request_id)
    line.wait(1)
    line.do(ev.ProviderLost("close_1006", retryable=True))
    assert of(ev.ClearPhone, line.do(ev.CallerAudible(speaking=True)))
    line.wait(1)
    line.do(ev.CallerAudible(speaking=False, spoken_ms=800))
    assert line.call._retaining, "what he said is sent to the next session"
    line.do(ev.ProviderReady())
    line.do(ev.SpeechStarted("u1"), ev.SpeechStopped("u1"))
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", pcm(500)), ev.ResponseDone("r1", "completed"))
    assert not line.call._retaining
    assert len(line.requests()) == 1, "the model answers what it hears by itself"


def test_a_session_that_comes_and_goes_for_ever_is_given_up() -> None:
    line = greeted(Line(clips=CLIPS))
    for _ in range(3):
        line.do(ev.ProviderLost("close_1011", retryable=True), ev.ProviderReady())
        line.wait(0.2)
    line.do(ev.ProviderLost("close_1011", retryable=True))
    line.wait(10)
    assert line.end() == ev.EndCall(ev.EndReason.PROVIDER_FAILED, hang_up=True)


def test_one_that_was_heard_in_between_is_not() -> None:
    line = greeted(Line(clips=CLIPS))
    for number in range(10):
        line.do(ev.ProviderLost("close_1011", retryable=True), ev.ProviderReady())
        line.caller_says(f"u{number}", 1, "Hello?")
        line.answer(f"r{number}", f"i{number}", "Yes.", 600)
        line.wait(1)
    assert line.end() is None


# ---------------------------------------------------------------------- renewal


def test_a_session_is_renewed_ahead_of_its_end_in_a_quiet_moment() -> None:
    line = greeted(Line(agent(nudge_after_s=600), Limits(max_s=7000)))
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.ProviderReady(HOUR_S))
    began = line.now
    while not line.all(ev.OpenReserve):
        line.wait(30)
        assert line.now - began < HOUR_S, "it was left to expire"
        line.caller_says(f"u{line.now}", 1, "And?")
        line.answer(f"r{line.now}", f"i{line.now}", "Well.", 600)
        line.wait(1)
    assert HOUR_S - 700 < line.now - began < HOUR_S - 30
    assert len(line.all(ev.Reconnect)) == 1, "before there is another"
    line.do(ev.ReserveOpened())
    assert len(line.all(ev.Reconnect)) == 2
    assert "session_renewed" in line.notes() and line.end() is None


def test_nobody_is_cut_off_by_a_renewal() -> None:
    line = greeted(Line(agent(nudge_after_s=600)))
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.ProviderReady(20.0))
    line.wait(15.9)
    line.do(ev.SpeechStarted("u1"))
    line.wait(2)
    assert not line.all(ev.OpenReserve), "not before it is needed"
    line.do(ev.SpeechStopped("u1"), ev.CallerTranscript("u1", "So.", final=True))
    line.answer("r0", "i0", "Well.", 600)
    line.wait(1)
    assert len(line.all(ev.OpenReserve)) == 1
    line.do(ev.SpeechStarted("u1"))
    line.do(ev.ReserveOpened())
    line.wait(8)
    assert len(line.all(ev.Reconnect)) == 1, "into the caller's words"
    line.do(ev.SpeechStopped("u1"), ev.CallerTranscript("u1", "So.", final=True))
    line.answer("r1", "i1", "Well.", 600)
    line.wait(2)
    assert len(line.all(ev.Reconnect)) == 2


def test_a_renewal_that_fails_costs_nothing_and_is_tried_again() -> None:
    line = greeted(Line(agent(nudge_after_s=600), clips=CLIPS))
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.ProviderReady(100.0))
    line.wait(81)
    for number in range(1, 4):
        assert len(line.all(ev.OpenReserve)) == number
        line.do(ev.ReserveFailed("HTTP 503"))
        line.wait(5.1)
    assert len(line.all(ev.Reconnect)) == 1 and line.end() is None
    line.caller_says("u1", 1, "Still there?")
    line.answer("r1", "i1", "I am.", 600)
    line.wait(1)
    assert line.turn("i1").text == "I am."
    line.do(ev.ReserveOpened())
    assert len(line.all(ev.Reconnect)) == 2


def test_a_session_that_breaks_while_another_is_made_is_replaced_as_ever() -> None:
    line = greeted(Line(agent(nudge_after_s=600)))
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.ProviderReady(20.0))
    line.wait(17)
    assert line.all(ev.OpenReserve)
    line.do(ev.ProviderLost("session_expired", retryable=True))
    assert len(line.all(ev.Reconnect)) == 2
    line.do(ev.ProviderReady(3600.0), ev.ReserveOpened())
    line.wait(60)
    assert len(line.all(ev.Reconnect)) == 2, "it is well for an hour"


@pytest.mark.parametrize("life_s", [None, -5.0, 0.0])
def test_a_session_of_unknown_length_is_not_renewed(life_s: float | None) -> None:
    line = greeted(Line(agent(nudge_after_s=600), Limits(max_s=7000)))
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.ProviderReady(life_s))
    line.wait(500)
    assert len(line.all(ev.Reconnect)) == 1


# ---------------------------------------------------------------------- another session's call


def test_a_call_that_goes_on_is_not_greeted_again() -> None:
    first = greeted(Line())
    first.caller_says("u1", 1, "When do you close?")
    first.do(ev.EndRequested(ev.EndReason.REPLACED, hang_up=False))
    line = Line(clips=(*CLIPS, GREETING_CLIP), past=first.call.past(first.now))
    assert not line.all(ev.Play), "the prepared greeting was played again"
    assert line.last_request().purpose is ev.Purpose.ANSWER
    assert [command.text for command in line.all(ev.AddCallerWords)] == ["When do you close?"]


def replaced(line: Line) -> Past:
    line.do(ev.EndRequested(ev.EndReason.REPLACED, hang_up=False))
    return line.call.past(line.now)


def test_what_is_said_in_the_next_session_comes_after_all_that_was_said_before() -> None:
    first = greeted(Line(agent(nudge_after_s=600)))
    first.wait(20)
    first.caller_says("u1", 1, "When do you close?")
    first.answer("r1", "i1", "At six.", 800)
    first.wait(3)
    second = Line(past=replaced(first))
    second.caller_says("u2", 1, "And on Sundays?")
    third = Line(past=replaced(second))
    commands = [done.command for done in third.done]
    told = [c.text for c in commands if isinstance(c, ev.AddAgentWords | ev.AddCallerWords)]
    assert told == ["Hello there", "When do you close?", "At six.", "And on Sundays?"]


def test_what_a_call_has_used_is_counted_over_all_its_sessions() -> None:
    first = greeted(Line())
    counted = first.all(ev.SaveUsage)[-1].usage["responses"]
    second = Line(past=replaced(first))
    second.answer("r1", "i1", "Good.", 500, second.last_request().request_id)
    assert second.all(ev.SaveUsage)[-1].usage["responses"] == counted + 1


@pytest.mark.parametrize(("before_s", "left_s"), [(40, 60), (99, 12)])
def test_the_longest_duration_is_that_of_the_call_and_not_of_each_session(
    before_s: int, left_s: int
) -> None:
    limits = Limits(max_s=100, media_silence_s=200)
    first = greeted(Line(agent(nudge_after_s=600), limits))
    first.wait(before_s - first.call.phone.clock_ms(first.now) / 1000)
    second = Line(agent(nudge_after_s=600), limits, past=replaced(first))
    opened_s = second.call.phone.opened_s
    assert opened_s is not None
    second.wait(left_s + 1)
    (end,) = [done for done in second.done if isinstance(done.command, ev.EndCall)]
    assert end.command == ev.EndCall(ev.EndReason.MAX_DURATION, hang_up=True)
    assert left_s - 12 <= end.at_s - opened_s <= left_s + 0.1


def test_a_call_that_nobody_has_spoken_in_is_greeted() -> None:
    line = Line(clips=(*CLIPS, GREETING_CLIP), past=Past())
    assert [play.item_id for play in line.all(ev.Play)] == ["greeting_1"]


# ---------------------------------------------------------------------- ways out


def test_a_drain_tells_the_caller_before_it_hangs_up() -> None:
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1, "Tell me.")
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "one two"), ev.AgentAudio("r1", "i1", pcm(5000)))
    line.do(ev.EndRequested(ev.EndReason.DRAINED, politely=True))
    line.wait(10)
    assert line.end() == ev.EndCall(ev.EndReason.DRAINED, hang_up=True)
    assert line.turn("apology").text == "I am sorry. Goodbye."
    assert not line.turn("apology").interrupted


def test_however_often_it_is_asked_the_caller_is_told_once_that_the_call_ends() -> None:
    line = greeted(Line(clips=CLIPS))
    for _ in range(20):
        line.do(ev.EndRequested(ev.EndReason.DRAINED, politely=True))
        line.wait(0.5)
    assert line.end() == ev.EndCall(ev.EndReason.DRAINED, hang_up=True)
    assert [play.item_id for play in line.all(ev.Play)].count("apology") == 1


def test_a_drain_does_not_talk_a_caller_out_of_his_transfer() -> None:
    line = greeted(Line(agent(fallback_number="442079460111"), clips=CLIPS))
    line.do(ev.ProviderLost("insufficient_quota", retryable=False))
    line.do(ev.EndRequested(ev.EndReason.DRAINED, politely=True))
    line.do(ev.Transferred())
    assert line.end() == ev.EndCall(ev.EndReason.TRANSFERRED, hang_up=False)


def test_a_caller_who_is_picked_up_and_not_connected_is_spoken_to_by_the_carrier() -> None:
    line = Line(clips=CLIPS, open_media=False)
    line.do(ev.CallerAnswered())
    out = line.wait(2.5)
    assert of(ev.TransferToPerson, out) == [ev.TransferToPerson()]
    line.do(ev.Transferred())
    assert line.end() == ev.EndCall(ev.EndReason.TRANSFERRED, hang_up=False)


def test_where_the_carrier_cannot_help_him_the_socket_may_still_come() -> None:
    line = Line(clips=(*CLIPS, GREETING_CLIP), open_media=False)
    line.do(ev.CallerAnswered())
    line.wait(2.5)
    line.do(ev.TransferFailed("the leg is gone"))
    line.wait(10)
    assert line.end() is None and len(line.all(ev.TransferToPerson)) == 1
    line.do(ev.MediaOpened())
    assert [play.item_id for play in line.all(ev.Play)] == ["greeting_1"]


def test_a_phone_that_falls_silent_is_asked_whether_it_is_there() -> None:
    line = greeted(Line())
    line.caller_sends = False
    out = line.wait(1.5)
    assert of(ev.AskPhone, out) == [ev.AskPhone()]
    line.wait(20)
    assert len(line.all(ev.AskPhone)) == 1, "once is enough"
    assert not line.all(ev.TransferToPerson), "it returned the mark"


def test_what_is_said_into_silence_does_not_stand_behind_a_silent_answer() -> None:
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1, "Tell me.")
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", silent_pcm(20_000)))
    line.wait(3.0)
    assert line.phone.heard_ms("filler_1", line.now) > 300
    line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    line.wait(1.5)
    assert line.phone.heard_ms("filler_1", line.now) == pytest.approx(1200, abs=30), "it was cut"
