"""One call, decided: events and the time go in, commands come out.

Nothing here waits, sends or reads a clock. `next_deadline()` says when a `Tick` is due; handing in
a `Tick` early or often does no harm.
"""

from __future__ import annotations

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.agent import AgentProfile
from sessions_app.core.audio import audible
from sessions_app.core.ending import Goodbye
from sessions_app.core.guard import Guard
from sessions_app.core.limits import Limits
from sessions_app.core.listening import Listening
from sessions_app.core.memory import Memory
from sessions_app.core.modelsession import ModelSession
from sessions_app.core.phrases import Clips, Phrase
from sessions_app.core.playback import Playback
from sessions_app.core.responses import Responses, Wanted, again
from sessions_app.core.speaking import Speaking
from sessions_app.core.tools import END_CALL, Tools
from sessions_app.core.usage import UsageSum

PROVIDER_FAILED = ev.EndReason.PROVIDER_FAILED
GREETING_ITEM = "greeting_1"
#: So often the same thing is asked for; the last time in a new session.
TRIES_MOST = 2
#: Sound that is sent again to a new session is taken for speech by then, if it is any.
REHEARING_S = 1.2
#: A tick that comes so late means that this process, or its machine, stood still.
ASLEEP_S = 1.0
#: A phone that used to return marks, and goes on sending, does not get what we send if a mark is so
#: late.
HALF_DEAD_S = 1.2
#: One that has stopped sending, too, has frozen if a mark is so late: a line may stall a moment.
FROZEN_S = 1.6
#: It has stopped sending if its last frame is so old; then a mark asks whether it is there.
FRESH_S = 1.0


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
        clips: Clips | None = None,
        now: float,
    ) -> None:
        self.agent = agent
        self.limits = limits
        self.clips = clips or Clips()
        self.playback = Playback()
        self.speaking = Speaking(
            self.playback,
            external_voice=not speaks,
            provider_rate_hz=provider_rate_hz,
            voice_rate_hz=voice_rate_hz,
        )
        self.listening = Listening()
        self.responses = Responses()
        self.model = ModelSession()
        self.memory = Memory()
        self.guard = Guard(agent, limits, self.playback, self.clips)
        self.goodbye = Goodbye(limits, self.playback, self.speaking, self.responses)
        self.tools = Tools()
        self.usage = UsageSum()
        #: Set by the shell for every frame that comes in; an event for each would cost too much.
        self.heard_caller_s = now
        self._began_s = self._handled_s = now
        self._opened_s: float | None = None
        self._muted = False
        self._asked_phone_s: float | None = None
        #: Since when the caller's leg is up, as far as the carrier has told.
        self._answered_s: float | None = None
        #: When the carrier could not help a caller who is not connected.
        self._no_way_s: float | None = None
        self._over = False
        self._greeted = False
        #: The caller said something that no words and no answer stand for yet.
        self._unanswered = False
        self._retaining = False
        self._quiet_since_s = now
        self._nudges = 0
        #: When something that is to be heard last came.
        self._fed_s = now
        #: Since when its rest has been due, as it was before something was said into the silence.
        self._stalled_s: float | None = None
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
        if self.model.ready or not isinstance(event, ev.FromModel):
            self._take(event, now, out)
        if not self._over:
            self._note_quiet(now)
            self._count_spoken(out)
            out += self.speaking.settle(now, self._clock_ms(now))
            if ending := self.goodbye.due(now):
                self._end(ending.reason, now, out, hang_up=ending.hang_up)
            elif self._renewal_is_due(now):
                out.append(ev.Note("session_renewed"))
                self._begin_anew(None, now, out, renewed=True)
            elif self._may_ask() and (request := self.responses.ask(now)):
                out.append(request)
        self.memory.keep(out)
        if self._unanswered != self._retaining:
            self._retaining = self._unanswered
            out.append(ev.RetainAudio(self._retaining))
        if not self.model.ready:
            # Whatever it should know it is told when it is there.
            out = [command for command in out if not isinstance(command, ev.ProviderCommand)]
        return out

    # ------------------------------------------------------------------ events

    def _take(self, event: ev.Event, now: float, out: list[ev.Command]) -> None:
        match event:
            case ev.AgentAudio():
                self._agent_audio(event, now, out)
            case ev.AgentText():
                if not self.responses.is_dead(event.response_id):
                    if self.speaking.external_voice and event.text.strip():
                        self._feed(now, event.response_id)
                    out += self.speaking.words(event)
            case ev.AgentItemDone():
                out += self.speaking.item_done(event.item_id)
            case ev.SpokenAudio():
                self._feed(now)
                out += self.speaking.spoken(event)
            case ev.ClauseSpoken():
                self._feed(now)
                out += self.speaking.clause_spoken(event.item_id, event.clause)
            case ev.ClauseFailed():
                if self.speaking.waits_for(event.item_id):
                    self._voice_lost(event, now, out)
            case ev.SpeechStarted():
                self._caller_speaks(event, now, out)
            case ev.SpeechStopped():
                out += self.listening.stopped(event.item_id, self._clock_ms(now))
                self._quiet_since_s = self.responses.due_since_s = now
                self.guard.model_hears_end(now)
            case ev.CallerTranscript():
                out += self.listening.transcript(event, self._clock_ms(now))
                if event.final and event.text.strip() and not self.listening.caller_speaks:
                    self._unanswered = self.guard.audible
            case ev.CallerTranscriptFailed():
                out += self.listening.failed(event.item_id, self._clock_ms(now))
                out.append(ev.Note("transcription_failed", event.reason))
            case ev.CallerAudible():
                self._caller_audible(event, now, out)
            case ev.ResponseStarted():
                self._response_started(event, now, out)
            case ev.ResponseDone():
                self._response_done(event, now, out)
            case ev.RequestRefused():
                if wanted := self.responses.refused(event.request_id, now, busy=event.busy):
                    out.append(ev.Note("request_refused", event.reason))
                    self._try_again(wanted, now, out)
            case ev.ToolCalled():
                self._tool_called(event, now, out)
            case ev.MarkPlayed():
                self.playback.mark_played(event.mark_id, now)
            case ev.ItemWritten():
                self.speaking.item_written(event.item_id)
            case ev.MediaOpened():
                self._opened_s = self.heard_caller_s = self._quiet_since_s = now
                if (ending := self.goodbye.ending) is not None and ending.transfer:
                    # It came after all, while the carrier was being asked.
                    self.goodbye.ending = None
                self._greet(out)
            case ev.MediaMuted():
                self._muted = event.muted
                self.heard_caller_s = self._quiet_since_s = now
                self.guard.silent_since(now)
            case ev.ProviderReady():
                self._model_came(event, now, out)
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
                self._model_lost(event, now, out)
            case ev.MediaClosed():
                reason = ev.EndReason.CALLER_HUNG_UP if event.clean else ev.EndReason.MEDIA_LOST
                if self._opened_s is None:
                    reason = ev.EndReason.MEDIA_NEVER_OPENED
                if (ending := self.goodbye.ending) is not None:
                    # Taking the caller's leg away closes our socket, maybe before we are told.
                    reason = ev.EndReason.TRANSFERRED if ending.transfer else ending.reason
                self._end(reason, now, out, hang_up=False)
            case ev.CallerAnswered():
                if self._answered_s is None:
                    self._answered_s = now
            case ev.CallerGone():
                self._end(ev.EndReason.CALLER_HUNG_UP, now, out, hang_up=False)
            case ev.Transferred():
                self._end(ev.EndReason.TRANSFERRED, now, out, hang_up=False)
            case ev.TransferFailed():
                out.append(ev.Note("transfer_failed", event.reason))
                if self._opened_s is None:
                    # The socket may still come; if it does not, the call is ended in time.
                    self._no_way_s, self.goodbye.ending = now, None
                    return
                reason = self.goodbye.ending.reason if self.goodbye.ending else PROVIDER_FAILED
                self._apologise(reason, now, out)
            case ev.EndRequested():
                self._end_requested(event, now, out)
            case ev.Tick():
                if event.late_s > ASLEEP_S:
                    # It was us who were away: nobody else has been waited for in vain yet.
                    self.responses.wait_anew(now)
                    self._feed(now)
                self._tick(now, out)

    def _agent_audio(self, event: ev.AgentAudio, now: float, out: list[ev.Command]) -> None:
        if not event.pcm or self.responses.is_dead(event.response_id):
            return
        running = self.responses.running
        if (running is not None and running.spoke) or audible(event.pcm):
            self._feed(now, event.response_id)
        out += self.speaking.audio(event)

    def _greet(self, out: list[ev.Command]) -> None:
        """A greeting that is prepared begins when the phone's socket opens, model or not; else it
        is made as soon as the model is ready, maybe while the phone still rings. A fixed greeting
        in another service's voice needs no model; the model is told of it.
        """
        if self._greeted:
            return
        greeting = self.agent.greeting.strip()
        clip = self.clips.get(Phrase.GREETING) if greeting else None
        if clip is not None:
            if self._opened_s is not None:
                self._greeted = True
                out += self.speaking.play(GREETING_ITEM, clip)
        elif self.speaking.external_voice and greeting:
            self._greeted = True
            out += self.speaking.say(GREETING_ITEM, greeting)
        elif self.model.ready:
            self._greeted = True
            text = prompts.say_exactly(greeting) if greeting else prompts.GREET_FREELY
            self._want(Wanted(ev.Purpose.GREETING, text, tools=False))

    def _caller_speaks(self, event: ev.SpeechStarted, now: float, out: list[ev.Command]) -> None:
        """Barge-in: measure, stop, clear, and make every memory end at what was heard.

        A goodbye is not interrupted: the call is over for both sides once it is said.
        """
        self._nudges = 0
        self._unanswered = True
        self.responses.due_since_s = None
        self.guard.model_hears(now)
        if self.goodbye.call_off():
            out += self.speaking.cut(now, self._clock_ms(now))
            self.responses.interrupted()
        out += self.listening.started(event.item_id, self._clock_ms(now))

    def _caller_audible(self, event: ev.CallerAudible, now: float, out: list[ev.Command]) -> None:
        """Our own ear. While there is no model to hear him, it is what stops the agent."""
        self.guard.ear(event.speaking, event.spoken_ms, now, model_ready=self.model.ready)
        if event.speaking:
            self._unanswered = True
            if not self.model.ready and self.goodbye.ending is None:
                out += self.speaking.cut(now, self._clock_ms(now))
        elif self.model.ready and self.guard.unheard_s is None:
            # The model heard it too, or it was nothing.
            self._unanswered = self.listening.caller_speaks or self.listening.waits_for_words()

    def _response_started(
        self, event: ev.ResponseStarted, now: float, out: list[ev.Command]
    ) -> None:
        self.guard.unheard_s = None
        if cancel := self.responses.started(event.response_id, event.request_id, now):
            out.append(cancel)
            return
        running = self.responses.running
        if running is None or running.wanted.purpose is ev.Purpose.GOODBYE:
            return
        # What begins while the caller speaks was made for a turn that was not his last word.
        unwanted = self.goodbye.irrevocable or self.listening.caller_speaks
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
            self._drop_unheard(running.response_id, now, out)
            if ending is None or ending.said:
                wanted = again(running)
                wanted.tries = wanted.tries if event.retryable else TRIES_MOST
                self._try_again(wanted, now, out)
        elif event.status == "incomplete":
            out.append(ev.Note("response_incomplete", event.reason))
            if event.reason != "content_filter" and running.wanted.tries < TRIES_MOST - 1:
                # It was cut off in mid-word; what is still missing is asked for once.
                wanted = again(running)
                wanted.tries += 1
                self._want(wanted)
        elif running.spoke:
            self.model.proved_itself()
            self._unanswered = self.listening.caller_speaks or self.guard.audible
        if running.called_tool and ending is not None and not ending.said:
            self.goodbye.say("" if running.spoke else prompts.GOODBYE)

    def _want(self, wanted: Wanted) -> None:
        """Once the call is to end, nothing but its goodbye is wanted."""
        if self.goodbye.ending is None:
            self.responses.want(wanted)

    def _try_again(self, wanted: Wanted, now: float, out: list[ev.Command]) -> None:
        """One more try, a moment later; then with a new session; then the caller is not left
        waiting.
        """
        if self.goodbye.ending is not None:
            if wanted.purpose is ev.Purpose.GOODBYE:
                self._farewell(now, out)
            return
        wanted.tries += 1
        if wanted.tries > TRIES_MOST:
            self._way_out(now, out)
        elif wanted.tries == TRIES_MOST:
            self._begin_anew(wanted, now, out)
        elif not self.listening.caller_speaks:
            wanted.not_before_s, wanted.since_s = now + 0.3, None
            self._want(wanted)

    def _tool_called(self, event: ev.ToolCalled, now: float, out: list[ev.Command]) -> None:
        dead = self.responses.is_dead(event.response_id)
        answer = self.tools.answer(event, interrupted=dead)
        if answer is None:
            return
        out.append(answer)
        self.memory.keep_function(event, answer, self._clock_ms(now))
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

    # ------------------------------------------------------------------ the model comes and goes

    def _model_came(self, event: ev.ProviderReady, now: float, out: list[ev.Command]) -> None:
        """It is told all that it has to know, and what is still to be said is asked for."""
        self.model.came(now, event.life_s)
        self._quiet_since_s = now
        if self.model.speaks_instead:
            out.append(ev.SpeakYourself())
        out += self.memory.recall()
        out += self.speaking.in_progress()
        self._greet(out)
        if self._unanswered:
            self.guard.rehears(now + REHEARING_S)
        if (wanted := self.responses.wanted) is not None:
            # What the caller said is sent again as sound: if the model hears it, it answers by
            # itself, and this is not wanted any more.
            wanted.since_s = None
            wanted.not_before_s = now + (REHEARING_S if self._unanswered else 0.0)

    def _model_lost(self, event: ev.ProviderLost, now: float, out: list[ev.Command]) -> None:
        was_ready = self.model.ready
        out.append(ev.Note("provider_lost", event.reason))
        if self.goodbye.ending is not None:
            self.model.went()
            out += self.speaking.broken_off()
            self._farewell(now, out)
        elif was_ready and event.retryable:
            self._begin_anew(None, now, out)
        else:
            self._way_out(now, out)

    def _begin_anew(
        self, wanted: Wanted | None, now: float, out: list[ev.Command], *, renewed: bool = False
    ) -> None:
        """With another session of the model, and the same conversation. Nothing that was heard is
        said again, and nothing that is owed is forgotten.
        """
        heard_something = self.responses.running is not None and self.responses.running.spoke
        if not self.model.may_begin_anew(renewed=renewed):
            self._way_out(now, out)
            return
        self.model.went()
        owed = self.responses.lost()
        out += self.speaking.broken_off()
        out += self.listening.lost(self._clock_ms(now))
        if heard_something:
            self._unanswered = self.guard.audible
        if wanted := wanted or owed:
            wanted.since_s = None
            self.responses.want(wanted)
        out.append(ev.Reconnect())

    def _renewal_is_due(self, now: float) -> bool:
        at_s = self._renew_at_s()
        return at_s is not None and now >= at_s

    def _renew_at_s(self) -> float | None:
        """When a session that nears its end is to be renewed, as things stand now."""
        nothing_cut_off = (
            self.model.ready
            and self.goodbye.ending is None
            and self.responses.idle
            and self.responses.due_since_s is None
            and not self.listening.caller_speaks
            and not self.listening.waits_for_words()
            and not self.guard.audible
        )
        return self.model.renew_at_s(quiet=self.speaking.silent) if nothing_cut_off else None

    def _voice_lost(self, event: ev.ClauseFailed, now: float, out: list[ev.Command]) -> None:
        """The other service's voice fails: from here on the model speaks itself."""
        out.append(ev.Note("voice_failed", event.reason))
        unsaid = event.item_id == GREETING_ITEM and not self.speaking.heard_anything
        running = self.responses.running
        if cancel := self.responses.drop_running():
            out.append(cancel)
        out += self.speaking.voice_lost()
        self.model.speaks_instead = True
        out.append(ev.SpeakYourself())
        if self.goodbye.ending is not None:
            self._farewell(now, out)
        elif unsaid:
            greeting = prompts.say_exactly(self.agent.greeting.strip())
            self._want(Wanted(ev.Purpose.GREETING, greeting, tools=False))
        elif self.responses.wanted is None:
            self._want(again(running) if running else Wanted(ev.Purpose.ANSWER, prompts.CUT_OFF))

    # ------------------------------------------------------------------ ways out

    def _way_out(self, now: float, out: list[ev.Command]) -> None:
        """The model cannot be had: the agent's person, or words and a clean end."""
        self.model.went()
        self.responses.forget()
        out += self.speaking.broken_off()
        if self._opened_s is None:
            self._end(PROVIDER_FAILED, now, out, hang_up=False)
        elif self.agent.fallback_number:
            self._lead_away(PROVIDER_FAILED, now, out)
        else:
            self._apologise(PROVIDER_FAILED, now, out)

    def _lead_away(self, reason: ev.EndReason, now: float, out: list[ev.Command]) -> None:
        """The carrier takes the caller over; until it has, he is not left in silence."""
        clip = self.clips.get(Phrase.ONE_MOMENT)
        if clip is not None and self._opened_s is not None and self.speaking.silent:
            out += self.speaking.play("leading_away", clip)
            # Until it is on its way to the phone, the silence must not count as unbroken.
            self.guard.silent_since(now)
        self.goodbye.wait_for_transfer(reason, now)
        out.append(ev.TransferToPerson())

    def _apologise(self, reason: ev.EndReason, now: float, out: list[ev.Command]) -> None:
        """Prepared words, then the end of the caller's leg. Without such words the socket is closed
        as it is: the carrier asks what to do, and speaks the apology.
        """
        clip = self.clips.get(Phrase.APOLOGY)
        if clip is None or self._opened_s is None:
            self.goodbye.when_heard(reason, now, hang_up=False)
            return
        out += self.speaking.play("apology", clip)
        self.goodbye.after_words(reason, now)

    def _farewell(self, now: float, out: list[ev.Command]) -> None:
        """A goodbye that the model owes and cannot say is said for it."""
        ending = self.goodbye.ending
        assert ending is not None
        if ending.transfer:
            # He is being led to somebody who will speak to him.
            return
        self.responses.forget()
        clip = self.clips.get(Phrase.GOODBYE)
        if clip is None or self._opened_s is None or not self.speaking.silent:
            self.goodbye.unsayable(now)
            return
        out += self.speaking.play("farewell", clip)
        self.goodbye.after_words(ending.reason, now, hang_up=ending.hang_up)

    def _end_requested(self, event: ev.EndRequested, now: float, out: list[ev.Command]) -> None:
        if not event.politely or self._opened_s is None or self.clips.get(Phrase.APOLOGY) is None:
            self._end(event.reason, now, out, hang_up=event.hang_up)
            return
        if cancel := self.responses.drop_running():
            out.append(cancel)
        self.responses.forget()
        out += self.speaking.cut(now, self._clock_ms(now))
        self._apologise(event.reason, now, out)

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When the next `ev.Tick` is due; None when only an event can change anything."""
        if self._over:
            return None
        ending = self.goodbye.ending
        if self._opened_s is None:
            due = [self._began_s + self.limits.unclaimed_s]
            if ending is not None:
                due.append(ending.by_s)
            elif (at_s := self._no_media_at_s()) is not None:
                due.append(at_s)
            return min(due)
        due = [self._opened_s + self._max_s, *self.speaking.deadlines(self._handled_s)]
        if not self._muted:
            due.append(self.heard_caller_s + self.limits.media_silence_s)
        if (wanted := self.responses.wanted) is not None and self._may_ask():
            due.append(wanted.not_before_s)
        for at_s in (
            self._break_silence_at_s(),
            self._half_dead_at_s(self._handled_s),
            self._ask_phone_at_s(),
        ):
            if at_s is not None:
                due.append(at_s)
        if ending is not None:
            return min(*due, ending.by_s)
        due.append(self._opened_s + self.limits.polite_end_s(self._max_s))
        if self.listening.pressed_s is not None:
            due.append(self.listening.pressed_s + self.limits.keys_s)
        for at_s in (self._unheard_at_s(), self._stuck_at_s(), self._renew_at_s()):
            if at_s is not None:
                due.append(at_s)
        for since in (self._waiting_since(), self._stalled_since()):
            if since is not None:
                due.append(since + self.limits.answer_s)
        if self._is_quiet():
            due.append(self._quiet_since_s + self.agent.nudge_after_s)
        return min(due)

    def _stalled_since(self) -> float | None:
        """Since when the rest of what is being said, or the end of its response, has been due."""
        running = self.responses.running
        owes = not self.speaking.complete or (running is not None and running.spoke)
        if self._opened_s is None or not self.model.ready or not owes:
            return None
        since_s = max(self._fed_s, self.playback.look_again_s(), self._opened_s)
        # What is said into the silence meanwhile is no reason to wait any longer.
        return since_s if self._stalled_s is None else min(since_s, self._stalled_s)

    def _tick(self, now: float, out: list[ev.Command]) -> None:
        if self._opened_s is None:
            no_media = self._no_media_at_s()
            if now >= self._began_s + self.limits.unclaimed_s:
                self._end(ev.EndReason.MEDIA_NEVER_OPENED, now, out, hang_up=False)
            elif no_media is not None and now >= no_media and self.goodbye.ending is None:
                out.append(ev.Note("media_not_opened"))
                self._lead_away(ev.EndReason.MEDIA_NEVER_OPENED, now, out)
            return
        if (ask_at := self._ask_phone_at_s()) is not None and now >= ask_at:
            self._asked_phone_s = now
            out.append(ev.AskPhone())
        if now >= self._opened_s + self._max_s:
            self._end(ev.EndReason.MAX_DURATION, now, out, hang_up=True)
        elif not self._muted and now >= self.heard_caller_s + self.limits.media_silence_s:
            self._end(ev.EndReason.MEDIA_SILENT, now, out, hang_up=True)
        elif (half_dead := self._half_dead_at_s(now)) is not None and now >= half_dead:
            # What we send does not arrive, whatever the socket says: only the carrier helps.
            out.append(ev.Note("media_half_dead"))
            if (ending := self.goodbye.ending) is None:
                self._lead_away(ev.EndReason.MEDIA_LOST, now, out)
            elif ending.said:
                self._end(ending.reason, now, out, hang_up=True)
        elif self.goodbye.ending is None:
            if now >= self._opened_s + self.limits.polite_end_s(self._max_s):
                reason, words = ev.EndReason.MAX_DURATION, prompts.GOODBYE_TOO_LONG
                out += self.goodbye.bid(reason, words, now, self._clock_ms(now))
            else:
                self._lose_patience(now, out)
        if not self._over:
            at_s = self._break_silence_at_s()
            if at_s is not None and now >= at_s:
                self._break_silence(now, out)

    def _lose_patience(self, now: float, out: list[ev.Command]) -> None:
        """With whoever has been waited for too long: keys, the model, the caller."""
        if (at := self.listening.pressed_s) is not None and now >= at + self.limits.keys_s:
            self._take_keys(now, out)
        if (unheard := self._unheard_at_s()) is not None and now >= unheard:
            self._caller_unheard(now, out)
        if (stuck := self._stuck_at_s()) is not None and now >= stuck:
            out.append(ev.Note("provider_stuck"))
            self._begin_anew(Wanted(ev.Purpose.ANSWER), now, out)
        if self.model.ready:
            self._wait_for_model(now, out)
        if self._is_quiet() and now >= self._quiet_since_s + self.agent.nudge_after_s:
            self._nudge(now, out)

    def _wait_for_model(self, now: float, out: list[ev.Command]) -> None:
        patience_s = self.limits.answer_s
        if (stalled := self._stalled_since()) is not None and now >= stalled + patience_s:
            out += self.speaking.cut(now, self._clock_ms(now))
            if self.responses.running is not None or self.responses.asked is None:
                self._answer_overdue(now, out, began=True)
        while (since := self._waiting_since()) is not None and now >= since + patience_s:
            self._answer_overdue(now, out, began=self.responses.running is not None)

    def _waiting_since(self) -> float | None:
        """Since when a sound of the model has been due, while there is one to wait for."""
        return self.responses.waiting_since() if self.model.ready else None

    def _caller_unheard(self, now: float, out: list[ev.Command]) -> None:
        """The caller spoke and only our ear heard him: once, the model is to say so; then another
        session may hear better; a third time, he is not left with a deaf one.
        """
        out.append(ev.Note("caller_unheard"))
        times = self.guard.tell_unheard()
        wanted = Wanted(ev.Purpose.ANSWER, prompts.UNHEARD, tries=TRIES_MOST - 1)
        if times == 1:
            self._want(wanted)
        elif times == 2:
            self._begin_anew(wanted, now, out)
        else:
            self._way_out(now, out)

    def _take_keys(self, now: float, out: list[ev.Command]) -> None:
        turn = self.listening.take_keys(self._clock_ms(now))
        out += [ev.AddCallerWords(prompts.keys_pressed(turn.text)), ev.SaveTurn(turn)]
        if not self.listening.caller_speaks:
            self._want(Wanted(ev.Purpose.ANSWER))

    def _answer_overdue(self, now: float, out: list[ev.Command], *, began: bool) -> None:
        """The model should be heard and is not. One that began to answer is asked once more; one
        that did not even do that is given up for another session at once.
        """
        wanted, cancel = self.responses.give_up()
        if cancel is not None:
            out.append(cancel)
            out += self.speaking.response_done(cancel.response_id)
            self._drop_unheard(cancel.response_id, now, out)
        if wanted is not None:
            out.append(ev.Note("answer_overdue"))
            if not began:
                # Two sessions in a row that give nothing: another would not either.
                least = TRIES_MOST if self.model.doubtful else TRIES_MOST - 1
                wanted.tries = max(wanted.tries, least)
            self._try_again(wanted, now, out)

    def _drop_unheard(self, response_id: str, now: float, out: list[ev.Command]) -> None:
        """A response that brought silence instead of a voice is not played to its end."""
        if self.speaking.only_silence(response_id):
            out += self.speaking.cut(now, self._clock_ms(now))

    def _unheard_at_s(self) -> float | None:
        """When to ask about what only our ear has heard."""
        if self.guard.unheard_s is None or not self._is_quiet():
            return None
        return self.guard.unheard_s + self.limits.unheard_s

    def _stuck_at_s(self) -> float | None:
        """When a model that does not notice the end of the caller's turn is given up."""
        return self.guard.stuck_at_s() if self.listening.caller_speaks else None

    def _no_media_at_s(self) -> float | None:
        """When a caller who was picked up, and is not connected to us, is spoken to otherwise."""
        if self._answered_s is None or self._no_way_s is not None:
            return None
        return self._answered_s + self.limits.connect_s

    def _half_dead_at_s(self, now: float) -> float | None:
        """When a phone that returns no marks any more, sending or not, has to be given up."""
        due_s = self.playback.mark_due_s()
        waits = self.goodbye.ending is not None and not self.goodbye.said
        if due_s is None or waits or self._muted:
            return None
        fresh = now <= self.heard_caller_s + FRESH_S
        return due_s + (HALF_DEAD_S if fresh else FROZEN_S)

    def _ask_phone_at_s(self) -> float | None:
        """When a phone that has fallen silent is asked whether it is there."""
        asked = self._asked_phone_s is not None and self._asked_phone_s >= self.heard_caller_s
        if asked or self._muted or not self.playback.marks_idle:
            return None
        return self.heard_caller_s + FRESH_S

    # ------------------------------------------------------------------ silence

    def _break_silence_at_s(self) -> float | None:
        """When something is to be said, should nothing be heard until then."""
        if self._opened_s is None or self._muted or not self._owed():
            return None
        return self.guard.break_silence_at_s(
            self._opened_s, self.heard_caller_s, caller_speaks=self.listening.caller_speaks
        )

    def _owed(self) -> bool:
        """The caller waits for the agent; otherwise it is the agent who waits for him."""
        return (
            not self.speaking.heard_anything
            or not self.responses.idle
            or self.responses.due_since_s is not None
            or not self.speaking.complete
            or self.guard.unheard_s is not None
            or (self._unanswered and not self.model.ready)
            or (self.goodbye.ending is not None and not self.goodbye.said)
            or self.listening.caller_speaks
        )

    def _break_silence(self, now: float, out: list[ev.Command]) -> None:
        if self.goodbye.said:
            self._farewell(now, out)
            return
        self._stalled_s = self._stalled_since()
        item_id, clip = self.guard.filler()
        out.append(ev.Note("silence_broken", clip.phrase.value))
        out += self.speaking.play(item_id, clip)
        # Until it is on its way to the phone, the silence must not count as unbroken.
        self.guard.silent_since(now)

    def _is_quiet(self) -> bool:
        """Nobody speaks and nothing is on its way."""
        return (
            self._opened_s is not None
            and self.model.ready
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
        return self.model.ready and self.responses.free and not self.listening.caller_speaks

    def _count_spoken(self, out: list[ev.Command]) -> None:
        spoken = sum(len(c.text) for c in out if isinstance(c, ev.SpeakClause))
        if spoken and not self._over:
            self.usage.add_spoken(spoken)
            out.append(ev.SaveUsage(self.usage.total()))

    def _feed(self, now: float, response_id: str = "") -> None:
        """Something that is to be heard has come, of a response or of the other voice."""
        self._fed_s, self._stalled_s = now, None
        if response_id:
            self.responses.spoke(response_id)

    def _clock_ms(self, now: float) -> int:
        """The call's clock: 0 when the media socket opened."""
        return max(0, int((now - self._opened_s) * 1000)) if self._opened_s is not None else 0
