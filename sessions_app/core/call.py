"""One call, decided: events and the time go in, commands come out.

Nothing here waits, sends or reads a clock. `next_deadline()` says when a `Tick` is due; handing in
a `Tick` early or often does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.agent import AgentProfile
from sessions_app.core.audio import pcm_ms
from sessions_app.core.limits import Limits
from sessions_app.core.listening import Listening
from sessions_app.core.playback import Playback
from sessions_app.core.responses import Responses, Wanted
from sessions_app.core.speaking import Speaking
from sessions_app.core.usage import UsageSum

END_CALL_TOOL = "end_call"


@dataclass(slots=True)
class Ending:
    """The call is to end once what is being said has been heard, at the latest at `by_s`."""

    reason: ev.EndReason
    by_s: float
    hang_up: bool = True
    #: The goodbye has been asked for or was already said.
    said: bool = False


class Call:
    """The rules of a conversation. Deterministic: same events and times in, same commands out."""

    def __init__(
        self,
        agent: AgentProfile,
        limits: Limits,
        *,
        speaks: bool,
        provider_rate_hz: int,
        voice_rate_hz: int = 0,
        now: float,
    ) -> None:
        self.agent = agent
        self.limits = limits
        self.playback = Playback()
        self.speaking = Speaking(self.playback, external_voice=not speaks)
        self.listening = Listening()
        self.responses = Responses()
        self.usage = UsageSum()
        #: Set by the shell for every frame that comes in; an event for each would cost too much.
        self.heard_caller_s = now
        self._provider_rate_hz = provider_rate_hz
        self._voice_rate_hz = voice_rate_hz
        self._began_s = self._handled_s = now
        self._opened_s: float | None = None
        self._muted = False
        self._provider_ready = False
        self._ending: Ending | None = None
        self._over = False
        self._quiet_since_s = now
        self._nudges = 0
        self._due_since_s: float | None = None
        self._tools_answered: set[str] = set()
        most = agent.max_call_s or limits.max_s
        self._max_s = min(float(most), limits.max_s)

    @property
    def over(self) -> bool:
        return self._over

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Everything that follows from the event at this time."""
        if self._over:
            return []
        out: list[ev.Command] = []
        self._handled_s = now
        self._note_quiet(now)
        self._take(event, now, out)
        if not self._over:
            self._note_quiet(now)
            out += self.speaking.settle(now, self._clock_ms(now))
            self._finish_ending(now, out)
            self._ask(now, out)
        return out

    # ------------------------------------------------------------------ events

    def _take(self, event: ev.Event, now: float, out: list[ev.Command]) -> None:
        match event:
            case ev.AgentAudio():
                if not self.responses.is_dead(event.response_id):
                    self._spoke(event.response_id)
                    ms = pcm_ms(len(event.pcm), self._provider_rate_hz)
                    out += self.speaking.audio(event, ms)
            case ev.AgentText():
                if not self.responses.is_dead(event.response_id):
                    self._spoke(event.response_id)
                    out += self.speaking.words(event)
            case ev.AgentItemDone():
                out += self.speaking.item_done(event.item_id)
            case ev.SpokenAudio():
                out += self.speaking.spoken(event, pcm_ms(len(event.pcm), self._voice_rate_hz))
            case ev.ClauseSpoken():
                out += self.speaking.clause_spoken(event.item_id, event.clause)
            case ev.ClauseFailed():
                out.append(ev.Note("voice_failed", event.reason))
                self._end_when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
            case ev.SpeechStarted():
                self._caller_speaks(event, now, out)
            case ev.SpeechStopped():
                out += self.listening.stopped(event.item_id, self._clock_ms(now))
                self._quiet_since_s = self._due_since_s = now
            case ev.CallerTranscript():
                out += self.listening.transcript(event, self._clock_ms(now))
            case ev.CallerTranscriptFailed():
                out += self.listening.failed(event.item_id)
                out.append(ev.Note("transcription_failed", event.reason))
            case ev.CallerTurnDropped():
                out += self.listening.failed(event.item_id)
                self._due_since_s = None
            case ev.ResponseStarted():
                self._response_started(event, now, out)
            case ev.ResponseDone():
                self._response_done(event, now, out)
            case ev.RequestRefused():
                if wanted := self.responses.refused(event.request_id, busy=event.busy):
                    out.append(ev.Note("request_refused", event.reason))
                    self._try_again(wanted, now)
            case ev.ToolCalled():
                self._tool_called(event, now, out)
            case ev.MarkPlayed():
                self.playback.mark_played(event.mark_id, now)
            case ev.ItemWritten():
                self.speaking.item_written(event.item_id)
            case ev.MediaOpened():
                self._opened_s = self.heard_caller_s = self._quiet_since_s = now
            case ev.MediaMuted():
                self._muted = event.muted
                self.heard_caller_s = now
            case ev.ProviderReady():
                self._provider_ready = True
                self._quiet_since_s = now
                self._greet(out)
            case ev.DtmfPressed():
                self.listening.press(event.digit, now)
            case ev.TranscriptionUsage():
                self.usage.add_transcription(event.usage)
                out.append(ev.SaveUsage(self.usage.total()))
            case ev.ProviderNotice():
                out.append(ev.Note(event.kind, event.detail))
            case ev.ProviderLost():
                self._provider_ready = False
                out.append(ev.Note("provider_lost", event.reason))
                self._end_when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
            case ev.MediaClosed():
                clean = ev.EndReason.CALLER_HUNG_UP if event.clean else ev.EndReason.MEDIA_LOST
                if self._opened_s is None:
                    clean = ev.EndReason.MEDIA_NEVER_OPENED
                reason = self._ending.reason if self._ending else clean
                self._end(reason, now, out, hang_up=False)
            case ev.CallerGone():
                self._end(ev.EndReason.CALLER_HUNG_UP, now, out, hang_up=False)
            case ev.EndRequested():
                self._end(event.reason, now, out, hang_up=event.hang_up)
            case ev.Tick():
                self._tick(now, out)

    def _greet(self, out: list[ev.Command]) -> None:
        """The greeting begins as soon as the model is ready, before the phone's socket is open.

        A fixed greeting in another service's voice needs no model; the model is told of it.
        """
        greeting = self.agent.greeting.strip()
        if self.speaking.external_voice and greeting:
            out += self.speaking.say("greeting_1", greeting)
        else:
            text = prompts.say_exactly(greeting) if greeting else prompts.GREET_FREELY
            self.responses.want(Wanted(ev.Purpose.GREETING, text, tools=False))

    def _caller_speaks(self, event: ev.SpeechStarted, now: float, out: list[ev.Command]) -> None:
        """Barge-in: measure, stop, clear, and make every memory end at what was heard.

        A goodbye is not interrupted: the call is over for both sides once it is said.
        """
        self._nudges = 0
        self._due_since_s = None
        if self._ending is None or not self._ending.said:
            # He has more to say, so an end the model was about to make is off.
            self._ending = None
            out += self.speaking.cut(now, self._clock_ms(now))
            self.responses.interrupted()
        out += self.listening.started(event.item_id, self._clock_ms(now))

    def _response_started(
        self, event: ev.ResponseStarted, now: float, out: list[ev.Command]
    ) -> None:
        self._due_since_s = None
        if cancel := self.responses.started(event.response_id, event.request_id, now):
            out.append(cancel)
        running = self.responses.running
        if (
            self._ending is not None
            and self._ending.said
            and running is not None
            and running.wanted.purpose is not ev.Purpose.GOODBYE
            and (dropped := self.responses.drop_running())
        ):
            out.append(dropped)

    def _response_done(self, event: ev.ResponseDone, now: float, out: list[ev.Command]) -> None:
        self.usage.add_response(event.usage)
        out.append(ev.SaveUsage(self.usage.total()))
        out += self.speaking.response_done(event.response_id)
        dead = self.responses.is_dead(event.response_id)
        running = self.responses.done(event.response_id)
        if running is None or dead:
            return
        if running.called_tool and self._ending is not None and not self._ending.said:
            self._say_goodbye(already=running.spoke)
        silent = not running.spoke and not running.called_tool
        if event.status == "failed" or (silent and event.status in ("completed", "incomplete")):
            out.append(ev.Note("response_failed", event.reason or event.status))
            wanted = running.wanted
            if running.spoke:
                wanted = Wanted(ev.Purpose.ANSWER, prompts.CUT_OFF, tries=wanted.tries)
            if not event.retryable:
                wanted.tries = 2
            self._try_again(wanted, now)
        elif event.status == "incomplete":
            out.append(ev.Note("response_incomplete", event.reason))

    def _try_again(self, wanted: Wanted, now: float) -> None:
        """One more try, a moment later; then the caller is not left waiting."""
        wanted.tries += 1
        if self._ending is not None and wanted.purpose is ev.Purpose.GOODBYE:
            self._ending.by_s = now
        elif wanted.tries > 1:
            self._end_when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
        elif not self.listening.caller_speaks:
            wanted.not_before_s = now + 0.3
            self.responses.want(wanted)

    def _tool_called(self, event: ev.ToolCalled, now: float, out: list[ev.Command]) -> None:
        if event.call_id in self._tools_answered or self.responses.is_dead(event.response_id):
            return
        self._tools_answered.add(event.call_id)
        running = self.responses.running
        if running is not None and running.response_id == event.response_id:
            running.called_tool = True
        if event.name == END_CALL_TOOL:
            out.append(ev.AnswerTool(event.call_id, '{"ok": true}'))
            out.append(ev.Note("agent_ends_call"))
            if self._ending is None:
                self._ending = Ending(ev.EndReason.AGENT_ENDED, now + self.limits.goodbye_s)
        else:
            out.append(ev.AnswerTool(event.call_id, '{"error": "there is no such function"}'))
            out.append(ev.Note("unknown_tool", event.name[:100]))
            self.responses.want(Wanted(ev.Purpose.ANSWER))

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When the next `ev.Tick` is due; None when only an event can change anything."""
        if self._over:
            return None
        if self._opened_s is None:
            unclaimed = self._began_s + self.limits.unclaimed_s
            return min(unclaimed, self._ending.by_s) if self._ending else unclaimed
        due = [self._opened_s + self._max_s, *self.speaking.deadlines(self._handled_s)]
        if not self._ending:
            due.append(self._opened_s + self.limits.polite_end_s(self._max_s))
        else:
            due.append(self._ending.by_s)
        if not self._muted:
            due.append(self.heard_caller_s + self.limits.media_silence_s)
        if self.listening.pressed_s is not None:
            due.append(self.listening.pressed_s + self.limits.keys_s)
        for since in self._waiting_since():
            due.append(since + self.limits.answer_s)
        if self.responses.wanted is not None:
            due.append(self.responses.wanted.not_before_s)
        if self._is_quiet():
            due.append(self._quiet_since_s + self.agent.nudge_after_s)
        return min(due)

    def _waiting_since(self) -> list[float]:
        """Since when a sound of the model has been due, for each way it can be due."""
        waiting = [self.responses.asked.at_s] if self.responses.asked else []
        running = self.responses.running
        if running is not None and not running.spoke:
            waiting.append(running.at_s)
        if self._due_since_s is not None and self.responses.idle:
            waiting.append(self._due_since_s)
        return waiting

    def _tick(self, now: float, out: list[ev.Command]) -> None:
        if self._opened_s is None:
            if now >= self._began_s + self.limits.unclaimed_s:
                self._end(ev.EndReason.MEDIA_NEVER_OPENED, now, out, hang_up=False)
            return
        if now >= self._opened_s + self._max_s:
            self._end(ev.EndReason.MAX_DURATION, now, out, hang_up=True)
        elif not self._muted and now >= self.heard_caller_s + self.limits.media_silence_s:
            self._end(ev.EndReason.MEDIA_SILENT, now, out, hang_up=True)
        elif self._ending is not None:
            return
        elif now >= self._opened_s + self.limits.polite_end_s(self._max_s):
            self._bid_goodbye(ev.EndReason.MAX_DURATION, prompts.GOODBYE_TOO_LONG, now, out)
        elif (at := self.listening.pressed_s) is not None and now >= at + self.limits.keys_s:
            self._take_keys(now, out)
        elif any(now >= since + self.limits.answer_s for since in self._waiting_since()):
            self._answer_overdue(now, out)
        elif self._is_quiet() and now >= self._quiet_since_s + self.agent.nudge_after_s:
            self._nudge(now, out)

    def _take_keys(self, now: float, out: list[ev.Command]) -> None:
        turn = self.listening.take_keys(self._clock_ms(now))
        out += [ev.AddCallerWords(prompts.keys_pressed(turn.text)), ev.SaveTurn(turn)]
        if not self.listening.caller_speaks:
            self.responses.want(Wanted(ev.Purpose.ANSWER))

    def _answer_overdue(self, now: float, out: list[ev.Command]) -> None:
        """The model took a turn and says nothing. Asked once more; then it counts as lost."""
        out.append(ev.Note("answer_overdue"))
        self._due_since_s = None
        wanted = Wanted(ev.Purpose.ANSWER)
        if self.responses.asked is not None:
            wanted = self.responses.asked.wanted
            self.responses.asked = None
        elif self.responses.running is not None:
            wanted = self.responses.running.wanted
            if cancel := self.responses.drop_running():
                out.append(cancel)
            self.responses.running = None
        self._try_again(wanted, now)

    def _is_quiet(self) -> bool:
        """Nobody speaks and nothing is on its way."""
        return (
            self._opened_s is not None
            and self._provider_ready
            and self._ending is None
            and not self.listening.caller_speaks
            and not self._muted
            and self.speaking.silent
            and self.responses.idle
        )

    def _note_quiet(self, now: float) -> None:
        if not self.speaking.silent or self.listening.caller_speaks or not self.responses.idle:
            self._quiet_since_s = now

    def _nudge(self, now: float, out: list[ev.Command]) -> None:
        self._due_since_s = None
        if self._nudges >= self.agent.nudges_max:
            self._bid_goodbye(ev.EndReason.CALLER_SILENT, prompts.GOODBYE_NOBODY_SPEAKS, now, out)
            return
        self._nudges += 1
        out.append(ev.Note("caller_silent", f"spoken to again, {self._nudges}"))
        self.responses.want(Wanted(ev.Purpose.NUDGE, prompts.NUDGE, tools=False))

    # ------------------------------------------------------------------ endings

    def _bid_goodbye(
        self, reason: ev.EndReason, instructions: str, now: float, out: list[ev.Command]
    ) -> None:
        out.append(ev.Note("bids_goodbye", reason.value))
        out += self.speaking.cut(now, self._clock_ms(now))
        if cancel := self.responses.drop_running():
            out.append(cancel)
        self._ending = Ending(reason, now + self.limits.goodbye_s)
        self._say_goodbye(instructions=instructions)

    def _say_goodbye(self, *, already: bool = False, instructions: str = prompts.GOODBYE) -> None:
        assert self._ending is not None
        self._ending.said = True
        if not already:
            self.responses.want(Wanted(ev.Purpose.GOODBYE, instructions, tools=False))

    def _end_when_heard(self, reason: ev.EndReason, now: float, *, hang_up: bool) -> None:
        """End as soon as what is already on its way to the caller has been heard."""
        if self._ending is not None and self._ending.said and self.speaking.silent:
            self._ending.by_s = now
            return
        self.responses.wanted = self.responses.asked = self.responses.running = None
        if self._ending is None:
            backlog_s = self.playback.backlog_ms(now) / 1000
            self._ending = Ending(reason, now + backlog_s + 1.0, hang_up, said=True)
        self._ending.said = True

    def _finish_ending(self, now: float, out: list[ev.Command]) -> None:
        ending = self._ending
        if ending is None or self._over:
            return
        heard = ending.said and self.responses.idle and self.speaking.silent
        if heard or (now >= ending.by_s and self._heard_enough(now)):
            self._end(ending.reason, now, out, hang_up=ending.hang_up)

    def _heard_enough(self, now: float) -> bool:
        """A goodbye that is being played may be played to its end, within the hard limit."""
        ending = self._ending
        assert ending is not None
        if not self.speaking.silent and self.playback.backlog_ms(now) > 0:
            ending.by_s = now + self.playback.backlog_ms(now) / 1000
            return False
        return True

    def _end(
        self, reason: ev.EndReason, now: float, out: list[ev.Command], *, hang_up: bool
    ) -> None:
        out += self.speaking.close(now, self._clock_ms(now))
        out += self.listening.close(self._clock_ms(now))
        out.append(ev.EndCall(reason, hang_up))
        self._over = True

    # ------------------------------------------------------------------ helpers

    def _ask(self, now: float, out: list[ev.Command]) -> None:
        if self._provider_ready and not self._over and not self.listening.caller_speaks:
            request = self.responses.ask(now)
            if request is not None:
                out.append(request)

    def _spoke(self, response_id: str) -> None:
        running = self.responses.running
        if running is not None and running.response_id == response_id:
            running.spoke = True
        self._due_since_s = None

    def _clock_ms(self, now: float) -> int:
        """The call's clock: 0 when the media socket opened."""
        return max(0, int((now - self._opened_s) * 1000)) if self._opened_s is not None else 0
