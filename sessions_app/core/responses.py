"""One response of the model at a time: what is wanted, what was asked for, what is running."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sessions_app.core import prompts
from sessions_app.core.events import CancelResponse, CreateResponse, Purpose

#: A model that is busy with something we do not know of is asked again this much later.
BUSY_WAIT_S = 0.25


@dataclass(slots=True)
class Wanted:
    """A response to be asked for as soon as nothing else runs."""

    purpose: Purpose
    instructions: str = ""
    tools: bool = True
    tries: int = 0
    not_before_s: float = 0.0
    #: When it was first asked for; being refused as busy does not move it.
    since_s: float | None = None
    #: The last try brought words, and nothing that could be heard.
    mute: bool = False


@dataclass(slots=True)
class Asked:
    wanted: Wanted
    request_id: str
    #: The caller spoke before it began: it is to be cancelled as soon as it has a name.
    aborted: bool = False


@dataclass(slots=True)
class Running:
    response_id: str
    at_s: float
    #: Ours if we asked for it; the provider's own turn detection asks for others.
    wanted: Wanted
    #: Something of it can be heard.
    spoke: bool = False
    #: Words of it have come.
    wrote: bool = False
    called_tool: bool = False


class Responses:
    """The discipline of design rule 6. Provider facts behind it: a create sent while a response
    runs is refused (`conversation_already_has_active_response`); a cancel sent before the response
    has started does nothing, and the response then appears all the same.
    """

    def __init__(self) -> None:
        self.wanted: Wanted | None = None
        self.asked: Asked | None = None
        self.running: Running | None = None
        #: Since when the provider's own turn detection should have begun an answer.
        self.due_since_s: float | None = None
        self._serial = 0
        self._dead: deque[str] = deque(maxlen=32)

    @property
    def idle(self) -> bool:
        return self.wanted is None and self.free

    @property
    def free(self) -> bool:
        """A request would not be in another's way."""
        return self.asked is None and self.running is None

    def is_dead(self, response_id: str) -> bool:
        """Its late output must not be heard any more."""
        return response_id in self._dead

    def want(self, wanted: Wanted) -> None:
        """Only the newest wish counts: it is made with all that has happened in view."""
        self.wanted = wanted

    def ask(self, now: float) -> CreateResponse | None:
        """The request to send now, if one is wanted and nothing is in its way."""
        if self.wanted is None or not self.free or now < self.wanted.not_before_s:
            return None
        wanted, self.wanted = self.wanted, None
        wanted.since_s = now if wanted.since_s is None else wanted.since_s
        self._serial += 1
        self.asked = Asked(wanted, f"r{self._serial}")
        return CreateResponse(
            self.asked.request_id, wanted.purpose, wanted.instructions, wanted.tools
        )

    def started(self, response_id: str, request_id: str, now: float) -> CancelResponse | None:
        """A response began; gives its cancellation if it is not wanted any more."""
        self.due_since_s = None
        if self.asked is not None and request_id == self.asked.request_id:
            asked, self.asked = self.asked, None
            self.running = Running(response_id, now, asked.wanted)
            if asked.aborted:
                return self.drop_running()
            return None
        self.running = Running(response_id, now, Wanted(Purpose.ANSWER))
        return None

    def spoke(self, response_id: str) -> None:
        """Something of it can be heard."""
        self.due_since_s = None
        if self.running is not None and self.running.response_id == response_id:
            self.running.spoke = True

    def wrote(self, response_id: str) -> None:
        """Words of it have come."""
        if self.running is not None and self.running.response_id == response_id:
            self.running.wrote = True

    def refused(self, request_id: str, now: float, *, busy: bool) -> Wanted | None:
        """Our request was turned down. Busy: it is wanted again by itself; else given back."""
        if self.asked is None or self.asked.request_id != request_id:
            return None
        asked, self.asked = self.asked, None
        if asked.aborted:
            return None
        if not busy:
            return asked.wanted
        if self.wanted is None:
            asked.wanted.not_before_s = now + BUSY_WAIT_S
            self.wanted = asked.wanted
        return None

    def done(self, response_id: str, now: float) -> Running | None:
        """The response is over; gives what was known of it if it was the running one."""
        if self.running is None or self.running.response_id != response_id:
            return None
        running, self.running = self.running, None
        # What had to wait for it has not been waited for in vain so far.
        for waiting in (self.wanted, self.asked.wanted if self.asked else None):
            if waiting is not None and waiting.since_s is not None:
                waiting.since_s = now
        return running

    def drop_running(self) -> CancelResponse | None:
        """Nothing more of the running response is to be heard."""
        if self.running is None:
            return None
        self._dead.append(self.running.response_id)
        return CancelResponse(self.running.response_id)

    def interrupted(self) -> None:
        """The caller speaks: what runs is cancelled by the provider itself, its rest unheard.

        What was only wished for is not wanted any more: the caller's turn will be answered with
        all that has happened in view.
        """
        if self.running is not None:
            self._dead.append(self.running.response_id)
        if self.asked is not None:
            self.asked.aborted = True
        self.wanted = None

    def forget(self) -> None:
        """Nothing is wanted, nothing is waited for, and what runs is not to be heard any more."""
        if self.running is not None:
            self._dead.append(self.running.response_id)
        self.wanted = self.asked = self.running = None

    def lost(self) -> Wanted | None:
        """The model's session is gone, and with it what was asked for and what ran; gives what is
        still to be said, if anything.
        """
        wanted, due = self.wanted, self.due_since_s is not None
        if self.asked is not None and not self.asked.aborted:
            wanted = wanted or self.asked.wanted
        if self.running is not None and not self.is_dead(self.running.response_id):
            wanted = wanted or again(self.running)
        self.forget()
        return wanted or (Wanted(Purpose.ANSWER) if due else None)

    # ------------------------------------------------------------------ waiting

    def waiting_since(self) -> float | None:
        """Since when a sound of the model has been due; None while it is not."""
        if self.running is not None:
            return None if self.running.spoke else self.running.at_s
        if self.asked is not None:
            return self.asked.wanted.since_s
        if self.wanted is not None:
            return self.wanted.since_s
        return self.due_since_s

    def wait_anew(self, now: float) -> None:
        """Whatever is being waited for is given its whole time again."""
        if self.running is not None:
            self.running.at_s = now
        for waiting in (self.wanted, self.asked.wanted if self.asked else None):
            if waiting is not None and waiting.since_s is not None:
                waiting.since_s = now
        if self.due_since_s is not None:
            self.due_since_s = now

    def give_up(self) -> tuple[Wanted | None, CancelResponse | None]:
        """What was due is not waited for any more; gives what to want in its place, if anything,
        and the cancellation of what may still come.
        """
        if self.running is not None:
            return self._give_up_running(self.running)
        if self.asked is not None:
            asked, self.asked = self.asked, None
            return (None if asked.aborted else asked.wanted), None
        wanted, self.wanted = self.wanted, None
        self.due_since_s = None
        return wanted or Wanted(Purpose.ANSWER), None

    def _give_up_running(self, running: Running) -> tuple[Wanted | None, CancelResponse | None]:
        wanted = None if self.is_dead(running.response_id) else again(running)
        cancel = self.drop_running()
        self.running = None
        return wanted, cancel


def again(running: Running) -> Wanted:
    """What to ask for when a response came to nothing, or broke off in the middle."""
    if running.spoke and running.wanted.purpose is not Purpose.GOODBYE:
        return Wanted(Purpose.ANSWER, prompts.CUT_OFF, tries=running.wanted.tries)
    running.wanted.mute = running.wrote and not running.spoke
    return running.wanted
