"""The caller speaks while the agent does: all stops, every memory ends at what was heard."""

from __future__ import annotations

from sessions_app.core import events as ev
from tests.unit.core.line import Line, agent, finals, greeted, of, pcm

TEN = "one two three four five six seven eight nine ten"


def talking(line: Line | None = None, audio_ms: float = 10_000) -> Line:
    """The model has begun an answer and sent all of its sound."""
    line = line or greeted(Line())
    line.caller_says("u1", 1, "question")
    line.started("r1")
    line.do(
        ev.AgentText("r1", "i1", TEN),
        ev.AgentAudio("r1", "i1", pcm(audio_ms)),
        ev.AgentItemDone("r1", "i1"),
    )
    return line


def test_an_answer_that_is_interrupted_is_cut_at_what_was_heard() -> None:
    line = talking()
    line.wait(5)
    out = line.do(ev.SpeechStarted("u2"))
    assert of(ev.ClearPhone, out)
    (cut,) = of(ev.CutItem, out)
    assert 4700 <= cut.heard_ms <= line.phone.heard_ms("i1", line.now)
    assert cut.heard_text == "one two three four"
    # The provider cancels by itself; a second cancel would be an error.
    assert not of(ev.CancelResponse, out)


def test_after_response_done_the_rest_is_cut_all_the_same() -> None:
    line = talking()
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(3)
    out = line.do(ev.SpeechStarted("u2"))
    (cut,) = of(ev.CutItem, out)
    assert 2700 <= cut.heard_ms <= 3000
    assert of(ev.ClearPhone, out)


def test_of_several_items_the_one_never_heard_is_taken_back_whole() -> None:
    line = talking(audio_ms=1000)
    line.do(ev.AgentText("r1", "i2", TEN), ev.AgentAudio("r1", "i2", pcm(4000)))
    line.do(ev.AgentItemDone("r1", "i2"))
    line.do(ev.AgentText("r1", "i3", TEN), ev.AgentAudio("r1", "i3", pcm(4000)))
    line.wait(3)
    out = line.do(ev.SpeechStarted("u2"))
    cuts = {cut.item_id: cut for cut in of(ev.CutItem, out)}
    assert set(cuts) == {"i2", "i3"}
    assert 1700 <= cuts["i2"].heard_ms <= 2000
    assert cuts["i3"] == ev.CutItem("i3", 0, "")
    assert line.turn("i1").interrupted is False
    assert [turn.item_id for turn in finals(out)] == ["i2"]


def test_what_was_heard_whole_is_not_cut() -> None:
    line = talking(audio_ms=1000)
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(3)
    assert not of(ev.CutItem, line.do(ev.SpeechStarted("u2")))
    assert not line.turn("i1").interrupted


def test_late_output_of_an_interrupted_response_is_not_heard() -> None:
    line = talking()
    line.wait(1)
    line.do(ev.SpeechStarted("u2"))
    late = line.do(
        ev.AgentAudio("r1", "i1", pcm(500)),
        ev.AgentText("r1", "i1", "more words"),
        ev.AgentItemDone("r1", "i1"),
        ev.ResponseDone("r1", "cancelled"),
    )
    assert not of(ev.Play, late)
    assert not of(ev.FinishItem, late)
    assert not list(finals(late))


def test_a_response_that_begins_after_the_caller_spoke_again_is_cancelled() -> None:
    line = greeted(Line(agent(nudge_after_s=5)))
    line.wait(6)
    nudge = line.last_request()
    assert nudge.purpose is ev.Purpose.NUDGE
    line.do(ev.SpeechStarted("u2"))
    assert of(ev.CancelResponse, line.started("r2", nudge.request_id)) == [ev.CancelResponse("r2")]
    assert not of(ev.Play, line.do(ev.AgentAudio("r2", "i2", pcm(500))))


def test_what_was_asked_for_and_refused_while_the_caller_spoke_is_not_asked_again() -> None:
    line = greeted(Line(agent(nudge_after_s=5)))
    line.wait(6)
    nudge = line.last_request()
    line.do(ev.SpeechStarted("u2"))
    line.do(ev.SpeechStopped("u2"))
    line.do(ev.RequestRefused(nudge.request_id, busy=False, reason="server_error"))
    line.wait(2)
    assert line.last_request() is nudge


def test_an_item_whose_sound_is_still_coming_is_not_said_to_have_been_understood() -> None:
    """The words run ahead of the sound; words without their sound were not heard."""
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", TEN), ev.AgentAudio("r1", "i1", pcm(600)))
    line.wait(1)
    out = line.do(ev.SpeechStarted("u2"))
    (cut,) = of(ev.CutItem, out)
    assert cut.heard_ms == 600
    assert len(cut.heard_text.split()) <= 3


def test_a_clause_whose_sound_is_still_coming_is_not_said_to_have_been_understood() -> None:
    line = Line(agent(greeting=f"{TEN}."), speaks=False)
    (clause,) = line.all(ev.SpeakClause)
    line.do(ev.SpokenAudio(clause.item_id, 0, pcm(600)))
    line.wait(1)
    (cut,) = of(ev.CutItem, line.do(ev.SpeechStarted("u2")))
    assert len(cut.heard_text.split()) <= 3


def test_sound_that_was_dropped_for_its_length_was_not_heard() -> None:
    """The outbox holds so much and no more; a turn ends at what it could play."""
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", TEN), ev.AgentAudio("r1", "i1", pcm(5000)))
    dropped = [piece for piece in line.phone._queue if piece[0] == "i1"][-100:]
    for piece in dropped:
        line.phone._queue.remove(piece)
    out = line.do(ev.AgentItemDone("r1", "i1"), ev.ResponseDone("r1", "completed"))
    out += line.wait(6)
    turn = line.turn("i1")
    assert turn.final
    assert turn.interrupted
    assert "ten" not in turn.text
    (cut,) = of(ev.CutItem, out)
    assert 2900 <= cut.heard_ms <= 3000


def test_a_clause_that_fails_after_the_interruption_ends_nothing() -> None:
    line = Line(agent(greeting="Hello and welcome. What can I do?"), speaks=False)
    first, _second = line.all(ev.SpeakClause)
    line.spoken(first, 800)
    line.wait(0.4)
    line.do(ev.SpeechStarted("u"))
    line.do(ev.ClauseFailed("greeting_1", 1, "connection lost"))
    line.wait(2)
    assert line.end() is None


def test_the_callers_turn_begins_where_he_spoke() -> None:
    line = talking()
    line.wait(2)
    at_ms = round((line.now - line.began_s) * 1000)
    line.caller_says("u2", 1.5, "wait")
    turn = line.turn("u2")
    assert (turn.from_ms, turn.text, turn.final) == (at_ms, "wait", True)
    assert turn.to_ms == at_ms + 1500
