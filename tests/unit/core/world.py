"""A whole call in virtual time: a model, a voice and a caller around `Call`, and what can go wrong.

It goes on in steps of 20 ms, and at each of them notes whether the caller hears something, or says
something, or listens to silence that is owed an answer. Nothing here waits for a clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from sessions_app.core.phrases import Clip
from tests.unit.core.line import CLIPS, GREETING_CLIP, RATE_HZ, Line, agent, pcm, silent_pcm

STEP_S = 0.02
#: Longer than the second of sound that the phone has; of a longer one he hears what is beyond that.
STANDSTILL_S = 1.5


class Phase(StrEnum):
    """What is going on when a fault strikes."""

    BEFORE_GREETING = "before greeting"
    DURING_GREETING = "during greeting"
    CALLER_SPEAKING = "caller speaking"
    AGENT_SPEAKING = "agent speaking"
    TOOL_RUNNING = "tool running"
    AT_HANG_UP = "at hang-up"


class Fault(StrEnum):
    """What strikes. Those of the model strike its session, and the next one is well, unless it
    says "always".
    """

    NONE = "none"
    DROPPED = "model: connection dropped"
    EXPIRED = "model: session expired"
    REFUSED_AFTER_DROP = "model: dropped, then away for good"
    QUOTA = "model: no quota any more"
    SLOW_AFTER_DROP = "model: dropped, then slow to come"
    FROZEN = "model: says nothing any more"
    DEAF = "model: hears nothing any more"
    DEAF_ALWAYS = "model: hears nothing, always"
    MUTE = "model: makes no response any more"
    MUTE_ALWAYS = "model: makes no response, always"
    NEARS_ITS_END = "model: session to be renewed"
    SILENT_AUDIO = "model: silence instead of speech, once"
    FALLS_SILENT = "model: silence instead of the rest of an answer"
    TEXT_ONLY = "model: text instead of speech, once"
    TEXT_ALWAYS = "model: text instead of speech, always"
    FAILS_ONCE = "model: a response fails"
    FAILS_ALWAYS = "model: every response fails"
    FAILS_FINALLY = "model: a response fails for want of money"
    REFUSES_ONCE = "model: a request is refused"
    THINKS_LONG = "model: a response is long in coming"
    COMPLAINS = "model: an error that ends nothing"
    INCOMPLETE = "model: a response is cut off"
    STALLS = "model: a response stops in the middle"
    VOICE_REFUSED = "voice: refuses"
    VOICE_STALLS = "voice: stops in the middle"
    VOICE_BREAKS = "voice: is cut off in the middle"
    VOICE_SLOW = "voice: is long in coming"
    HALF_DEAD = "phone: what we send does not arrive"
    FROZEN_PHONE = "phone: sends nothing any more"
    ABORTED = "phone: socket broken"
    HUNG_UP = "phone: caller hangs up"
    HUNG_UP_BY_EVENT = "phone: caller hangs up, told by the carrier only"
    LUMPS = "phone: frames come in lumps"
    MARKS_LATE = "phone: marks come late"
    STANDS_STILL = "our side: the process stands still"


@dataclass
class Answer:
    """What the model says next, and how it fares."""

    text: str
    audio_ms: float
    ends_call: bool = False
    tool: bool = False


@dataclass
class Model:
    """One session after the other; what belongs to a former one is never told."""

    session: int = 0
    ready: bool = False
    running: str = ""
    hears: bool = True
    frozen: bool = False
    mute: bool = False
    turns: int = 0
    responses: int = 0
    #: What was told of the conversation to the newest session.
    told: list[ev.ProviderCommand] = field(default_factory=list)


class World(Line):
    """A caller rings, asks, listens, asks again, and takes leave."""

    def __init__(
        self,
        fault: Fault = Fault.NONE,
        phase: Phase = Phase.AGENT_SPEAKING,
        *,
        speaks: bool = True,
        spare_voice: bool = True,
        person: str = "",
        clips: tuple[Clip, ...] = (*CLIPS, GREETING_CLIP),
    ) -> None:
        self.fault, self.phase = fault, phase
        self.struck_s: float | None = None
        #: How long he had waited already when it struck.
        self.silent_at_strike_s = 0.0
        self.model = Model()
        self.voice_fails = self.voice_stalls = self.voice_breaks = self.voice_slow = False
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self.fails = 0
        self.fails_always = self.silent_once = self.text_once = self.text_always = False
        self.incomplete_once = self.stalls_once = self.falls_silent_once = False
        self.fails_finally = self.refuses_once = self.thinks_long = False
        self.model_away = self.model_slow = self.reserve = False
        self.speaking = False
        self.caller_gone = False
        self.half_dead = False
        self.spoken_s = 0.0
        self.turn = 0
        #: Since when the caller waits for the agent; None: it is his own turn.
        self.waits_s: float | None = None
        self.silent_s = self.longest_s = 0.0
        self.answers_heard = 0
        self.greetings = 0
        self.awaited_item = ""
        self.transferred_s: float | None = None
        self.hung_up_s: float | None = None
        super().__init__(
            agent(greeting="Hello, how can I help you?", fallback_number=person),
            Limits(),
            speaks=speaks,
            spare_voice=speaks and spare_voice,
            open_media=False,
            ready=False,
            clips=clips,
        )
        self.phone.mark_every_ms = 500.0
        if phase is Phase.BEFORE_GREETING:
            self.after(0.5, self.strike)
        self.connect()
        self.after(0.6, self.open)

    # ------------------------------------------------------------------ time

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now + delay_s, next(self._serial), act))

    def of_session(self, delay_s: float, act: Callable[[], None]) -> None:
        """As `after`, unless the session is another by then, or says nothing any more."""
        session = self.model.session

        def still() -> None:
            if self.model.session == session and not self.model.frozen:
                act()

        self.after(delay_s, still)

    def run(self, most_s: float = 90.0) -> World:
        """Until the call is over."""
        until_s = self.now + most_s
        while not self.call.over and self.now < until_s:
            while self._later and self._later[0][0] <= self.now + 1e-9:
                heapq.heappop(self._later)[2]()
            if not self.call.over:
                self.wait(STEP_S)
                self.look()
        return self

    def open(self) -> None:
        self.do(ev.MediaOpened())
        self.waits_s = self.now
        if self.phase is Phase.DURING_GREETING:
            self.after(0.7, self.strike)

    # ------------------------------------------------------------------ the caller

    def hears_something(self) -> bool:
        if self.half_dead:
            return False
        return any(start <= self.now < end for start, end in self.phone.sounded)

    def look(self) -> None:
        """One step of 20 ms, as the caller lives through it."""
        self.listen()
        if self.speaking:
            if self.now >= self.spoken_s:
                self.stops()
        elif self.waits_s is not None and self.was_answered():
            self.waits_s = None
            self.after(0.8, self.speaks_up)

    def listen(self) -> None:
        if self.speaking or self.waits_s is None or self.hears_something() or self.caller_gone:
            self.silent_s = 0.0
        elif not self.call.over:
            self.silent_s += STEP_S
            self.longest_s = max(self.longest_s, self.silent_s)

    def was_answered(self) -> bool:
        """He heard the end of something that is neither prepared nor cut, since he waits."""
        if self.hears_something():
            return False
        for turn in self.finals_since(self.waits_s or 0.0):
            if turn.item_id.startswith(("filler", "leading", "apology", "farewell")):
                continue
            if turn.text.rstrip().endswith((".", "?")):
                self.answers_heard += 1
                return True
        return False

    def finals_since(self, since_s: float) -> list[ev.Turn]:
        return [
            done.command.turn
            for done in self.done
            if done.at_s >= since_s
            and isinstance(done.command, ev.SaveTurn)
            and done.command.turn.final
            and done.command.turn.speaker is ev.Speaker.AGENT
        ]

    def speaks_up(self) -> None:
        if self.call.over or self.speaking or self.caller_gone:
            return
        self.turn += 1
        self.speaking, self.spoken_s = True, self.now + 1.6
        self.after(0.2, lambda: self.ear(True))
        if self.model.hears:
            self.model.turns += 1
            name = f"u{self.model.session}_{self.turn}"
            self.of_session(0.15, lambda: self.do(ev.SpeechStarted(name)))
        if self.phase is Phase.CALLER_SPEAKING and self.turn == 2:
            self.after(0.7, self.strike)

    def stops(self) -> None:
        self.speaking = False
        self.waits_s = self.now
        self.after(0.6, lambda: self.ear(False))
        if self.model.hears and not self.model.frozen and self.model.ready:
            self.heard_turn()

    def heard_turn(self, delay_s: float = 0.5) -> None:
        """The model noticed the end of a turn, and answers."""
        name, text = f"u{self.model.session}_{self.turn}", f"Question {self.turn}?"
        self.of_session(delay_s, lambda: self.do(ev.SpeechStopped(name)))
        self.of_session(delay_s + 0.3, lambda: self.do(ev.CallerTranscript(name, text, True)))
        self.of_session(delay_s + 0.2, lambda: self.respond(""))

    def ear(self, speaking: bool) -> None:
        if not self.call.over:
            self.do(ev.CallerAudible(speaking, 0.0 if speaking else 1200.0))

    # ------------------------------------------------------------------ the model

    def connect(self) -> None:
        self.model.session += 1
        self.model.ready = self.model.frozen = False
        self.model.running, self.model.told = "", []
        if self.model_away:
            lost = ev.ProviderLost("no connection", retryable=True)
            self.of_session(1.5, lambda: self.do(lost))
            return
        reserve, self.reserve = self.reserve, False
        self.of_session(0.0 if reserve else 3.0 if self.model_slow else 0.35, self.came)

    def came(self) -> None:
        self.model.ready = True
        if self.fault is not Fault.DEAF_ALWAYS:
            self.model.hears = True
        if self.fault is not Fault.MUTE_ALWAYS:
            self.model.mute = False
        self.do(ev.ProviderReady(3600.0))
        replays = self.call._retaining and self.model.hears
        if replays and not self.call.over:
            # The kept audio comes in a burst: the turn begins, and ends with the caller.
            name = f"u{self.model.session}_{self.turn}"
            self.of_session(0.1, lambda: self.do(ev.SpeechStarted(name)))
            if not self.speaking:
                self.heard_turn(0.2)

    def respond(self, request_id: str, purpose: ev.Purpose = ev.Purpose.ANSWER) -> None:
        if self.model.mute:
            return
        if self.refuses_once and request_id:
            self.refuses_once = False
            self.do(ev.RequestRefused(request_id, busy=False, reason="invalid_value"))
            return
        if self.thinks_long:
            self.thinks_long = False
            self.of_session(4.0, lambda: self.respond(request_id, purpose))
            return
        if self.model.running or not self.model.ready:
            if request_id:
                self.do(ev.RequestRefused(request_id, busy=True, reason="busy"))
            return
        self.model.responses += 1
        number = self.model.responses
        response, item = f"r{number}", f"i{number}"
        self.model.running = response
        self.do(ev.ResponseStarted(response, request_id))
        self.greetings += purpose is ev.Purpose.GREETING
        last = self.turn >= 4 and self.model.hears
        goodbye = purpose is ev.Purpose.GOODBYE
        answer = Answer("This is all of an answer. It ends here.", 2600.0, ends_call=last)
        if goodbye or last:
            answer = Answer("Goodbye then.", 900.0, ends_call=last)
        if self.turn == 3 and self.phase is Phase.TOOL_RUNNING and not goodbye and not request_id:
            self.tool(response)
            return
        if self.phase is Phase.AT_HANG_UP and last and self.struck_s is None:
            self.strike()
        self.of_session(0.25, lambda: self.say(response, item, answer))

    def tool(self, response: str) -> None:
        """A function is called; its answer is to be spoken in a response of its own."""

        def call() -> None:
            if self.model.running != response:
                return
            self.do(ev.ToolCalled(response, f"call_{response}", "lookup", "{}"))
            if self.struck_s is None:
                self.strike()
            self.of_session(0.05, lambda: self.over(response, "completed"))

        self.of_session(0.2, call)

    def say(self, response: str, item: str, answer: Answer) -> None:
        if self.model.running != response:
            return
        if self.fails_always or self.fails > 0:
            self.fails -= 1
            self.over(response, "failed")
            return
        if self.fails_finally:
            self.over(response, "failed", retryable=False)
            return
        if answer.ends_call:
            self.do(ev.ToolCalled(response, f"call_{response}", "end_call", "{}"))
        wrong = self.text_once or self.text_always
        text_only = not self.call.speaking.external_voice and wrong
        silent, self.silent_once = self.silent_once, False
        if text_only:
            self.text_once = False
        cut = self.incomplete_once or self.stalls_once
        pieces = max(1, round(answer.audio_ms / 200))
        words = answer.text.split()
        sounds = 0 if silent else pieces
        if self.falls_silent_once and not self.call.speaking.external_voice:
            self.falls_silent_once, sounds = False, pieces // 2
            # Its words come with it as if they were spoken, and silence for a while longer.
            pieces += 20
        for number in range(pieces // 2 if cut else pieces):
            first, last = (len(words) * n // pieces for n in (number, number + 1))
            text = "".join(f" {word}" for word in words[first:last])

            def piece(text: str = text, audible: bool = number < sounds) -> None:
                if self.model.running != response:
                    return
                if text:
                    self.do(ev.AgentText(response, item, text))
                if not self.call.speaking.external_voice and not text_only:
                    sound = pcm(200) if audible else silent_pcm(200)
                    self.do(ev.AgentAudio(response, item, sound))

            self.of_session(0.03 * number, piece)
        if self.phase is Phase.AGENT_SPEAKING and self.turn == 2 and self.struck_s is None:
            self.of_session(0.75, self.strike)
        stalls, self.stalls_once = self.stalls_once, False
        status = "incomplete" if self.incomplete_once else "completed"
        self.incomplete_once = False
        if not stalls:
            end_s = 0.03 * pieces + 0.02
            self.of_session(end_s, lambda: self.do(ev.AgentItemDone(response, item)))
            self.of_session(end_s, lambda: self.over(response, status))

    def over(self, response: str, status: str, *, retryable: bool = True) -> None:
        if self.model.running == response:
            self.model.running = ""
            self.do(ev.ResponseDone(response, status, "max_output_tokens", retryable))

    # ------------------------------------------------------------------ what the call wants

    def _carry_out(self, command: ev.Command) -> None:
        super()._carry_out(command)
        match command:
            case ev.CreateResponse():
                self.of_session(0.08, lambda: self.respond(command.request_id, command.purpose))
            case ev.CancelResponse():
                if self.model.running == command.response_id:
                    self.of_session(0.05, lambda: self.over(command.response_id, "cancelled"))
            case ev.SpeakClause():
                self.of_clause(command)
            case ev.OpenReserve():
                self.after(0.35, self.opens_reserve)
            case ev.Reconnect():
                self.connect()
            case ev.TransferToPerson():
                self.after(0.3, self.transferred)
            case ev.ConnectAgain():
                self.after(0.3, self.connected_again)
            case (
                ev.AddAgentWords()
                | ev.AddCallerWords()
                | ev.AddWhisper()
                | ev.AddToolCall()
                | ev.AnswerTool()
            ):
                self.model.told.append(command)
            case ev.EndCall(hang_up=hang_up):
                self.hung_up_s = self.now if hang_up else None

    def opens_reserve(self) -> None:
        self.reserve = True
        self.do(ev.ReserveOpened())

    def transferred(self) -> None:
        self.transferred_s = self.now
        if not self.call.over:
            self.do(ev.Transferred())

    def connected_again(self) -> None:
        """The carrier speaks to him, and another session awaits him."""
        self.transferred_s = self.now
        self.do(ev.EndRequested(ev.EndReason.REPLACED, hang_up=False))

    def of_clause(self, clause: ev.SpeakClause) -> None:
        """The other service speaks, one clause after the other."""
        ms = 60.0 * len(clause.text)
        if self.voice_fails:
            failed = ev.ClauseFailed(clause.item_id, clause.clause, "HTTP 503")
            self.after(0.9, lambda: self.do(failed))
            return
        half = self.voice_stalls or self.voice_breaks
        thinks_s, self.voice_slow = (1.8 if self.voice_slow else 0.15), False
        sound = ev.SpokenAudio(clause.item_id, clause.clause, pcm(ms / 2 if half else ms))
        self.after(thinks_s, lambda: self.do(sound))
        if half:
            failed = ev.ClauseFailed(clause.item_id, clause.clause, "the audio stopped coming")
            self.after(0.2 if self.voice_breaks else 2.15, lambda: self.do(failed))
        else:
            done = ev.ClauseSpoken(clause.item_id, clause.clause)
            self.after(thinks_s + 0.05, lambda: self.do(done))

    def do(self, *events: ev.Event) -> list[ev.Command]:
        return super().do(*events) if not self.call.over else []

    # ------------------------------------------------------------------ faults

    def strike(self) -> None:
        if self.struck_s is not None:
            return
        self.struck_s, self.silent_at_strike_s = self.now, self.silent_s
        {
            Fault.DROPPED: lambda: self.lost("close_1006"),
            Fault.EXPIRED: lambda: self.lost("session_expired"),
            Fault.QUOTA: lambda: self.lost("insufficient_quota", retryable=False),
            Fault.REFUSED_AFTER_DROP: lambda: self.lost("close_1006", away=True),
            Fault.SLOW_AFTER_DROP: lambda: self.lost("close_1006", slow=True),
            Fault.FROZEN: lambda: self.set_model(frozen=True),
            Fault.DEAF: lambda: self.set_model(hears=False),
            Fault.DEAF_ALWAYS: lambda: self.set_model(hears=False),
            Fault.MUTE: lambda: self.set_model(mute=True),
            Fault.MUTE_ALWAYS: lambda: self.set_model(mute=True),
            Fault.NEARS_ITS_END: self.nears_its_end,
            Fault.SILENT_AUDIO: lambda: self.set(silent_once=True),
            Fault.FALLS_SILENT: lambda: self.set(falls_silent_once=True),
            Fault.TEXT_ONLY: lambda: self.set(text_once=True),
            Fault.TEXT_ALWAYS: lambda: self.set(text_always=True),
            Fault.FAILS_ONCE: lambda: self.set(fails=1),
            Fault.FAILS_ALWAYS: lambda: self.set(fails_always=True),
            Fault.FAILS_FINALLY: lambda: self.set(fails_finally=True),
            Fault.REFUSES_ONCE: lambda: self.set(refuses_once=True),
            Fault.THINKS_LONG: lambda: self.set(thinks_long=True),
            Fault.COMPLAINS: lambda: self.do(ev.ProviderNotice("provider_error", "invalid_value")),
            Fault.INCOMPLETE: lambda: self.set(incomplete_once=True),
            Fault.STALLS: lambda: self.set(stalls_once=True),
            Fault.VOICE_REFUSED: lambda: self.set(voice_fails=True),
            Fault.VOICE_STALLS: lambda: self.set(voice_stalls=True),
            Fault.VOICE_BREAKS: lambda: self.set(voice_breaks=True),
            Fault.VOICE_SLOW: lambda: self.set(voice_slow=True),
            Fault.HALF_DEAD: self.dies_by_half,
            Fault.FROZEN_PHONE: self.freezes,
            Fault.ABORTED: lambda: self.leaves(clean=False),
            Fault.HUNG_UP: lambda: self.leaves(clean=True),
            Fault.HUNG_UP_BY_EVENT: lambda: self.leaves(clean=None),
            Fault.LUMPS: self.comes_in_lumps,
            Fault.MARKS_LATE: lambda: setattr(self.phone, "way_back_s", 0.9),
            Fault.STANDS_STILL: self.stands_still,
            Fault.NONE: lambda: None,
        }[self.fault]()

    def set(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)

    def set_model(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.model, name, value)

    def lost(
        self, why: str, *, retryable: bool = True, away: bool = False, slow: bool = False
    ) -> None:
        self.model_away, self.model_slow = away, slow
        if not self.model.ready:
            # It is on its way still: then it does not come.
            self.model_away = True
            return
        self.model.ready, self.model.running = False, ""
        self.model.session += 1
        self.do(ev.ProviderLost(why, retryable))

    def nears_its_end(self) -> None:
        """As the call knows it from the beginning of the session."""
        model = self.call.model
        model._renew_at_s, model._last_call_s = self.now, self.now + 30.0

    def dies_by_half(self) -> None:
        self.half_dead = True
        self.phone._marks = False
        self.phone._due.clear()

    def freezes(self) -> None:
        self.caller_sends = False
        self.dies_by_half()

    def leaves(self, *, clean: bool | None) -> None:
        """None: the socket stays as it is."""
        self.caller_gone = True
        self.do(ev.CallerGone() if clean is None else ev.MediaClosed(clean=clean))

    def comes_in_lumps(self) -> None:
        """Nothing for a second, and then all of it."""
        self.caller_sends = False
        self.call.heard_caller_s = self.now
        if not self.call.over:
            self.after(1.0, self.comes_in_lumps)

    def stands_still(self) -> None:
        """Nobody decides anything for a while; the phone plays what it has."""
        for _ in range(round(STANDSTILL_S / STEP_S)):
            self.now += STEP_S
            self.listen()


assert RATE_HZ == 8000
