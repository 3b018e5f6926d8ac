"""Any order of events, sensible or not: what must hold in every call, checked after every step."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.limits import Limits
from sessions_app.core.phrases import Clip
from tests.unit.core.line import CLIPS, GREETING_CLIP, Line, agent, of, pcm

LIMITS = Limits(max_s=240, media_silence_s=30, answer_s=8)
WORDS = "one two three four five six seven eight nine ten. "


class WatchedLine(Line):
    """Judges every answer of the call by what a model, a phone and a caller could see."""

    def __init__(
        self, profile: AgentProfile, *, speaks: bool, marks: bool, clips: tuple[Clip, ...]
    ) -> None:
        self.sound_ms: Counter[str] = Counter()
        self.tools: set[str] = set()
        self.answered: Counter[str] = Counter()
        self.final: Counter[str] = Counter()
        self.open_request = ""
        self.running = ""
        self.asked_s = self.running_s = 0.0
        self.asked_again = False
        self.speaking_caller = ""
        #: A session of the model is being made; and there is one.
        self.awaited, self.there = True, False
        #: Their voice has failed: they are cut to what will be heard, before it has been.
        self.voiceless: set[str] = set()
        super().__init__(
            profile,
            LIMITS,
            speaks=speaks,
            marks=marks,
            open_media=False,
            ready=False,
            clips=clips,
        )

    def check(self, event: ev.Event, commands: list[ev.Command]) -> None:
        self.follow(event)
        ended = self.all(ev.EndCall)
        assert not ended or not commands, "something after the end"
        for at, command in enumerate(commands):
            self.judge(command)
            assert not isinstance(command, ev.EndCall) or at == len(commands) - 1
        for call_id in self.tools:
            assert self.answered[call_id] == 1, f"tool {call_id}: {self.answered[call_id]} answers"

    def follow(self, event: ev.Event) -> None:
        if isinstance(event, ev.FromModel) and not self.was_ready:
            return  # the session it comes from has been given up
        match event:
            case ev.ToolCalled(call_id=call_id) if not self.call.over:
                self.tools.add(call_id)
            case ev.ProviderReady():
                self.awaited, self.there = False, True
            case ev.ResponseStarted():
                self.running, self.running_s = event.response_id, self.now
                if event.request_id == self.open_request:
                    self.open_request = ""
            case ev.ResponseDone() if event.response_id == self.running:
                self.running = ""
            case ev.RequestRefused() if event.request_id == self.open_request:
                # A busy model is asked the same again, and its patience is one for both.
                self.open_request, self.asked_again = "", event.busy
            case ev.SpeechStarted(item_id=item_id):
                self.speaking_caller = item_id
            case ev.SpeechStopped():
                self.speaking_caller = ""
            case ev.ProviderLost():
                self.gone()
            case ev.ClauseFailed():
                self.voiceless |= {clause.item_id for clause in self.all(ev.SpeakClause)}

    def gone(self) -> None:
        """The session of the model, and all that was asked of it."""
        self.awaited = self.there = self.asked_again = False
        self.running = self.open_request = self.speaking_caller = ""
        self.tools.clear()
        self.answered.clear()

    def patient(self, since_s: float) -> bool:
        """A session that has given nothing yet is not waited for as long."""
        limits, model = self.call.limits, self.call.model
        doubt = model.doubtful or model.suspect
        patience_s = limits.doubtful_answer_s if doubt else limits.answer_s
        return self.now - since_s < patience_s - 0.001

    def judge(self, command: ev.Command) -> None:
        if isinstance(command, ev.ProviderCommand):
            assert self.there, f"told to nobody: {command}"
        match command:
            case ev.Reconnect():
                self.gone()
                self.awaited = True
            case ev.Play(item_id=item_id):
                self.sound_ms[item_id] += round(len(command.pcm) * 1000 / (command.rate_hz * 2))
            case ev.CreateResponse():
                assert not self.speaking_caller, "asked into the caller's words"
                assert not (self.open_request and self.patient(self.asked_s)), "asked twice"
                assert not (self.running and self.patient(self.running_s)), "one still runs"
                self.open_request = command.request_id
                self.asked_s = self.asked_s if self.asked_again else self.now
                self.asked_again = False
            case ev.CancelResponse() if command.response_id == self.running:
                self.running = ""  # given up, and whatever it still says is dead
            case ev.Note(kind="answer_overdue"):
                self.open_request = self.running = ""  # given up
            case ev.AnswerTool():
                self.answered[command.call_id] += 1
            case ev.CutItem():
                heard = self.phone.heard_ms(command.item_id, self.now)
                assert command.heard_ms <= self.sound_ms[command.item_id] + 1
                early = command.item_id in self.voiceless
                assert command.heard_ms <= heard + 1 or early, (command, heard)
                assert not (command.heard_text and command.heard_ms <= 0)
            case ev.SaveTurn(turn=turn):
                assert turn.to_ms is None or turn.to_ms >= turn.from_ms
                assert not self.final[turn.item_id], f"{turn.item_id} was final"
                self.final[turn.item_id] += turn.final
                if turn.speaker is ev.Speaker.AGENT and turn.text:
                    assert self.phone.heard_ms(turn.item_id, self.now) > 0


class CallMachine(RuleBasedStateMachine):
    """Plays the model, the phone and the caller, well-behaved or not."""

    @initialize(
        speaks=st.booleans(),
        marks=st.booleans(),
        greeting=st.sampled_from(["", "Hello. How can I help you today?"]),
        begun=st.sampled_from([True, True, True, False]),
        clips=st.sampled_from([(), CLIPS, (*CLIPS, GREETING_CLIP)]),
        person=st.sampled_from(["", "", "442079460111"]),
    )
    def dial(
        self,
        speaks: bool,
        marks: bool,
        greeting: str,
        begun: bool,
        clips: tuple[Clip, ...],
        person: str,
    ) -> None:
        self.log: list[tuple[float, tuple[ev.Event, ...]]] = []
        self.serial = 0
        self.items: list[tuple[str, str]] = []
        self.tool_serial = 0
        self.profile = agent(
            greeting=greeting, nudge_after_s=5, nudges_max=1, fallback_number=person
        )
        self.clips = clips
        self.line = WatchedLine(self.profile, speaks=speaks, marks=marks, clips=clips)
        if begun:
            self.do(ev.MediaOpened(), ev.ProviderReady())

    def do(self, *events: ev.Event) -> None:
        self.log.append((0.0, events))
        self.line.do(*events)

    # ------------------------------------------------------------------ ordinary talk

    @rule(ours=st.booleans(), ms=st.sampled_from([80, 700, 4000]), whole=st.booleans())
    def answers(self, ours: bool, ms: float, whole: bool) -> None:
        """The model answers as it should, or leaves the end to other rules."""
        self.response_begins(ours)
        response, item = self.items[-1]
        if response != self.line.running:
            return
        self.do(ev.AgentText(response, item, WORDS))
        if self.line.speaks:
            self.do(ev.AgentAudio(response, item, pcm(ms)))
        else:
            for clause in self.clauses()[-1:]:
                self.do(ev.SpokenAudio(clause.item_id, clause.clause, pcm(ms)))
                self.do(ev.ClauseSpoken(clause.item_id, clause.clause))
        if whole:
            self.do(ev.AgentItemDone(response, item), ev.ResponseDone(response, "completed"))

    @rule(seconds=st.floats(0.2, 2.0))
    def caller_talks(self, seconds: float) -> None:
        self.caller_speaks()
        self.time_passes(seconds)
        self.caller_stops(0)
        self.words_of_the_caller(0, True)

    @precondition(lambda self: self.line._opened)
    @rule()
    def a_moment_passes(self) -> None:
        self.time_passes(0.25)

    # ------------------------------------------------------------------ time, phone

    @rule(seconds=st.floats(0.005, 14.0))
    def time_passes(self, seconds: float) -> None:
        self.log.append((seconds, ()))
        self.line.wait(seconds)

    @precondition(lambda self: not self.line._opened)
    @rule()
    def media_opens(self) -> None:
        self.do(ev.MediaOpened())

    @precondition(lambda self: self.line.awaited)
    @rule(life_s=st.sampled_from([None, None, 3600.0, 20.0]))
    def model_is_ready(self, life_s: float | None) -> None:
        self.do(ev.ProviderReady(life_s))

    @rule(speaking=st.booleans(), spoken_ms=st.sampled_from([0.0, 100.0, 900.0]))
    def our_ear(self, speaking: bool, spoken_ms: float) -> None:
        self.do(ev.CallerAudible(speaking, spoken_ms))

    @precondition(lambda self: self.line.all(ev.TransferToPerson))
    @rule(works=st.booleans())
    def transfer(self, works: bool) -> None:
        self.do(ev.Transferred() if works else ev.TransferFailed("HTTP 500"))

    @rule()
    def supervisor_whispers(self) -> None:
        self.do(ev.Whispered("Offer a refund."))

    @rule(muted=st.booleans())
    def leg_is_muted(self, muted: bool) -> None:
        self.do(ev.MediaMuted(muted))

    @rule(mark=st.integers(0, 9))
    def strange_mark(self, mark: int) -> None:
        self.do(ev.MarkPlayed(f"late{mark}"))

    @rule(key=st.sampled_from("0123#*"))
    def key(self, key: str) -> None:
        self.do(ev.DtmfPressed(key))

    @rule()
    def early_tick(self) -> None:
        self.do(ev.Tick())

    # ------------------------------------------------------------------ caller

    @rule()
    def caller_speaks(self) -> None:
        self.serial += 1
        self.do(ev.SpeechStarted(f"u{self.serial}"))

    @rule(back=st.integers(0, 2))
    def caller_stops(self, back: int) -> None:
        self.do(ev.SpeechStopped(f"u{self.serial - back}"))

    @rule(back=st.integers(0, 3), final=st.booleans())
    def words_of_the_caller(self, back: int, final: bool) -> None:
        self.do(ev.CallerTranscript(f"u{self.serial - back}", "hello ", final))

    @rule(back=st.integers(0, 3))
    def words_of_the_caller_fail(self, back: int) -> None:
        self.do(ev.CallerTranscriptFailed(f"u{self.serial - back}", "why"))

    # ------------------------------------------------------------------ model

    @rule(ours=st.booleans())
    def response_begins(self, ours: bool) -> None:
        self.serial += 1
        if self.line.running:
            # A model runs one response at a time.
            self.items.append((self.line.running, f"i{self.serial}"))
            return
        request = self.line.open_request if ours else ""
        self.do(ev.ResponseStarted(f"r{self.serial}", request))
        self.items.append((f"r{self.serial}", f"i{self.serial}"))

    @precondition(lambda self: self.items)
    @rule(
        back=st.integers(1, 2),
        ms=st.sampled_from([0, 0.125, 20, 333, 2500]),
        second=st.booleans(),
    )
    def sound(self, back: int, ms: float, second: bool) -> None:
        response, item = self.items[-back:][0]
        if not self.line.speaks or response != self.line.running:
            return
        self.do(ev.AgentAudio(response, item + "b" * second, pcm(ms)))

    @precondition(lambda self: self.items)
    @rule(back=st.integers(1, 2), second=st.booleans())
    def words(self, back: int, second: bool) -> None:
        response, item = self.items[-back:][0]
        if response == self.line.running:
            self.do(ev.AgentText(response, item + "b" * second, WORDS))

    @precondition(lambda self: self.items)
    @rule(second=st.booleans())
    def item_done(self, second: bool) -> None:
        response, item = self.items[-1]
        self.do(ev.AgentItemDone(response, item + "b" * second))

    @precondition(lambda self: self.items)
    @rule(
        back=st.integers(1, 2),
        status=st.sampled_from(["completed", "completed", "cancelled", "failed", "incomplete"]),
        retryable=st.booleans(),
    )
    def response_done(self, back: int, status: str, retryable: bool) -> None:
        response, _ = self.items[-back:][0]
        self.do(ev.ResponseDone(response, status, "why", retryable))

    @precondition(lambda self: self.items)
    @rule(name=st.sampled_from(["end_call", "no_such"]), again=st.booleans())
    def tool(self, name: str, again: bool) -> None:
        self.tool_serial += not again
        self.do(ev.ToolCalled(self.items[-1][0], f"c{self.tool_serial}", name, "{"))

    @rule(busy=st.booleans(), back=st.integers(0, 1))
    def refused(self, busy: bool, back: int) -> None:
        requests = self.line.requests()
        if len(requests) > back:
            self.do(ev.RequestRefused(requests[-1 - back].request_id, busy, "why"))

    @precondition(lambda self: self.line.awaited or self.line.there)
    @rule(retryable=st.booleans())
    def model_is_lost(self, retryable: bool) -> None:
        if self.serial % 7 == 3:
            self.do(ev.ProviderLost("close_1006", retryable=retryable))

    # ------------------------------------------------------------------ voice

    def clauses(self) -> list[ev.SpeakClause]:
        stops = [n for n, d in enumerate(self.line.done) if isinstance(d.command, ev.StopSpeaking)]
        after = self.line.done[stops[-1] :] if stops else self.line.done
        return of(ev.SpeakClause, (done.command for done in after))

    @precondition(lambda self: not self.line.speaks)
    @rule(which=st.integers(0, 3), ms=st.sampled_from([0.125, 100, 1500]), end=st.booleans())
    def clause(self, which: int, ms: float, end: bool) -> None:
        clauses = self.clauses()
        if which < len(clauses):
            clause = clauses[which]
            self.do(ev.SpokenAudio(clause.item_id, clause.clause, pcm(ms)))
            if end:
                self.do(ev.ClauseSpoken(clause.item_id, clause.clause))

    @precondition(lambda self: not self.line.speaks and self.serial % 11 == 5)
    @rule()
    def clause_fails(self) -> None:
        for clause in self.clauses()[:1]:
            self.do(ev.ClauseFailed(clause.item_id, clause.clause, "HTTP 500"))

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def a_call_that_is_over_waits_for_nothing(self) -> None:
        line = getattr(self, "line", None)
        if line is not None and line.call.over:
            assert line.call.next_deadline() is None
            assert len(line.all(ev.EndCall)) == 1

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        again = WatchedLine(
            self.profile,
            speaks=self.line.speaks,
            marks=self.line.phone._marks,
            clips=self.clips,
        )
        for seconds, events in self.log:
            again.do(*events) if events else again.wait(seconds)
        assert again.done == self.line.done, "the same events gave something else"
        self.line.wait(LIMITS.max_s + LIMITS.unclaimed_s + 1)
        assert self.line.call.over, "the call does not end"
        asked = {turn.turn.item_id for turn in self.line.all(ev.SaveTurn)}
        assert asked == {item for item, times in self.line.final.items() if times == 1}


CallMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyOrderOfEvents = CallMachine.TestCase


@pytest.mark.parametrize("speaks", [True, False])
def test_an_hour_of_talk_takes_no_more_memory_than_a_minute(speaks: bool) -> None:
    sizes = []
    line = Line(agent(greeting=""), Limits(max_s=100_000), speaks=speaks)
    for number in range(400):
        line.do(ev.SpeechStarted(f"u{number}"), ev.DtmfPressed("1"))
        line.wait(0.3)
        line.do(ev.SpeechStopped(f"u{number}"))
        line.started(f"r{number}")
        line.do(ev.AgentText(f"r{number}", f"i{number}", WORDS))
        line.do(ev.ToolCalled(f"r{number}", f"c{number}", "no_such", "{}"))
        if speaks:
            line.do(ev.AgentAudio(f"r{number}", f"i{number}", pcm(300)))
        else:
            for clause in line.all(ev.SpeakClause)[-1:]:
                line.spoken(clause, 300)
        line.do(ev.ResponseDone(f"r{number}", "completed", usage={"total_tokens": 5}))
        line.wait(0.5)
        line.done = line.done[-50:]
        sizes.append(len(pickle.dumps(line.call)))
    assert max(sizes[300:]) < max(sizes[:300]) * 1.1 + 1000
