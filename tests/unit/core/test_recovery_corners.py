"""Awkward moments of a recovery, and healthy calls that must not be taken for broken ones."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core.ear import PAUSE_S
from sessions_app.core.limits import Limits
from tests.unit.core.line import CLIPS, GREETING_CLIP, Line, agent, greeted, pcm, silent_pcm

PERSON = "442079460111"
ONE_MOMENT = ev.Note("silence_broken", "one_moment")


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


def broken() -> Line:
    """Cut off in the middle of an answer."""
    line = talk()
    line.caller_says("u1", 1.0)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "one two three four"), ev.AgentAudio("r1", "i1", pcm(4000)))
    line.wait(2.4)
    line.do(ev.MediaClosed(clean=False))
    return line


def half_dead() -> Line:
    """The agent speaks, and the phone returns no marks any more, until that is noticed."""
    line = talk(person=PERSON)
    line.caller_says("u1", 1.0, "Question?")
    line.started("r1")
    line.do(
        ev.AgentText("r1", "i1", "This is a long answer."), ev.AgentAudio("r1", "i1", pcm(4000))
    )
    line.wait(0.3)
    line.phone._marks = False
    line.phone._due.clear()
    line.wait(2.6)
    assert line.notes() == ["media_half_dead"]
    assert line.all(ev.ConnectAgain) == [ev.ConnectAgain()]
    return line


def test_a_dead_line_is_left_to_the_carrier_whatever_is_still_said_on_it() -> None:
    line = half_dead()
    assert line.turn("i1").final and line.turn("i1").interrupted
    said = played(line)
    line.do(ev.SpeechStarted("u2"), ev.SpeechStopped("u2"), ev.ResponseStarted("r2"))
    line.do(ev.AgentAudio("r2", "i2", pcm(500)), ev.MediaClosed(clean=False))
    # Taking the caller away closes his socket, maybe before we are told.
    line.do(ev.MediaClosed(clean=True))
    line.wait(2.0)
    assert played(line) == said and not line.all(ev.EndCall)
    line.do(ev.EndRequested(ev.EndReason.REPLACED, hang_up=False))
    assert line.end() == ev.EndCall(ev.EndReason.REPLACED, hang_up=False)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ev.Transferred(), ev.EndReason.TRANSFERRED),
        (ev.TransferFailed("HTTP 500"), ev.EndReason.MEDIA_LOST),
        (ev.Tick(), ev.EndReason.MEDIA_LOST),
    ],
)
def test_a_dead_line_ends_the_call_where_the_carrier_cannot_help_or_has_helped_otherwise(
    event: ev.Event, reason: ev.EndReason
) -> None:
    line = half_dead()
    line.wait(5.1 if isinstance(event, ev.Tick) else 1.0)
    line.do(event)
    assert line.end() == ev.EndCall(reason, hang_up=False)


def test_a_caller_whose_line_broke_is_waited_for_a_moment_and_not_spoken_to() -> None:
    line = broken()
    assert line.turn("i1").interrupted and line.turn("i1").text == "one two"
    broken_s, said = line.now, len(line.all(ev.Play))
    line.do(
        ev.AgentAudio("r1", "i1", pcm(400)),
        ev.ResponseDone("r1", "failed"),
        ev.ProviderLost("close_1006", retryable=True),
        ev.MediaClosed(clean=False),
    )
    line.wait(0.85)
    assert line.notes() == ["media_broke"]
    assert not line.all(ev.EndCall)
    line.wait(0.1)
    (end,) = [done for done in line.done if isinstance(done.command, ev.EndCall)]
    assert end.command == ev.EndCall(ev.EndReason.MEDIA_LOST, hang_up=False)
    assert end.at_s - broken_s == pytest.approx(0.9, abs=0.05)
    assert len(line.all(ev.Play)) == said and not line.all(ev.Reconnect)


@pytest.mark.parametrize("before", [True, False])
def test_a_caller_of_whom_the_carrier_asks_before_or_after_his_line_broke_is_waited_for(
    before: bool,
) -> None:
    line = talk()
    told = [ev.MediaAwaited(for_s=4.0), ev.MediaClosed(clean=False)]
    first, second = told if before else told[::-1]
    line.do(first)
    line.wait(0.3)
    line.do(second)
    line.wait(3.5)
    assert not line.all(ev.EndCall)
    line.wait(0.6)
    assert line.end() == ev.EndCall(ev.EndReason.MEDIA_LOST, hang_up=False)


def test_a_socket_that_is_closed_for_the_next_one_is_no_hang_up() -> None:
    line = talk()
    line.do(ev.MediaAwaited(for_s=4.0))
    line.do(ev.MediaClosed(clean=True))
    line.wait(3.9)
    assert not line.all(ev.EndCall)
    line.do(ev.CallerGone())
    assert line.end() == ev.EndCall(ev.EndReason.CALLER_HUNG_UP, hang_up=False)


def test_a_dead_line_whose_caller_is_awaited_already_is_left_to_who_awaits_him() -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", "A long answer."), ev.AgentAudio("r1", "i1", pcm(4000)))
    line.wait(0.3)
    line.phone._marks = False
    line.phone._due.clear()
    line.do(ev.MediaAwaited(for_s=6.0))
    line.wait(2.6)
    assert line.notes() == ["media_half_dead"] and not line.all(ev.ConnectAgain)
    line.wait(3.0)
    assert not line.all(ev.EndCall)


def test_what_the_caller_said_last_is_still_written_down_when_his_line_has_broken() -> None:
    line = broken()
    line.do(ev.CallerTranscript("u1", "My name is Ann.", final=True))
    assert line.turn("u1").text == "My name is Ann."
    told = [
        command for command in line.call.memory.recall() if isinstance(command, ev.AddCallerWords)
    ]
    assert told == [ev.AddCallerWords("My name is Ann.")]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ev.CallerGone(), ev.EndReason.CALLER_HUNG_UP),
        (ev.EndRequested(ev.EndReason.REPLACED, hang_up=False), ev.EndReason.REPLACED),
        (ev.EndRequested(ev.EndReason.DRAINED, politely=True), ev.EndReason.DRAINED),
        (ev.MediaClosed(clean=False, for_good=True), ev.EndReason.MEDIA_LOST),
    ],
)
def test_who_is_waited_for_is_let_go_at_once_when_more_is_known(
    event: ev.Event, reason: ev.EndReason
) -> None:
    line = broken()
    line.do(event)
    end = line.end()
    assert end is not None and end.reason is reason
    assert "apology" not in played(line)


# ---------------------------------------------------------------------- on the way out


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
    line.do(ev.ProviderLost("insufficient_quota", retryable=False))
    line.wait(2.0)
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


# ---------------------------------------------------------------------- who has heard what


def ear(line: Line, seconds: float, spoken_ms: float = 1000.0) -> None:
    """Our ear hears something for so long, and what comes from the phone is quiet again."""
    line.do(ev.CallerAudible(True))
    line.wait(seconds + 0.6)
    line.do(ev.CallerAudible(False, spoken_ms))


def test_a_session_that_stops_in_the_middle_of_what_it_hears_again_is_given_up_too() -> None:
    line = talk()
    line.do(ev.CallerAudible(True), ev.SpeechStarted("u1"))
    line.wait(1.0)
    line.do(ev.ProviderLost("connection closed: 1006", retryable=True))
    line.wait(0.8)
    line.do(ev.CallerAudible(False, 1200.0), ev.ProviderReady())
    line.wait(0.1)
    line.do(ev.SpeechStarted("v1"))
    line.wait(3.0)
    assert "silence_broken" in line.notes()
    line.wait(3.0)
    assert "provider_stuck" in line.notes()
    assert len(line.all(ev.Reconnect)) == 2


def test_a_caller_who_goes_on_speaking_to_the_new_session_is_not_spoken_to() -> None:
    line = talk()
    line.do(ev.CallerAudible(True), ev.SpeechStarted("u1"))
    line.wait(1.0)
    line.do(ev.ProviderLost("connection closed: 1006", retryable=True))
    line.wait(0.4)
    line.do(ev.ProviderReady())
    line.wait(0.1)
    line.do(ev.SpeechStarted("v1"))
    line.wait(12.0)
    assert line.notes() == ["provider_lost"]


@pytest.mark.parametrize("heard_begin", [True, False])
@pytest.mark.parametrize("still_speaks", [True, False])
def test_what_was_said_while_the_model_was_away_and_is_not_heard_again_is_asked_about(
    heard_begin: bool, still_speaks: bool
) -> None:
    line = talk()
    line.do(ev.CallerAudible(True))
    if heard_begin:
        line.do(ev.SpeechStarted("u1"))
    line.do(ev.ProviderLost("connection closed: 1006", retryable=True))
    line.wait(1.2)
    if still_speaks:
        line.do(ev.ProviderReady())
        line.wait(1.0)
    line.do(ev.CallerAudible(False, 900.0))
    if not still_speaks:
        line.do(ev.ProviderReady())
    line.wait(5.0)
    assert "caller_unheard" in line.notes()
    assert len(line.requests()) == 1


def test_what_is_heard_again_is_not_asked_about() -> None:
    line = talk()
    line.do(ev.ProviderLost("connection closed: 1006", retryable=True))
    ear(line, 1.0)
    line.do(ev.ProviderReady())
    line.wait(0.2)
    line.do(ev.SpeechStarted("v1"))
    line.wait(0.1)
    line.do(ev.SpeechStopped("v1"))
    line.answer("r1", "i1", "It is like this.", 1500)
    line.wait(8)
    assert line.notes() == ["provider_lost"]
    assert not line.requests()


def test_the_echo_of_the_agent_is_nobody_who_was_not_heard() -> None:
    line = talk()
    for number in range(4):
        line.caller_says(f"u{number}", 1.0, "Question?")
        line.answer(f"r{number}", f"i{number}", "This is an answer.", 1500)
        line.wait(0.4)
        ear(line, 1.3)
        line.wait(3)
    assert line.notes() == []
    line.do(ev.ResponseStarted("r9"), ev.AgentText("r9", "i9", "And?"))
    line.do(ev.AgentAudio("r9", "i9", pcm(1000)), ev.ResponseDone("r9", "completed"))
    line.wait(0.5)
    ear(line, 1.5)
    line.wait(1.5)
    assert line.notes() == ["caller_unheard"], "he went on when the agent was silent"


def test_a_phone_that_stops_sending_in_mid_word_leaves_nobody_in_silence() -> None:
    line = talk()
    line.do(ev.CallerAudible(True), ev.SpeechStarted("u1"))
    line.wait(8)
    assert line.notes() == [], "as long as he speaks"
    line.caller_sends = False
    line.wait(3)
    assert line.notes() == ["silence_broken"]


def test_a_session_that_was_renewed_in_time_is_as_good_as_any() -> None:
    line = talk(life_s=20.0)
    line.wait(14)
    line.do(ev.ReserveOpened())
    assert line.notes() == ["session_renewed"]
    line.do(ev.ProviderReady(3600.0))
    line.wait(1)
    line.caller_says("u1", 1.0, "Question?")
    line.wait(4.5)
    assert "answer_overdue" in line.notes()
    assert len(line.all(ev.Reconnect)) == 2
    assert "apology" not in played(line)


def test_a_soft_speaker_is_let_speak_and_not_left_with_a_session_that_hears_no_end() -> None:
    line = talk()
    line.do(ev.SpeechStarted("u1"))
    line.wait(7.9)
    assert line.notes() == []
    line.wait(10)
    assert set(line.notes()) == {"silence_broken"}, "he may be waiting as well as speaking"
    line.wait(8)
    assert line.notes()[0] == "silence_broken"
    assert "provider_stuck" in line.notes()


def test_silence_that_the_model_sends_instead_of_speech_is_silence_from_the_start() -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    stopped_s = line.now
    line.started("r1")
    line.wait(1.5)
    for _ in range(4):
        line.do(ev.AgentAudio("r1", "i1", silent_pcm(200)))
        line.wait(0.4)
    (note, *_) = [done for done in line.done if isinstance(done.command, ev.Note)]
    assert note.command.kind == "silence_broken"
    assert note.at_s - stopped_s < 2.5


def test_noise_at_the_callers_side_costs_a_good_model_no_call() -> None:
    line = talk()
    for _ in range(12):
        line.do(ev.CallerAudible(speaking=True))
        line.wait(0.5)
        line.do(ev.CallerAudible(speaking=False, spoken_ms=240))
        line.wait(2.0)
        if line.call.responses.asked is not None:
            request = line.last_request().request_id
            line.answer(f"n{request}", f"i{request}", "I could not hear you.", 800, request)
            line.wait(1.5)
    assert line.notes().count("caller_unheard") == 1, "asked once, and then it was noise"
    assert not line.all(ev.Reconnect) and line.end() is None


@pytest.mark.parametrize("loud_ms", [600.0, 800.0])
def test_a_short_question_is_enough_for_another_session_and_not_for_the_way_out(
    loud_ms: float,
) -> None:
    line = talk(person=PERSON)

    def says(spoken_ms: float) -> None:
        line.do(ev.CallerAudible(speaking=True))
        line.wait(spoken_ms / 1000 + PAUSE_S)
        line.do(ev.CallerAudible(speaking=False, spoken_ms=spoken_ms))
        line.wait(2.0)

    def not_heard() -> None:
        request = line.last_request().request_id
        line.answer(f"n{request}", f"i{request}", "I could not hear you.", 800, request)
        line.wait(2.0)

    says(loud_ms)
    not_heard()
    says(loud_ms)
    assert len(line.all(ev.Reconnect)) == 1
    assert [kept.retain for kept in line.all(ev.RetainAudio)][-1]
    line.do(ev.ProviderReady())
    line.wait(1.5)
    not_heard()
    for _ in range(3):
        asked = len(line.requests())
        says(loud_ms)
        assert len(line.requests()) == asked + 1, "he must not speak into the void"
        not_heard()
    assert len(line.all(ev.Reconnect)) == 1 and not line.all(ev.TransferToPerson)
    says(1200.0)
    assert line.all(ev.TransferToPerson) == [ev.TransferToPerson()]


def test_an_echo_does_not_cut_prepared_words_while_there_is_no_model() -> None:
    line = Line(clips=(*CLIPS, GREETING_CLIP), ready=False)
    line.wait(0.3)
    line.do(ev.CallerAudible(speaking=True))
    line.wait(0.4)
    line.do(ev.CallerAudible(speaking=False, spoken_ms=240))
    line.wait(1.5)
    assert not line.all(ev.ClearPhone)
    assert line.turn("greeting_1").text == GREETING_CLIP.text


def test_a_caller_who_mutes_himself_in_mid_turn_is_heard_to_fall_silent_and_answered() -> None:
    line = talk()
    line.caller_sends = False
    line.do(ev.SpeechStarted("u1"), ev.CallerAudible(speaking=True))
    line.wait(0.5)
    line.do(ev.MediaMuted(muted=True))
    line.wait(0.9)
    assert line.all(ev.FeedSilence) == [ev.FeedSilence(700)]
    line.do(ev.SpeechStopped("u1"), ev.CallerAudible(speaking=False, spoken_ms=900))
    line.wait(0.3)
    line.answer("r1", "i1", "Of course.", 1000)
    line.wait(30)
    assert len(line.all(ev.FeedSilence)) == 1, "nobody waits for the end of a turn any more"
    assert not line.all(ev.Reconnect) and "silence_broken" not in line.notes()
    assert not line.turn("i1").interrupted


def test_a_muted_caller_who_waits_is_not_left_in_silence() -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.do(ev.MediaMuted(muted=True))
    line.wait(2.5)
    assert line.notes() == ["silence_broken"]
    line.wait(3.0)
    assert line.all(ev.Reconnect), "a model that says nothing is given up as ever"


def test_a_line_that_sends_nothing_in_mid_turn_is_heard_to_fall_silent() -> None:
    line = talk()
    line.do(ev.SpeechStarted("u1"))
    line.wait(0.5)
    line.caller_sends = False
    line.wait(1.9)
    assert not line.all(ev.FeedSilence), "it may be a lump"
    line.wait(3.0)
    fed = [done for done in line.done if isinstance(done.command, ev.FeedSilence)]
    assert len(fed) == 5, "as much as a line would have sent, and no more"
    assert fed[-1].at_s - fed[0].at_s == pytest.approx(4 * 0.7, abs=0.01)


def test_a_model_that_waits_long_for_more_is_given_that_long_by_a_muted_phone() -> None:
    line = talk()
    line.caller_sends = False
    line.do(ev.SpeechStarted("u1"), ev.MediaMuted(muted=True))
    line.wait(30)
    assert not line.all(ev.Reconnect) and line.end() is None
    assert len(line.all(ev.FeedSilence)) > 40


def test_a_cough_before_a_mute_owes_nobody_an_answer() -> None:
    line = talk()
    line.do(ev.CallerAudible(speaking=True))
    line.wait(1.0)
    line.do(ev.CallerAudible(speaking=False, spoken_ms=300), ev.MediaMuted(muted=True))
    line.caller_sends = False
    line.wait(60)
    assert "silence_broken" not in line.notes()


def test_a_soft_speaker_is_talked_to_once() -> None:
    line = talk()
    line.do(ev.SpeechStarted("u1"))
    line.wait(19.9)
    assert line.notes() == ["silence_broken"]


def test_an_answer_in_a_new_voice_is_given_its_whole_time() -> None:
    line = Line(agent(nudge_after_s=120), Limits(), spare_voice=True, clips=CLIPS)
    greeted(line)
    line.caller_says("u1", 1.0, "Question?")
    for number in range(1, 3):
        line.started(f"r{number}", line.last_request().request_id if number > 1 else "")
        line.do(ev.AgentText(f"r{number}", f"i{number}", "Words."))
        while len(line.requests()) == number:
            line.wait(0.1)
    assert line.all(ev.ChangeVoice) == [ev.ChangeVoice(own=False)]
    line.wait(3.5)
    assert not line.all(ev.Reconnect)


def test_a_new_answer_that_begins_softly_is_not_the_old_one_that_stalled() -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.started("r1")
    line.do(ev.AgentAudio("r1", "i1", pcm(300)))
    while len(line.requests()) == 0:
        line.wait(0.1)
    assert "silence_broken" in line.notes()
    line.started("r2", line.last_request().request_id)
    line.do(ev.AgentAudio("r2", "i2", silent_pcm(100)))
    line.wait(0.3)
    line.do(ev.AgentAudio("r2", "i2", pcm(1000)), ev.AgentItemDone("r2", "i2"))
    line.do(ev.ResponseDone("r2", "completed"))
    line.wait(3)
    assert line.turn("i2").to_ms is not None and not line.turn("i2").interrupted


def test_a_radio_beside_the_caller_keeps_nobody_waiting_for_an_answer() -> None:
    """Our ear hears it without a pause; the model knows better, and says nothing more."""
    line = talk()
    line.do(ev.CallerAudible(speaking=True))
    line.caller_says("u1", 1.0, "Question?")
    line.wait(2.9)
    assert "silence_broken" in line.notes()


@pytest.mark.parametrize("after_s", [0.1, 0.7, 1.6])
@pytest.mark.parametrize("loud_s", [0.3, 1.2, 60.0])
def test_noise_that_begins_after_his_question_does_not_pass_for_his_voice(
    after_s: float, loud_s: float
) -> None:
    """A radio, a child, a street: whoever waits is spoken to within three seconds all the same."""
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    asked_s = line.now
    line.started("r1")
    line.wait(after_s)
    while line.now < asked_s + 6:
        line.do(ev.CallerAudible(speaking=True))
        line.wait(loud_s)
        line.do(ev.CallerAudible(speaking=False, spoken_ms=min(loud_s, 3.0) * 1000))
        line.wait(PAUSE_S)
    (told_s, *_) = [done.at_s for done in line.done if done.command == ONE_MOMENT]
    assert told_s - asked_s < 2.95


@pytest.mark.parametrize(("hears", "told"), [(True, False), (False, True)])
def test_noise_that_a_new_session_does_not_hear_either_is_no_voice(hears: bool, told: bool) -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.CallerAudible(speaking=True))
    line.wait(0.4)
    line.do(ev.ProviderReady(3600.0))
    line.wait(0.8)
    if hears:
        line.do(ev.SpeechStarted("u2"))
    line.wait(1.5)
    assert (ONE_MOMENT in line.all(ev.Note)) is told


def test_a_caller_who_goes_on_with_his_question_is_let_speak() -> None:
    """A model that hears him says so at once; then our ear is believed."""
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.wait(1.4)
    line.do(ev.CallerAudible(speaking=True))
    line.wait(0.6)
    line.do(ev.SpeechStarted("u2"))
    line.wait(6)
    assert "silence_broken" not in line.notes()


def test_who_speaks_to_a_deaf_model_is_not_spoken_over() -> None:
    """Nobody waits for the agent: what only our ear hears is his voice, for as long as it takes."""
    line = talk()
    line.do(ev.CallerAudible(speaking=True))
    line.wait(8)
    assert line.notes() == []
    line.do(ev.CallerAudible(speaking=False, spoken_ms=7000))
    line.wait(0.9)
    assert line.notes() == []
    line.wait(0.4)
    assert line.notes() == ["caller_unheard"]


def test_a_radio_that_the_model_listens_to_ends_some_time() -> None:
    line = talk()
    line.do(ev.CallerAudible(speaking=True), ev.SpeechStarted("u1"))
    line.wait(44)
    assert line.notes() == [], "somebody may well read something out"
    line.wait(6)
    assert {"silence_broken", "provider_stuck"} <= set(line.notes())


def test_a_caller_who_goes_on_speaking_while_the_model_is_away_is_let_speak() -> None:
    line = talk()
    line.caller_says("u1", 1.0, "Question?")
    line.do(ev.ProviderLost("close_1006", retryable=True), ev.CallerAudible(speaking=True))
    line.wait(8)
    assert "silence_broken" not in line.notes()


@pytest.mark.parametrize("text", ["...", "—", "👍"])
def test_an_answer_that_cannot_be_spoken_is_none(text: str) -> None:
    line = Line(agent(), speaks=False, clips=(*CLIPS, GREETING_CLIP))
    line.wait(3)
    line.caller_says("u1", 1.0)
    line.started("r1")
    line.do(ev.AgentText("r1", "i1", text), ev.AgentItemDone("r1", "i1"))
    line.do(ev.ResponseDone("r1", "completed"))
    line.wait(1.0)
    assert line.notes() == ["response_failed"]
    assert line.last_request().purpose is ev.Purpose.ANSWER


def test_a_response_that_is_cancelled_by_nobody_is_asked_for_again() -> None:
    line = greeted(Line(clips=CLIPS))
    line.caller_says("u1", 1.0)
    line.started("r1")
    line.do(ev.ResponseDone("r1", "cancelled"))
    line.wait(1.0)
    assert line.notes() == ["response_failed"]
    assert line.last_request().purpose is ev.Purpose.ANSWER
