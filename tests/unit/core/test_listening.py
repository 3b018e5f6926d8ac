"""What the caller said: late, out of order, twice, never."""

from __future__ import annotations

import json

from sessions_app.core import events as ev
from sessions_app.core.listening import Listening
from tests.unit.core.line import Line, finals, greeted


def final(item_id: str, text: str = "words") -> ev.CallerTranscript:
    return ev.CallerTranscript(item_id, text, final=True)


def test_words_that_come_after_the_answer_belong_to_the_turn_they_were_spoken_in() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    began = line.turn("u1").from_ms
    line.answer("r1", "i1", "yes", 2000)
    line.wait(3)
    line.do(final("u1", "late words"))
    turn = line.turn("u1")
    assert (turn.text, turn.from_ms, turn.to_ms, turn.final) == (
        "late words",
        began,
        began + 1000,
        True,
    )


def test_words_of_two_turns_may_come_in_any_order() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1)
    line.caller_says("u2", 1)
    out = line.do(final("u2", "second"), final("u1", "first"))
    assert [(t.item_id, t.text) for t in finals(out)] == [("u2", "second"), ("u1", "first")]
    assert line.turn("u1").from_ms < line.turn("u2").from_ms


def test_pieces_of_words_grow_until_the_whole_replaces_them() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"))
    line.do(ev.CallerTranscript("u1", "I wood", final=False))
    line.do(ev.CallerTranscript("u1", " like", final=False))
    assert (line.turn("u1").text, line.turn("u1").final) == ("I wood like", False)
    line.do(ev.SpeechStopped("u1"), final("u1", "I would like"))
    assert (line.turn("u1").text, line.turn("u1").final) == ("I would like", True)


def test_words_of_a_turn_nobody_announced_are_kept() -> None:
    line = greeted(Line())
    line.wait(1)
    (turn,) = finals(line.do(final("u9", "hello")))
    assert turn.text == "hello"
    assert turn.to_ms is not None
    assert turn.from_ms <= turn.to_ms


def test_a_turn_is_final_once_however_often_its_words_come() -> None:
    line = greeted(Line())
    line.caller_says("u1", 1, "words")
    line.wait(5)
    again = line.do(final("u1"), final("u1", ""), ev.CallerTranscriptFailed("u1", "why"))
    assert list(finals(again)) == []
    assert not list(finals(line.do(ev.CallerTranscript("u1", "x", final=False))))


def test_a_turn_whose_words_fail_stays_with_what_there_was() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"), ev.CallerTranscript("u1", "I wo", final=False))
    line.wait(1)
    line.do(ev.SpeechStopped("u1"))
    (turn,) = finals(line.do(ev.CallerTranscriptFailed("u1", "unreadable")))
    assert (turn.text, turn.final) == ("I wo", True)
    assert line.notes() == ["transcription_failed"]


def test_the_words_of_a_turn_that_goes_on_end_it_where_they_came() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"))
    line.wait(1)
    (turn,) = finals(line.do(final("u1")))
    assert turn.to_ms is not None
    assert turn.to_ms - turn.from_ms == 1000
    assert not list(finals(line.do(ev.SpeechStopped("u1"))))


def test_the_end_of_the_call_is_the_end_of_the_turn_that_is_being_spoken() -> None:
    line = greeted(Line())
    line.do(ev.SpeechStarted("u1"))
    line.wait(2)
    (turn,) = finals(line.do(ev.MediaClosed(clean=True)))
    assert turn.to_ms is not None
    assert turn.to_ms - turn.from_ms == 2000


def test_keys_that_nobody_took_yet_are_kept_at_the_end() -> None:
    line = greeted(Line())
    line.do(ev.DtmfPressed("4"), ev.DtmfPressed("2"))
    turns = list(finals(line.do(ev.CallerGone())))
    assert [turn.text for turn in turns] == ["42"]


def test_a_provider_that_never_sends_words_is_not_waited_for_without_end() -> None:
    line = greeted(Line())
    for number in range(50):
        line.caller_says(f"u{number}", 0.1)
    final_ids = [turn.item_id for turn in finals(done.command for done in line.done)]
    assert [i for i in final_ids if i.startswith("u")] == [f"u{n}" for n in range(30)]


def test_pieces_of_turns_nobody_announced_are_bounded_too() -> None:
    listening = Listening()
    for number in range(1000):
        listening.transcript(ev.CallerTranscript(f"x{number}", "word", final=False), number)
    assert len(listening.close(2000)) <= 25


def test_a_turn_that_grows_without_end_is_bounded() -> None:
    listening = Listening()
    listening.started("u1", 0)
    for _ in range(2000):
        out = listening.transcript(ev.CallerTranscript("u1", "word " * 100, final=False), 0)
    (save,) = out
    assert isinstance(save, ev.SaveTurn)
    assert len(json.dumps(save.turn.text)) < 100_000
