"""How a call comes to its end: what is being said is heard first, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

from sessions_app.core import prompts
from sessions_app.core.events import Command, EndReason, Note, Purpose
from sessions_app.core.limits import Limits
from sessions_app.core.playback import Playback
from sessions_app.core.responses import Responses, Wanted
from sessions_app.core.speaking import Speaking

#: Beyond their length, for last words to reach the ear.
LAST_WORDS_S = 2.0
#: A transfer by the carrier, with the tries it may need.
TRANSFER_S = 4.0


@dataclass(slots=True)
class Ending:
    """The call is to end once what is being said has been heard, at the latest at `by_s`."""

    reason: EndReason
    by_s: float
    hang_up: bool = True
    #: The goodbye has been asked for or was already said; from here on there is no way back.
    said: bool = False
    #: The carrier is taking the caller over.
    transfer: bool = False


class Goodbye:
    """The end that has been decided on, if any, and what is still to be said before it."""

    def __init__(
        self, limits: Limits, playback: Playback, speaking: Speaking, responses: Responses
    ) -> None:
        self.ending: Ending | None = None
        self._limits = limits
        self._playback = playback
        self._speaking = speaking
        self._responses = responses

    @property
    def said(self) -> bool:
        return self.ending is not None and self.ending.said

    @property
    def irrevocable(self) -> bool:
        """Nothing more is to be heard of the model, whoever speaks."""
        return self.ending is not None and (self.ending.said or self.ending.transfer)

    def agent_ends(self, now: float) -> None:
        """The model wants to end the call; what it says beside that is still to be heard."""
        if self.ending is None:
            self.ending = Ending(EndReason.AGENT_ENDED, now + self._limits.goodbye_s)

    def call_off(self) -> bool:
        """The caller has more to say. False: the goodbye is on its way, or the carrier has been
        asked to take him over, and he is late.
        """
        if self.irrevocable:
            return False
        self.ending = None
        return True

    def bid(self, reason: EndReason, instructions: str, now: float, clock_ms: int) -> list[Command]:
        """End the call with a goodbye of the model's, instead of whatever it says or was about to
        say.
        """
        out: list[Command] = [Note("bids_goodbye", reason.value)]
        out += self._speaking.cut(now, clock_ms)
        if cancel := self._responses.drop_running():
            out.append(cancel)
        self.ending = Ending(reason, now + self._limits.goodbye_s)
        self.say(instructions)
        return out

    def say(self, instructions: str = prompts.GOODBYE) -> None:
        """Have the goodbye said; empty instructions: it was."""
        assert self.ending is not None
        self.ending.said = True
        if instructions:
            self._responses.want(Wanted(Purpose.GOODBYE, instructions, tools=False))

    def unsayable(self, now: float) -> None:
        """There is no goodbye to be had; what there is of it may be heard to its end."""
        if self.ending is not None:
            self.ending.by_s = now

    def when_heard(self, reason: EndReason, now: float, *, hang_up: bool) -> None:
        """End as soon as what is already on its way to the caller has been heard."""
        if self.said and self._speaking.silent:
            self.unsayable(now)
            return
        self._responses.forget()
        if self.ending is None:
            backlog_s = self._playback.backlog_ms(now) / 1000
            self.ending = Ending(reason, now + backlog_s + 1.0, hang_up)
        self.ending.said = True

    def after_words(self, reason: EndReason, now: float, *, hang_up: bool = True) -> None:
        """End when the last words, on their way already, have been heard."""
        self._responses.forget()
        by_s = now + self._speaking.left_ms(now) / 1000 + LAST_WORDS_S
        self.ending = Ending(reason, by_s, hang_up, said=True)

    def at_once(self, reason: EndReason, now: float) -> None:
        """There is nobody to hear anything; the socket, should it come, is refused."""
        self.ending = Ending(reason, now, hang_up=False, said=True)

    def wait_for_transfer(self, reason: EndReason, now: float) -> None:
        """The carrier has been asked to take the caller over, and says soon whether it did."""
        self._responses.forget()
        self.ending = Ending(reason, now + TRANSFER_S, hang_up=False, transfer=True)

    def due(self, now: float) -> Ending | None:
        """The ending, if its time has come."""
        ending = self.ending
        if ending is None:
            return None
        if ending.said and self._responses.idle and self._speaking.silent:
            return ending
        if now < ending.by_s:
            return None
        backlog_s = self._playback.backlog_ms(now) / 1000
        if self._speaking.silent or backlog_s <= 0:
            return ending
        # A goodbye that is being played may be played to its end, within the hard limit.
        ending.by_s = now + max(0.05, backlog_s)
        return None
