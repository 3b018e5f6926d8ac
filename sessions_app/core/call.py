"""One call, decided: events and the time go in, commands come out.

Nothing here waits, sends or reads a clock. `next_deadline()` says when a `Tick` is due; handing in
a `Tick` early or often does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.agent import AgentProfile
from sessions_app.core.audio import audible
from sessions_app.core.ending import Goodbye
from sessions_app.core.greeting import Greeting
from sessions_app.core.guard import Guard
from sessions_app.core.limits import Limits
from sessions_app.core.listening import Listening
from sessions_app.core.modelsession import ModelSession
from sessions_app.core.parts import Parts
from sessions_app.core.past import Past
from sessions_app.core.patience import Patience
from sessions_app.core.phoneline import DECIDED_S, FEED_S, PhoneLine
from sessions_app.core.phrases import Clips, Phrase
from sessions_app.core.playback import Playback
from sessions_app.core.recovery import TRIES_MOST, Recovery
from sessions_app.core.responses import Responses, Wanted, again
from sessions_app.core.speaking import Speaking, speakable
from sessions_app.core.tools import END_CALL, Tools

#: What still counts without a line to the caller: whether he is there, and what he said last.
_WITHOUT_A_LINE = (
    ev.CallerGone
    | ev.CallerTranscript
    | ev.EndRequested
    | ev.MediaAwaited
    | ev.MediaClosed
    | ev.Tick
    | ev.TranscriptionUsage
    | ev.Transferred
    | ev.TransferFailed
    | ev.Whispered
)
#: A tick that comes so late means that this process, or its machine, stood still.
ASLEEP_S = 1.0


class Call:
    """The rules of a conversation. Deterministic: same events and times in, same commands out."""

    def __init__(
        self,
        agent: AgentProfile,
        limits: Limits,
        *,
        speaks: bool,
        spare_voice: bool = False,
        provider_rate_hz: int,
        voice_rate_hz: int = 0,
        clips: Clips | None = None,
        past: Past | None = None,
        now: float,
    ) -> None:
        """`speaks`: the model itself; `spare_voice`: another service can, should it not be heard.
        `past`: of the session of the same call whose place this one takes.
        """
        self.agent = agent
        self.limits = limits
        self.clips = clips or Clips()
        self.playback = Playback()
        self.phone = PhoneLine(limits, self.playback, now)
        self.speaking = Speaking(
            self.playback,
            external_voice=not speaks,
            spare_voice=spare_voice,
            provider_rate_hz=provider_rate_hz,
            voice_rate_hz=voice_rate_hz,
        )
        self.listening = Listening()
        self.responses = Responses()
        self.model = ModelSession()
        past = past or Past()
        self.memory, self.usage = past.memory, past.usage
        self.memory.another_session()
        self._connected_before_s = past.connected_s
        self.guard = Guard(agent, limits, self.playback, self.clips)
        self.goodbye = Goodbye(limits, self.playback, self.speaking, self.responses)
        self.parts = Parts(
            agent,
            limits,
            self.clips,
            self.playback,
            self.phone,
            self.speaking,
            self.listening,
            self.responses,
            self.model,
            self.memory,
            self.guard,
            self.goodbye,
        )
        self.greeting = Greeting(self.parts)
        self.recovery = Recovery(self.parts, self.greeting)
        self.patience = Patience(self.parts, self.recovery, now)
        self.tools = Tools()
        self._began_s = self._handled_s = now
        self._over = False
        self._retaining = False
        most_s = min(float(agent.max_call_s or limits.max_s), limits.max_s)
        # However late he comes back, there is time to bid him goodbye.
        self._max_s = max(most_s - past.connected_s, min(most_s, limits.goodbye_s))

    @property
    def heard_caller_s(self) -> float:
        """When the phone last sent anything. Set by the shell for every frame that comes in; an
        event for each would cost too much.
        """
        return self.phone.heard_s

    @heard_caller_s.setter
    def heard_caller_s(self, now: float) -> None:
        self.phone.heard_s = now

    @property
    def over(self) -> bool:
        return self._over

    def past(self, now: float) -> Past:
        """What another session of the same call needs to know."""
        connected_s = self._connected_before_s + self.phone.clock_ms(now) / 1000
        return Past(self.memory, self.usage, connected_s)

    @property
    def media_broke(self) -> bool:
        """The line is gone, and the caller perhaps not."""
        return self.phone.broken_s is not None

    @property
    def may_go_on(self) -> bool:
        """A conversation has begun that nobody has ended."""
        return not self._over and self.phone.opened_s is not None and self.goodbye.ending is None

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Everything that follows from the event at this time."""
        if self._over:
            return []
        out: list[ev.Command] = []
        if isinstance(event, ev.AgentAudio):
            # By far the most frequent, and it changes nothing but what there is to be heard:
            # whatever else is due has a deadline of its own.
            if self.model.ready and not self.media_broke:
                self.patience.note_quiet(now)
                self._agent_audio(event, now, out)
            return out
        self._handled_s = now
        if not self.media_broke:
            self._converse(event, now, out)
        elif isinstance(event, _WITHOUT_A_LINE):
            self._take(event, now, out)
        self.memory.keep(out)
        if self.parts.unanswered != self._retaining:
            self._retaining = self.parts.unanswered
            out.append(ev.RetainAudio(self._retaining))
        if not self.model.ready:
            # Whatever it should know it is told when it is there.
            out = [command for command in out if not isinstance(command, ev.ProviderCommand)]
        return out

    # ------------------------------------------------------------------ events

    def _converse(self, event: ev.Event, now: float, out: list[ev.Command]) -> None:
        self.patience.note_quiet(now)
        if self.model.ready or not isinstance(event, ev.FromModel):
            self._take(event, now, out)
        if self._over or self.media_broke:
            return
        self.patience.note_quiet(now)
        self._count_spoken(out)
        out += self.speaking.settle(now, self.phone.clock_ms(now))
        if ending := self.goodbye.due(now):
            self._end(ending.reason, now, out, hang_up=ending.hang_up)
        elif (renew_at := self.recovery.renew_at_s()) is not None and now >= renew_at:
            self.recovery.renew(now, out)
        elif self._may_ask() and (request := self.responses.ask(now)):
            out.append(request)

    def _take(self, event: ev.Event, now: float, out: list[ev.Command]) -> None:
        match event:
            case ev.AgentText():
                if not self.responses.is_dead(event.response_id):
                    if speakable(event.text):
                        self.responses.wrote(event.response_id)
                        if self.speaking.external_voice:
                            self.patience.fed(now, event.response_id)
                    out += self.speaking.words(event)
            case ev.AgentItemDone():
                out += self.speaking.item_done(event.item_id)
            case ev.SpokenAudio():
                self.patience.fed(now)
                out += self.speaking.spoken(event)
            case ev.ClauseSpoken():
                self.patience.fed(now)
                out += self.speaking.clause_spoken(event.item_id, event.clause)
            case ev.ClauseFailed():
                if self.speaking.waits_for(event.item_id):
                    self.recovery.voice_lost(event, now, out)
            case ev.SpeechStarted():
                self._caller_speaks(event, now, out)
            case ev.SpeechStopped():
                out += self.listening.stopped(event.item_id, self.phone.clock_ms(now))
                self.patience.caller_stops(now)
                self.guard.model_hears_end(now)
            case ev.CallerTranscript():
                out += self.listening.transcript(event, self.phone.clock_ms(now))
                if event.final and event.text.strip() and not self.listening.caller_speaks:
                    self.parts.unanswered = self.guard.audible
            case ev.CallerTranscriptFailed():
                out += self.listening.failed(event.item_id, self.phone.clock_ms(now))
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
                    self.recovery.try_again(wanted, now, out)
            case ev.ToolCalled():
                self._tool_called(event, now, out)
            case ev.MarkPlayed():
                self.playback.mark_played(event.mark_id, now)
            case ev.ItemWritten():
                self.speaking.item_written(event.item_id)
            case ev.MediaOpened():
                self.phone.opened(now)
                self.patience.from_now(now)
                if (ending := self.goodbye.ending) is not None and ending.transfer:
                    # It came after all, while the carrier was being asked.
                    self.goodbye.ending = None
                self.greeting.begin(out)
            case ev.MediaAwaited():
                self.phone.awaits(now + event.for_s)
            case ev.MediaMuted():
                self.phone.mute(event.muted, now)
                self.patience.from_now(now)
                self.guard.silent_since(now)
                if self.listening.caller_speaks and not event.muted:
                    self.guard.heard_again(now)
            case ev.ProviderReady():
                self.recovery.came(event, now, out)
                self.patience.from_now(now)
            case ev.DtmfPressed():
                self.listening.press(event.digit, now)
                self.patience.key_pressed(now)
            case ev.TranscriptionUsage():
                self.usage.add_transcription(event.usage)
                out.append(ev.SaveUsage(self.usage.total()))
            case ev.ProviderNotice():
                out.append(ev.Note(event.kind, event.detail))
            case ev.ReserveOpened():
                self.model.reserve_opened()
            case ev.ReserveFailed():
                self.recovery.reserve_failed(event, now, out)
            case ev.ProviderLost():
                self.recovery.lost(event, now, out)
            case ev.MediaClosed(for_good=False) if self.media_broke:
                # Taking the caller to another socket may close this one.
                pass
            case ev.MediaClosed(for_good=False) if self._may_come_back(event.clean, now):
                out.append(ev.Note("media_broke"))
                self._lose_line(now, out)
            case ev.MediaClosed():
                reason = ev.EndReason.CALLER_HUNG_UP if event.clean else ev.EndReason.MEDIA_LOST
                if self.phone.opened_s is None:
                    reason = ev.EndReason.MEDIA_NEVER_OPENED
                if (ending := self.goodbye.ending) is not None:
                    # Taking the caller's leg away closes our socket, maybe before we are told.
                    reason = ev.EndReason.TRANSFERRED if ending.transfer else ending.reason
                self._end(reason, now, out, hang_up=False)
            case ev.CallerAnswered():
                self.phone.answered(now)
            case ev.CallerGone():
                self._end(ev.EndReason.CALLER_HUNG_UP, now, out, hang_up=False)
            case ev.Transferred():
                self._end(ev.EndReason.TRANSFERRED, now, out, hang_up=False)
            case ev.TransferFailed() if self.media_broke:
                out.append(ev.Note("transfer_failed", event.reason))
                self._end(ev.EndReason.MEDIA_LOST, now, out, hang_up=False)
            case ev.TransferFailed():
                self.recovery.not_led_away(event, now, out)
            case ev.EndRequested():
                connected = self.phone.opened_s is not None and not self.media_broke
                can_tell = connected and self.clips.get(Phrase.APOLOGY)
                if not (event.politely and can_tell):
                    self._end(event.reason, now, out, hang_up=event.hang_up)
                elif not self.goodbye.irrevocable:
                    self.recovery.end_politely(event.reason, now, out)
            case ev.Whispered():
                self._whispered(event.text, now, out)
            case ev.Tick():
                if event.late_s > ASLEEP_S:
                    self.patience.asleep(now)
                self._tick(now, out)

    def _agent_audio(self, event: ev.AgentAudio, now: float, out: list[ev.Command]) -> None:
        if not event.pcm or self.responses.is_dead(event.response_id):
            return
        running = self.responses.running
        out += self.speaking.audio(event)
        goes_on = running is not None and running.spoke and self.speaking.pauses(event.item_id)
        if goes_on or audible(event.pcm):
            self.patience.fed(now, event.response_id)

    def _whispered(self, text: str, now: float, out: list[ev.Command]) -> None:
        """Taken up at once if nobody speaks or dials and nothing is under way, else with what the
        agent says next anyway: into his own words or the caller's it would be a jumble.
        """
        self.memory.keep_whisper(text, self.phone.clock_ms(now))
        out += [ev.AddWhisper(prompts.whispered(text)), ev.Note("whispered")]
        answer_due = self.responses.due_since_s is not None
        caller_busy = self.parts.caller_busy or self.listening.pressed_s is not None
        free = self.patience.quiet and not self.media_broke
        if free and not answer_due and not caller_busy:
            self.parts.want(Wanted(ev.Purpose.ANSWER, prompts.WHISPERED))

    def _caller_speaks(self, event: ev.SpeechStarted, now: float, out: list[ev.Command]) -> None:
        """Barge-in: measure, stop, clear, and make every memory end at what was heard.

        A goodbye is not interrupted: the call is over for both sides once it is said.
        """
        self.patience.caller_speaks(now)
        self.parts.unanswered = True
        self.responses.due_since_s = None
        self.guard.model_hears(now)
        if self.goodbye.call_off():
            out += self.speaking.cut(now, self.phone.clock_ms(now))
            self.responses.interrupted()
        out += self.listening.started(event.item_id, self.phone.clock_ms(now))

    def _caller_audible(self, event: ev.CallerAudible, now: float, out: list[ev.Command]) -> None:
        """Our own ear. While there is no model to hear him, it is what stops the agent, but for
        short prepared words: what it hears may be an echo, or a cough.
        """
        self.guard.ear(
            event.speaking,
            event.spoken_ms,
            now,
            model_ready=self.model.ready,
            awaited=self.patience.awaited and not self.listening.caller_speaks,
        )
        if event.speaking:
            self.parts.unanswered = True
            lonely = not self.model.ready and not self.speaking.only_prepared
            if lonely and self.goodbye.ending is None:
                out += self.speaking.cut(now, self.phone.clock_ms(now))
        elif self.model.ready and self.guard.unheard_s is None:
            # The model heard it too, or it was nothing.
            self.parts.unanswered = self.listening.caller_speaks or self.listening.waits_for_words()

    def _response_started(
        self, event: ev.ResponseStarted, now: float, out: list[ev.Command]
    ) -> None:
        self.guard.unheard_s = None
        self.patience.answer_begins()
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
        whole = event.status == "completed" and ending is None
        # Who speaks himself gets an answer to that; else a silent one is none, however it ended.
        nothing = silent and not (event.status == "cancelled" and self.listening.caller_speaks)
        if event.status == "failed" or nothing:
            out.append(ev.Note("response_failed", event.reason or event.status))
            self.patience.drop_unheard(running.response_id, now, out)
            if ending is None or ending.said:
                wanted = again(running)
                wanted.tries = wanted.tries if event.retryable else TRIES_MOST
                self.recovery.try_again(wanted, now, out)
        elif event.status == "incomplete":
            out.append(ev.Note("response_incomplete", event.reason))
            if event.reason != "content_filter" and running.wanted.tries < TRIES_MOST - 1:
                # It was cut off in mid-word; what is still missing is asked for once.
                wanted = again(running)
                wanted.tries += 1
                self.parts.want(wanted)
        elif whole and (cut := self.speaking.fell_silent(event.response_id)):
            out.append(ev.Note("response_failed", "it fell silent"))
            out += cut
            self.recovery.try_again(again(running), now, out)
        elif running.spoke:
            self.model.proved_itself()
            self.parts.unanswered = self.parts.caller_busy
        if running.called_tool and ending is not None and not ending.said:
            self.goodbye.say("" if running.spoke else prompts.GOODBYE)

    def _tool_called(self, event: ev.ToolCalled, now: float, out: list[ev.Command]) -> None:
        dead = self.responses.is_dead(event.response_id)
        answer = self.tools.answer(event, interrupted=dead)
        if answer is None:
            return
        out.append(answer)
        self.memory.keep_function(event, answer, self.phone.clock_ms(now))
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
            self.parts.want(Wanted(ev.Purpose.ANSWER))

    # ------------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """When the next `ev.Tick` is due; None when only an event can change anything."""
        return None if self._over else min(self._deadlines())

    def _deadlines(self) -> Iterator[float]:
        opened_s, ending, now = self.phone.opened_s, self.goodbye.ending, self._handled_s
        if (given_up_at_s := self.phone.given_up_at_s()) is not None:
            yield given_up_at_s
            return
        if ending is not None:
            yield ending.by_s
        if (wanted := self.responses.wanted) is not None and self._may_ask():
            yield wanted.not_before_s
        if opened_s is None:
            yield self._began_s + self.limits.unclaimed_s
            if ending is None and (at_s := self.phone.no_media_at_s()) is not None:
                yield at_s
            return
        yield opened_s + self._max_s
        yield from self.speaking.deadlines(now)
        for soonest in (
            self.phone.silent_at_s(),
            self.phone.ask_at_s(),
            self._dead_at_s(now),
            self.patience.break_silence_at_s(),
        ):
            if soonest is not None:
                yield soonest
        if (feed_at := self._feed_silence_at_s()) is not None:
            yield feed_at
        if ending is None:
            yield opened_s + self.limits.polite_end_s(self._max_s)
            if (renew_at := self.recovery.renew_at_s()) is not None:
                yield renew_at
            yield from self.patience.deadlines()

    def _feed_silence_at_s(self) -> float | None:
        """When the model, or our ear, is to hear that a caller who sends nothing does not speak."""
        speaks = self.listening.caller_speaks or self.guard.audible
        return self.phone.feed_silence_at_s() if speaks else None

    def _dead_at_s(self, now: float) -> float | None:
        """When a phone that does not get what we send is given up; while the carrier takes the
        caller over, nothing more can be done.
        """
        waits = self.goodbye.ending is not None and not self.goodbye.said
        return None if waits else self.phone.dead_at_s(now)

    def _tick(self, now: float, out: list[ev.Command]) -> None:
        opened_s, given_up_at_s = self.phone.opened_s, self.phone.given_up_at_s()
        if given_up_at_s is not None:
            if now >= given_up_at_s:
                self._end(ev.EndReason.MEDIA_LOST, now, out, hang_up=False)
            return
        if opened_s is None:
            self._wait_for_media(now, out)
            return
        if (ask_at := self.phone.ask_at_s()) is not None and now >= ask_at:
            self.phone.asked(now)
            out.append(ev.AskPhone())
        if (feed_at := self._feed_silence_at_s()) is not None and now >= feed_at:
            self.phone.fed_silence(now)
            out.append(ev.FeedSilence(round(FEED_S * 1000)))
        silent_at, dead_at = self.phone.silent_at_s(), self._dead_at_s(now)
        if now >= opened_s + self._max_s:
            self._end(ev.EndReason.MAX_DURATION, now, out, hang_up=True)
        elif silent_at is not None and now >= silent_at:
            self._end(ev.EndReason.MEDIA_SILENT, now, out, hang_up=True)
        elif dead_at is not None and now >= dead_at:
            self._phone_is_dead(now, out)
        elif self.goodbye.ending is None:
            if now >= opened_s + self.limits.polite_end_s(self._max_s):
                reason, words = ev.EndReason.MAX_DURATION, prompts.GOODBYE_TOO_LONG
                out += self.goodbye.bid(reason, words, now, self.phone.clock_ms(now))
            else:
                self.patience.lose(now, out)
        if not self._over:
            at_s = self.patience.break_silence_at_s()
            if at_s is not None and now >= at_s:
                self.patience.break_silence(now, out)

    def _wait_for_media(self, now: float, out: list[ev.Command]) -> None:
        no_media = self.phone.no_media_at_s()
        if now >= self._began_s + self.limits.unclaimed_s:
            self._end(ev.EndReason.MEDIA_NEVER_OPENED, now, out, hang_up=False)
        elif no_media is not None and now >= no_media and self.goodbye.ending is None:
            out.append(ev.Note("media_not_opened"))
            self.recovery.lead_away(ev.EndReason.MEDIA_NEVER_OPENED, now, out)

    def _phone_is_dead(self, now: float, out: list[ev.Command]) -> None:
        """What we send does not arrive, whatever the socket says: only the carrier helps."""
        out.append(ev.Note("media_half_dead"))
        if (ending := self.goodbye.ending) is None:
            self._lose_line(now, out)
            if not self.phone.awaited(now):
                self.phone.awaits(now + DECIDED_S)
                out.append(ev.ConnectAgain())
        else:
            self._end(ending.reason, now, out, hang_up=True)

    def _may_come_back(self, clean: bool, now: float) -> bool:
        """A caller whose socket closes; a clean end is his own, unless he is about to change it."""
        return self.may_go_on and (not clean or self.phone.awaited(now))

    def _lose_line(self, now: float, out: list[ev.Command]) -> None:
        """What was heard is what was said; from here on nobody hears anything."""
        out += self.speaking.close(now, self.phone.clock_ms(now))
        self.phone.broke(now)

    # ------------------------------------------------------------------ endings

    def _end(
        self, reason: ev.EndReason, now: float, out: list[ev.Command], *, hang_up: bool
    ) -> None:
        out += self.speaking.close(now, self.phone.clock_ms(now))
        out += self.listening.close(self.phone.clock_ms(now))
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
