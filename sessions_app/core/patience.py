"""Who is waited for, how long, and what is done then: the model, the caller, and silence itself."""

from __future__ import annotations

from collections.abc import Iterator

from sessions_app.core import events as ev
from sessions_app.core import prompts
from sessions_app.core.parts import Parts
from sessions_app.core.phrases import Phrase
from sessions_app.core.recovery import TRIES_MOST, Recovery
from sessions_app.core.responses import Wanted

#: Whom the model has ignored once waits so long for it to begin, the next time.
IGNORED_WAIT_S = 1.5
#: What only our ear heard is not asked about into the last sound of the agent.
AFTER_AGENT_S = 0.3


class Patience:
    def __init__(self, parts: Parts, recovery: Recovery, now: float) -> None:
        self._parts = parts
        self._recovery = recovery
        self._quiet_since_s = now
        self._nudges = 0
        #: When something that is to be heard last came.
        self._fed_s = now
        #: Since when its rest has been due, as it was before something was said into the silence.
        self._stalled_s: float | None = None
        #: Turns of the caller that the model has heard and not begun to answer.
        self._ignored = 0

    # ------------------------------------------------------------------ what is noticed

    def fed(self, now: float, response_id: str = "") -> None:
        """Something that is to be heard has come, of a response or of the other voice."""
        self._fed_s, self._stalled_s = now, None
        if response_id:
            self._parts.responses.spoke(response_id)

    def caller_speaks(self, now: float) -> None:
        due_s = self._parts.responses.due_since_s
        self._nudges = 0
        self._ignored += due_s is not None and now - due_s >= self._parts.limits.ignored_s

    def caller_stops(self, now: float) -> None:
        """From here on an answer is due; who has been ignored once does not wait as long again."""
        sooner_s = max(0.0, self._answer_s - IGNORED_WAIT_S) if self._ignored else 0.0
        self._parts.responses.due_since_s = now - sooner_s
        self._quiet_since_s = now

    def key_pressed(self, now: float) -> None:
        self._nudges = 0
        self._quiet_since_s = now

    def answer_begins(self) -> None:
        self._ignored = 0

    def asleep(self, now: float) -> None:
        """It was us who were away: nobody else has been waited for in vain yet."""
        self._parts.responses.wait_anew(now)
        self.fed(now)

    def from_now(self, now: float) -> None:
        """The caller's silence counts from here."""
        self._quiet_since_s = now

    def note_quiet(self, now: float) -> None:
        parts = self._parts
        busy = not parts.speaking.silent or parts.listening.caller_speaks
        if busy or not parts.responses.idle:
            self._quiet_since_s = now

    @property
    def quiet(self) -> bool:
        """Nobody speaks and nothing is on its way."""
        parts = self._parts
        return (
            parts.phone.opened_s is not None
            and parts.model.ready
            and parts.goodbye.ending is None
            and not parts.listening.caller_speaks
            and not parts.phone.muted
            and parts.speaking.silent
            and parts.responses.idle
        )

    # ------------------------------------------------------------------ time

    def deadlines(self) -> Iterator[float]:
        """When somebody will have been waited for too long, as things stand."""
        parts = self._parts
        if parts.listening.pressed_s is not None:
            yield parts.listening.pressed_s + parts.limits.keys_s
        for at_s in (self._unheard_at_s(), self._stuck_at_s()):
            if at_s is not None:
                yield at_s
        for since_s in (self._waiting_since(), self._stalled_since()):
            if since_s is not None:
                yield since_s + self._answer_s
        if self.quiet:
            yield self._quiet_since_s + parts.agent.nudge_after_s

    def lose(self, now: float, out: list[ev.Command]) -> None:
        """With whoever has been waited for too long."""
        parts = self._parts
        pressed_s = parts.listening.pressed_s
        if pressed_s is not None and now >= pressed_s + parts.limits.keys_s:
            self._take_keys(now, out)
        if (unheard := self._unheard_at_s()) is not None and now >= unheard:
            self._caller_unheard(now, out)
        if (stuck := self._stuck_at_s()) is not None and now >= stuck:
            out.append(ev.Note("provider_stuck"))
            self._recovery.begin_anew(Wanted(ev.Purpose.ANSWER), now, out)
        if parts.model.ready:
            self._wait_for_model(now, out)
        if self.quiet and now >= self._quiet_since_s + parts.agent.nudge_after_s:
            self._nudge(now, out)

    # ------------------------------------------------------------------ the model

    @property
    def _answer_s(self) -> float:
        limits, model = self._parts.limits, self._parts.model
        in_doubt = model.doubtful or model.suspect
        return limits.doubtful_answer_s if in_doubt else limits.answer_s

    def _waiting_since(self) -> float | None:
        """Since when a sound of the model has been due, while there is one to wait for."""
        parts = self._parts
        return parts.responses.waiting_since() if parts.model.ready else None

    def _stalled_since(self) -> float | None:
        """Since when the rest of what is being said, or the end of its response, has been due."""
        parts, running = self._parts, self._parts.responses.running
        owes = not parts.speaking.complete or (running is not None and running.spoke)
        if parts.phone.opened_s is None or not parts.model.ready or not owes:
            return None
        since_s = max(self._fed_s, parts.playback.look_again_s(), parts.phone.opened_s)
        # What is said into the silence meanwhile is no reason to wait any longer.
        return since_s if self._stalled_s is None else min(since_s, self._stalled_s)

    def _wait_for_model(self, now: float, out: list[ev.Command]) -> None:
        parts, patience_s = self._parts, self._answer_s
        if (stalled := self._stalled_since()) is not None and now >= stalled + patience_s:
            out += parts.speaking.cut(now, parts.phone.clock_ms(now))
            if parts.responses.running is not None or parts.responses.asked is None:
                self._answer_overdue(now, out, began=True)
        while (since := self._waiting_since()) is not None and now >= since + patience_s:
            self._answer_overdue(now, out, began=parts.responses.running is not None)

    def _answer_overdue(self, now: float, out: list[ev.Command], *, began: bool) -> None:
        """The model should be heard and is not. One that began to answer is asked once more; one
        that did not even do that is given up for another session at once.
        """
        parts = self._parts
        self._stalled_s = None
        wanted, cancel = parts.responses.give_up()
        if cancel is not None:
            out.append(cancel)
            out += parts.speaking.response_done(cancel.response_id)
            self.drop_unheard(cancel.response_id, now, out)
        if wanted is not None:
            out.append(ev.Note("answer_overdue"))
            if not began:
                # Two sessions in a row that give nothing: another would not either.
                least = TRIES_MOST if parts.model.doubtful else TRIES_MOST - 1
                wanted.tries = max(wanted.tries, least)
            self._recovery.try_again(wanted, now, out)

    def drop_unheard(self, response_id: str, now: float, out: list[ev.Command]) -> None:
        """A response that brought silence instead of a voice is not played to its end."""
        parts = self._parts
        if parts.speaking.only_silence(response_id):
            out += parts.speaking.cut(now, parts.phone.clock_ms(now))

    def _unheard_at_s(self) -> float | None:
        """When to ask about what only our ear has heard."""
        unheard_s = self._parts.guard.unheard_s
        if unheard_s is None or not self.quiet:
            return None
        soonest_s = self._quiet_since_s + AFTER_AGENT_S
        return max(unheard_s + self._parts.limits.unheard_s, soonest_s)

    def _caller_unheard(self, now: float, out: list[ev.Command]) -> None:
        """The caller spoke and only our ear heard him: first, the model is to say so; then another
        session may hear better; in the end, he is not left with a deaf one.
        """
        step = self._parts.guard.tell_unheard()
        if not step:
            return
        out.append(ev.Note("caller_unheard"))
        self._parts.model.suspect = True
        wanted = Wanted(ev.Purpose.ANSWER, prompts.UNHEARD, tries=TRIES_MOST - 1)
        if step == 1:
            self._parts.want(wanted)
        elif step == 2:
            self._recovery.begin_anew(wanted, now, out)
        else:
            self._recovery.way_out(now, out)

    def _stuck_at_s(self) -> float | None:
        """When a model that does not notice the end of the caller's turn is given up."""
        parts = self._parts
        if not parts.listening.caller_speaks or parts.phone.muted:
            return None
        return parts.guard.stuck_at_s()

    # ------------------------------------------------------------------ the caller

    def _take_keys(self, now: float, out: list[ev.Command]) -> None:
        parts = self._parts
        turn = parts.listening.take_keys(parts.phone.clock_ms(now))
        out += [ev.AddCallerWords(prompts.keys_pressed(turn.text)), ev.SaveTurn(turn)]
        if not parts.listening.caller_speaks:
            parts.want(Wanted(ev.Purpose.ANSWER))

    def _nudge(self, now: float, out: list[ev.Command]) -> None:
        parts = self._parts
        parts.responses.due_since_s = None
        if self._nudges >= parts.agent.nudges_max:
            reason, words = ev.EndReason.CALLER_SILENT, prompts.GOODBYE_NOBODY_SPEAKS
            out += parts.goodbye.bid(reason, words, now, parts.phone.clock_ms(now))
            return
        self._nudges += 1
        out.append(ev.Note("caller_silent", f"spoken to again, {self._nudges}"))
        parts.want(Wanted(ev.Purpose.NUDGE, prompts.NUDGE, tools=False))

    # ------------------------------------------------------------------ silence

    def break_silence_at_s(self) -> float | None:
        """When something is to be said, should nothing be heard until then."""
        parts = self._parts
        if parts.phone.opened_s is None or not self.awaited:
            return None
        return parts.guard.break_silence_at_s(
            parts.phone.opened_s,
            parts.phone.heard_s,
            caller_speaks=parts.listening.caller_speaks,
        )

    @property
    def awaited(self) -> bool:
        """The caller waits for the agent; otherwise it is the agent who waits for him."""
        parts = self._parts
        return (
            not parts.greeted
            or not parts.speaking.heard_anything
            or not parts.responses.idle
            or parts.responses.due_since_s is not None
            or not parts.speaking.complete
            or (parts.guard.unheard_s is not None and not parts.phone.muted)
            or (parts.unanswered and not parts.model.ready)
            or (parts.goodbye.ending is not None and not parts.goodbye.said)
            or parts.listening.caller_speaks
        )

    def break_silence(self, now: float, out: list[ev.Command]) -> None:
        parts = self._parts
        if parts.goodbye.said:
            out.append(ev.Note("silence_broken", Phrase.GOODBYE.value))
            self._recovery.farewell(now, out)
            return
        self._stalled_s = self._stalled_since()
        if (running := parts.responses.running) is not None:
            # Else what is said now would stand behind it.
            self.drop_unheard(running.response_id, now, out)
        item_id, clip = parts.guard.filler(now)
        out.append(ev.Note("silence_broken", clip.phrase.value))
        out += parts.speaking.play(item_id, clip)
        # Until it is on its way to the phone, the silence must not count as unbroken.
        parts.guard.silent_since(now)
