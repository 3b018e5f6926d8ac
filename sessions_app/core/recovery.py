"""What happens when the model, or a voice, is lost: another session, another voice, a way out."""

from __future__ import annotations

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.greeting import Greeting
from sessions_app.core.parts import Parts
from sessions_app.core.phrases import Phrase
from sessions_app.core.responses import Wanted, again

PROVIDER_FAILED = ev.EndReason.PROVIDER_FAILED
#: So often the same thing is asked for; the last time in a new session.
TRIES_MOST = 2
#: From a failure to the next try.
AGAIN_S = 0.3
#: Sound that is sent again to a new session is taken for speech by then, if it is any.
REHEARING_S = 1.2


class Recovery:
    """Nothing that was heard is said again, and nothing that is owed is forgotten."""

    def __init__(self, parts: Parts, greeting: Greeting) -> None:
        self._parts = parts
        self._greeting = greeting

    # ------------------------------------------------------------------ the model comes and goes

    def came(self, event: ev.ProviderReady, now: float, out: list[ev.Command]) -> None:
        """It is told all that it has to know, and what is still to be said is asked for."""
        parts = self._parts
        parts.model.came(now, event.life_s)
        if parts.model.voice is not None:
            out.append(parts.model.voice)
        out += parts.memory.recall()
        out += parts.speaking.in_progress()
        self._greeting.begin(out)
        if parts.unanswered:
            parts.guard.rehears(now + REHEARING_S)
        if (wanted := parts.responses.wanted) is not None:
            # What the caller said is sent again as sound: if the model hears it, it answers by
            # itself, and this is not wanted any more.
            wanted.since_s = None
            wanted.not_before_s = now + (REHEARING_S if parts.unanswered else 0.0)

    def lost(self, event: ev.ProviderLost, now: float, out: list[ev.Command]) -> None:
        parts, was_ready = self._parts, self._parts.model.ready
        out.append(ev.Note("provider_lost", event.reason))
        if parts.goodbye.ending is not None:
            parts.model.went()
            out += parts.speaking.broken_off()
            self.farewell(now, out)
        elif was_ready and event.retryable:
            self.begin_anew(None, now, out)
        else:
            self.way_out(now, out)

    def begin_anew(
        self, wanted: Wanted | None, now: float, out: list[ev.Command], *, renewed: bool = False
    ) -> None:
        """With another session of the model, and the same conversation."""
        parts, running = self._parts, self._parts.responses.running
        if not parts.model.may_begin_anew(renewed=renewed):
            self.way_out(now, out)
            return
        parts.model.went()
        if running is not None and running.spoke:
            # He has begun to hear an answer: it is gone on with, not given anew.
            parts.unanswered = parts.guard.audible
        owed = parts.responses.lost()
        out += parts.speaking.broken_off()
        out += parts.listening.lost(parts.phone.clock_ms(now))
        if wanted := wanted or owed:
            wanted.since_s = None
            parts.responses.want(wanted)
        out.append(ev.Reconnect())

    def try_again(self, wanted: Wanted, now: float, out: list[ev.Command]) -> None:
        """One more try, a moment later; then with a new session; then the caller is not left
        waiting.
        """
        parts = self._parts
        if parts.goodbye.ending is not None:
            if wanted.purpose is ev.Purpose.GOODBYE:
                self.farewell(now, out)
            return
        wanted.tries += 1
        if wanted.tries > TRIES_MOST:
            self.way_out(now, out)
        elif wanted.tries == TRIES_MOST and wanted.mute and parts.speaking.take_spare_voice():
            out.append(ev.Note("voice_failed", "the model writes and is not heard"))
            self._change_voice(out, own=False)
            # It is the voice that is new, not the model: there is still a new session to be had.
            wanted.tries, wanted.since_s, wanted.mute = TRIES_MOST - 1, None, False
            parts.want(wanted)
        elif wanted.tries == TRIES_MOST:
            self.begin_anew(wanted, now, out)
        elif not parts.listening.caller_speaks:
            wanted.not_before_s, wanted.since_s = now + AGAIN_S, None
            parts.want(wanted)

    def renew_at_s(self) -> float | None:
        """When a session that nears its end is to be renewed, as things stand now."""
        parts = self._parts
        nothing_cut_off = (
            parts.model.ready
            and parts.goodbye.ending is None
            and parts.responses.idle
            and parts.responses.due_since_s is None
            and not parts.caller_busy
            and not parts.listening.waits_for_words()
        )
        return parts.model.renew_at_s(quiet=parts.speaking.silent) if nothing_cut_off else None

    def renew(self, now: float, out: list[ev.Command]) -> None:
        """The next session is made first, while this one goes on; then they change places."""
        model = self._parts.model
        if not model.has_reserve:
            model.ask_reserve()
            out.append(ev.OpenReserve())
            return
        out.append(ev.Note("session_renewed"))
        self.begin_anew(None, now, out, renewed=True)

    def reserve_failed(self, event: ev.ReserveFailed, now: float, out: list[ev.Command]) -> None:
        out.append(ev.Note("renewal_failed", event.reason))
        self._parts.model.reserve_failed(now)

    def voice_lost(self, event: ev.ClauseFailed, now: float, out: list[ev.Command]) -> None:
        """The other service's voice fails: from here on the model speaks itself."""
        parts, running = self._parts, self._parts.responses.running
        out.append(ev.Note("voice_failed", event.reason))
        greeting = self._greeting.in_own_voice(event.item_id)
        if cancel := parts.responses.drop_running():
            out.append(cancel)
        out += parts.speaking.voice_lost()
        self._change_voice(out, own=True)
        if parts.goodbye.ending is not None:
            self.farewell(now, out)
        elif greeting is not None:
            parts.want(greeting)
        elif parts.responses.wanted is None:
            parts.want(again(running) if running else Wanted(ev.Purpose.ANSWER, prompts.CUT_OFF))

    def _change_voice(self, out: list[ev.Command], *, own: bool) -> None:
        self._parts.model.voice = ev.ChangeVoice(own)
        out.append(self._parts.model.voice)

    # ------------------------------------------------------------------ ways out

    def way_out(self, now: float, out: list[ev.Command]) -> None:
        """The model cannot be had: the agent's person, or words and a clean end."""
        parts = self._parts
        parts.model.went()
        parts.responses.forget()
        out += parts.speaking.broken_off()
        if parts.speaking.external_voice:
            # What it has not begun to say would come behind the last words.
            out += parts.speaking.voice_lost()
        if parts.phone.opened_s is None:
            parts.goodbye.at_once(PROVIDER_FAILED, now)
        elif parts.agent.fallback_number:
            self.lead_away(PROVIDER_FAILED, now, out)
        else:
            self.apologise(PROVIDER_FAILED, now, out)

    def lead_away(self, reason: ev.EndReason, now: float, out: list[ev.Command]) -> None:
        """The carrier takes the caller over; until it has, he is not left in silence."""
        parts = self._parts
        clip = parts.clips.get(Phrase.ONE_MOMENT)
        if clip is not None and parts.phone.opened_s is not None and parts.speaking.silent:
            out += parts.speaking.play("leading_away", clip)
            # Until it is on its way to the phone, the silence must not count as unbroken.
            parts.guard.silent_since(now)
        parts.goodbye.wait_for_transfer(reason, now)
        out.append(ev.TransferToPerson())

    def not_led_away(self, event: ev.TransferFailed, now: float, out: list[ev.Command]) -> None:
        parts, ending = self._parts, self._parts.goodbye.ending
        out.append(ev.Note("transfer_failed", event.reason))
        if parts.phone.opened_s is None:
            # The socket may still come; if it does not, the call is ended in time.
            parts.phone.no_way()
            parts.goodbye.ending = None
        else:
            self.apologise(ending.reason if ending else PROVIDER_FAILED, now, out)

    def apologise(self, reason: ev.EndReason, now: float, out: list[ev.Command]) -> None:
        """Prepared words, then the end of the caller's leg. Without such words the socket is closed
        as it is: the carrier asks what to do, and speaks the apology.
        """
        parts = self._parts
        clip = parts.clips.get(Phrase.APOLOGY)
        if clip is None or parts.phone.opened_s is None:
            parts.goodbye.when_heard(reason, now, hang_up=False)
            return
        out += parts.speaking.play("apology", clip)
        parts.goodbye.after_words(reason, now)

    def farewell(self, now: float, out: list[ev.Command]) -> None:
        """A goodbye that the model owes and cannot say is said for it."""
        parts, ending = self._parts, self._parts.goodbye.ending
        assert ending is not None
        if ending.transfer:
            # He is being led to somebody who will speak to him.
            return
        parts.responses.forget()
        clip = parts.clips.get(Phrase.GOODBYE)
        if clip is None or parts.phone.opened_s is None or not parts.speaking.silent:
            parts.goodbye.unsayable(now)
            return
        out += parts.speaking.play("farewell", clip)
        parts.goodbye.after_words(ending.reason, now, hang_up=ending.hang_up)

    def end_politely(self, reason: ev.EndReason, now: float, out: list[ev.Command]) -> None:
        """Whatever is being said, the caller is told that the call ends, and then it does."""
        parts = self._parts
        if cancel := parts.responses.drop_running():
            out.append(cancel)
        parts.responses.forget()
        out += parts.speaking.cut(now, parts.phone.clock_ms(now))
        self.apologise(reason, now, out)
