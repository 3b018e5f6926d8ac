"""One call, decided: events and the time go in, commands come out.

Nothing here waits, sends or reads a clock. `next_deadline()` says when a `Tick` is due; handing in
a `Tick` early or often does no harm.
"""

from __future__ import annotations

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.agent import AgentProfile
from sessions_app.core.audio import pcm_ms
from sessions_app.core.ending import Goodbye
from sessions_app.core.limits import Limits
from sessions_app.core.listening import Listening
from sessions_app.core.playback import Playback
from sessions_app.core.responses import Responses, Wanted, again
from sessions_app.core.speaking import Speaking
from sessions_app.core.tools import END_CALL, Tools
from sessions_app.core.usage import UsageSum


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
        self.goodbye = Goodbye(limits, self.playback, self.speaking, self.responses)
        self.tools = Tools()
        self.usage = UsageSum()
        #: Set by the shell for every frame that comes in; an event for each would cost too much.
        self.heard_caller_s = now
        self._provider_rate_hz = provider_rate_hz
        self._voice_rate_hz = voice_rate_hz
        self._began_s = self._handled_s = now
        self._opened_s: float | None = None
        self._muted = False
        self._provider_ready = False
        self._over = False
        self._quiet_since_s = now
        self._nudges = 0
        #: When something that is to be heard last came.
        self._fed_s = now
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
            self._count_spoken(out)
            out += self.speaking.settle(now, self._clock_ms(now))
            if ending := self.goodbye.due(now):
                self._end(ending.reason, now, out, hang_up=ending.hang_up)
            elif self._may_ask() and (request := self.responses.ask(now)):
                out.append(request)
        return out

    # ------------------------------------------------------------------ events

    def _take(self, event: ev.Event, now: float, out: list[ev.Command]) -> None:
        match event:
            case ev.AgentAudio():
                ms = pcm_ms(len(event.pcm), self._provider_rate_hz)
                if ms and not self.responses.is_dead(event.response_id):
                    self._feed(now, event.response_id)
                    out += self.speaking.audio(event, ms)
            case ev.AgentText():
                if not self.responses.is_dead(event.response_id):
                    if self.speaking.external_voice and event.text.strip():
                        self._feed(now, event.response_id)
                    out += self.speaking.words(event)
            case ev.AgentItemDone():
                out += self.speaking.item_done(event.item_id)
            case ev.SpokenAudio():
                self._fed_s = now
                out += self.speaking.spoken(event, pcm_ms(len(event.pcm), self._voice_rate_hz))
            case ev.ClauseSpoken():
                self._fed_s = now
                out += self.speaking.clause_spoken(event.item_id, event.clause)
            case ev.ClauseFailed():
                if self.speaking.waits_for(event.item_id):
                    # Words behind a hole may mean the opposite: they are not spoken.
                    out += [ev.Note("voice_failed", event.reason), ev.StopSpeaking()]
                    self.goodbye.when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
            case ev.SpeechStarted():
                self._caller_speaks(event, now, out)
            case ev.SpeechStopped():
                out += self.listening.stopped(event.item_id, self._clock_ms(now))
                self._quiet_since_s = self.responses.due_since_s = now
            case ev.CallerTranscript():
                out += self.listening.transcript(event, self._clock_ms(now))
            case ev.CallerTranscriptFailed():
                out += self.listening.failed(event.item_id, self._clock_ms(now))
                out.append(ev.Note("transcription_failed", event.reason))
            case ev.ResponseStarted():
                self._response_started(event, now, out)
            case ev.ResponseDone():
                self._response_done(event, now, out)
            case ev.RequestRefused():
                if wanted := self.responses.refused(event.request_id, now, busy=event.busy):
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
                self.heard_caller_s = self._quiet_since_s = now
            case ev.ProviderReady():
                self._provider_ready = True
                self._quiet_since_s = now
                self._greet(out)
            case ev.DtmfPressed():
                self.listening.press(event.digit, now)
                self._nudges = 0
                self._quiet_since_s = now
            case ev.TranscriptionUsage():
                self.usage.add_transcription(event.usage)
                out.append(ev.SaveUsage(self.usage.total()))
            case ev.ProviderNotice():
                out.append(ev.Note(event.kind, event.detail))
            case ev.ProviderLost():
                self._provider_ready = False
                out.append(ev.Note("provider_lost", event.reason))
                self.goodbye.when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
            case ev.MediaClosed():
                reason = ev.EndReason.CALLER_HUNG_UP if event.clean else ev.EndReason.MEDIA_LOST
                if self._opened_s is None:
                    reason = ev.EndReason.MEDIA_NEVER_OPENED
                if self.goodbye.ending is not None:
                    reason = self.goodbye.ending.reason
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
            self._want(Wanted(ev.Purpose.GREETING, text, tools=False))

    def _caller_speaks(self, event: ev.SpeechStarted, now: float, out: list[ev.Command]) -> None:
        """Barge-in: measure, stop, clear, and make every memory end at what was heard.

        A goodbye is not interrupted: the call is over for both sides once it is said.
        """
        self._nudges = 0
        self.responses.due_since_s = None
        if self.goodbye.call_off():
            out += self.speaking.cut(now, self._clock_ms(now))
            self.responses.interrupted()
        out += self.listening.started(event.item_id, self._clock_ms(now))

    def _response_started(
        self, event: ev.ResponseStarted, now: float, out: list[ev.Command]
    ) -> None:
        if cancel := self.responses.started(event.response_id, event.request_id, now):
            out.append(cancel)
            return
        running = self.responses.running
        if running is None or running.wanted.purpose is ev.Purpose.GOODBYE:
            return
        # What begins while the caller speaks was made for a turn that was not his last word.
        unwanted = self.goodbye.said or self.listening.caller_speaks
        if unwanted and (dropped := self.responses.drop_running()):
            out.append(dropped)

    def _response_done(self, event: ev.ResponseDone, now: float, out: list[ev.Command]) -> None:
        self.usage.add_response(event.usage)
        out.append(ev.SaveUsage(self.usage.total()))
        out += self.speaking.response_done(event.response_id)
        dead = self.responses.is_dead(event.response_id)
        running = self.responses.done(event.response_id, now)
        if running is None or dead:
            return
        ending = self.goodbye.ending
        silent = not running.spoke and not running.called_tool
        if event.status == "failed" or (silent and event.status in ("completed", "incomplete")):
            out.append(ev.Note("response_failed", event.reason or event.status))
            if ending is None or ending.said:
                wanted = again(running)
                wanted.tries = wanted.tries if event.retryable else 2
                self._try_again(wanted, now)
        elif event.status == "incomplete":
            out.append(ev.Note("response_incomplete", event.reason))
        if running.called_tool and ending is not None and not ending.said:
            self.goodbye.say("" if running.spoke else prompts.GOODBYE)

    def _want(self, wanted: Wanted) -> None:
        """Once the call is to end, nothing but its goodbye is wanted."""
        if self.goodbye.ending is None:
            self.responses.want(wanted)

    def _try_again(self, wanted: Wanted, now: float) -> None:
        """One more try, a moment later; then the caller is not left waiting."""
        if self.goodbye.ending is not None:
            if wanted.purpose is ev.Purpose.GOODBYE:
                self.goodbye.unsayable(now)
            return
        wanted.tries += 1
        if wanted.tries > 1:
            self.goodbye.when_heard(ev.EndReason.PROVIDER_FAILED, now, hang_up=False)
        elif not self.listening.caller_speaks:
            wanted.not_before_s, wanted.since_s = now + 0.3, None
            self._want(wanted)

    def _tool_called(self, event: ev.ToolCalled, now: float, out: list[ev.Command]) -> None:
        dead = self.responses.is_dead(event.response_id)
        answer = self.tools.answer(event, interrupted=dead)
        if answer is None:
            return
        out.append(answer)
        if dead:
            return
        running = self.responses.running
        if running is not None and running.response_id == event.response_id:
            running.called_tool = True
        if event.name == END_CALL:
            out.append(ev.Note("agent_ends_call"))
            self.goodbye.agent_ends(now)
        else:
            out.append(ev.Note("unknown_tool", event.name[:100]))
            self._want(Wanted(ev.Purpose.ANSWER))

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When the next `ev.Tick` is due; None when only an event can change anything."""
        if self._over:
            return None
        ending = self.goodbye.ending
        if self._opened_s is None:
            unclaimed = self._began_s + self.limits.unclaimed_s
            return min(unclaimed, ending.by_s) if ending else unclaimed
        due = [self._opened_s + self._max_s, *self.speaking.deadlines(self._handled_s)]
        if not self._muted:
            due.append(self.heard_caller_s + self.limits.media_silence_s)
        if (wanted := self.responses.wanted) is not None and self._may_ask():
            due.append(wanted.not_before_s)
        if ending is not None:
            return min(*due, ending.by_s)
        due.append(self._opened_s + self.limits.polite_end_s(self._max_s))
        if self.listening.pressed_s is not None:
            due.append(self.listening.pressed_s + self.limits.keys_s)
        for since in (self.responses.waiting_since(), self._stalled_since()):
            if since is not None:
                due.append(since + self.limits.answer_s)
        if self._is_quiet():
            due.append(self._quiet_since_s + self.agent.nudge_after_s)
        return min(due)

    def _stalled_since(self) -> float | None:
        """Since when the rest of what is being said, or the end of its response, has been due."""
        running = self.responses.running
        owes = not self.speaking.complete or (running is not None and running.spoke)
        if self._opened_s is None or not owes:
            return None
        return max(self._fed_s, self.playback.look_again_s(), self._opened_s)

    def _tick(self, now: float, out: list[ev.Command]) -> None:
        if self._opened_s is None:
            if now >= self._began_s + self.limits.unclaimed_s:
                self._end(ev.EndReason.MEDIA_NEVER_OPENED, now, out, hang_up=False)
        elif now >= self._opened_s + self._max_s:
            self._end(ev.EndReason.MAX_DURATION, now, out, hang_up=True)
        elif not self._muted and now >= self.heard_caller_s + self.limits.media_silence_s:
            self._end(ev.EndReason.MEDIA_SILENT, now, out, hang_up=True)
        elif self.goodbye.ending is None:
            if now >= self._opened_s + self.limits.polite_end_s(self._max_s):
                reason, words = ev.EndReason.MAX_DURATION, prompts.GOODBYE_TOO_LONG
                out += self.goodbye.bid(reason, words, now, self._clock_ms(now))
            else:
                self._lose_patience(now, out)

    def _lose_patience(self, now: float, out: list[ev.Command]) -> None:
        """With whoever has been waited for too long: keys, the model, the caller."""
        patience_s = self.limits.answer_s
        if (at := self.listening.pressed_s) is not None and now >= at + self.limits.keys_s:
            self._take_keys(now, out)
        if (stalled := self._stalled_since()) is not None and now >= stalled + patience_s:
            out += self.speaking.cut(now, self._clock_ms(now))
            if self.responses.running is not None or self.responses.asked is None:
                self._answer_overdue(now, out)
        while (since := self.responses.waiting_since()) is not None and now >= since + patience_s:
            self._answer_overdue(now, out)
        if self._is_quiet() and now >= self._quiet_since_s + self.agent.nudge_after_s:
            self._nudge(now, out)

    def _take_keys(self, now: float, out: list[ev.Command]) -> None:
        turn = self.listening.take_keys(self._clock_ms(now))
        out += [ev.AddCallerWords(prompts.keys_pressed(turn.text)), ev.SaveTurn(turn)]
        if not self.listening.caller_speaks:
            self._want(Wanted(ev.Purpose.ANSWER))

    def _answer_overdue(self, now: float, out: list[ev.Command]) -> None:
        """The model should be heard and is not. Asked once more; then it counts as lost."""
        wanted, cancel = self.responses.give_up()
        if cancel is not None:
            out.append(cancel)
            out += self.speaking.response_done(cancel.response_id)
        if wanted is not None:
            out.append(ev.Note("answer_overdue"))
            self._try_again(wanted, now)

    def _is_quiet(self) -> bool:
        """Nobody speaks and nothing is on its way."""
        return (
            self._opened_s is not None
            and self._provider_ready
            and self.goodbye.ending is None
            and not self.listening.caller_speaks
            and not self._muted
            and self.speaking.silent
            and self.responses.idle
        )

    def _note_quiet(self, now: float) -> None:
        if not self.speaking.silent or self.listening.caller_speaks or not self.responses.idle:
            self._quiet_since_s = now

    def _nudge(self, now: float, out: list[ev.Command]) -> None:
        self.responses.due_since_s = None
        if self._nudges >= self.agent.nudges_max:
            reason, words = ev.EndReason.CALLER_SILENT, prompts.GOODBYE_NOBODY_SPEAKS
            out += self.goodbye.bid(reason, words, now, self._clock_ms(now))
            return
        self._nudges += 1
        out.append(ev.Note("caller_silent", f"spoken to again, {self._nudges}"))
        self._want(Wanted(ev.Purpose.NUDGE, prompts.NUDGE, tools=False))

    # ------------------------------------------------------------------ endings

    def _end(
        self, reason: ev.EndReason, now: float, out: list[ev.Command], *, hang_up: bool
    ) -> None:
        out += self.speaking.close(now, self._clock_ms(now))
        out += self.listening.close(self._clock_ms(now))
        out.append(ev.EndCall(reason, hang_up))
        self._over = True

    # ------------------------------------------------------------------ helpers

    def _may_ask(self) -> bool:
        """A request would be answered now, and not into the caller's words."""
        return self._provider_ready and self.responses.free and not self.listening.caller_speaks

    def _count_spoken(self, out: list[ev.Command]) -> None:
        spoken = sum(len(c.text) for c in out if isinstance(c, ev.SpeakClause))
        if spoken and not self._over:
            self.usage.add_spoken(spoken)
            out.append(ev.SaveUsage(self.usage.total()))

    def _feed(self, now: float, response_id: str) -> None:
        self._fed_s = now
        self.responses.spoke(response_id)

    def _clock_ms(self, now: float) -> int:
        """The call's clock: 0 when the media socket opened."""
        return max(0, int((now - self._opened_s) * 1000)) if self._opened_s is not None else 0
