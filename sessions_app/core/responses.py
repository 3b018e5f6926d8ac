"""One response of the model at a time: what is wanted, what was asked for, what is running."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sessions_app.core.events import CancelResponse, CreateResponse, Purpose


@dataclass(slots=True)
class Wanted:
    """A response to be asked for as soon as nothing else runs."""

    purpose: Purpose
    instructions: str = ""
    tools: bool = True
    tries: int = 0
    not_before_s: float = 0.0


@dataclass(slots=True)
class Asked:
    wanted: Wanted
    request_id: str
    at_s: float
    #: The caller spoke before it began: it is to be cancelled as soon as it has a name.
    aborted: bool = False


@dataclass(slots=True)
class Running:
    response_id: str
    at_s: float
    #: Ours if we asked for it; the provider's own turn detection asks for others.
    wanted: Wanted
    spoke: bool = False
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
        self._serial = 0
        self._dead: deque[str] = deque(maxlen=32)

    @property
    def idle(self) -> bool:
        return self.wanted is None and self.asked is None and self.running is None

    def is_dead(self, response_id: str) -> bool:
        """Its late output must not be heard any more."""
        return response_id in self._dead

    def want(self, wanted: Wanted) -> None:
        """Only the newest wish counts: it is made with all that has happened in view."""
        self.wanted = wanted

    def ask(self, now: float) -> CreateResponse | None:
        """The request to send now, if one is wanted and nothing is in its way."""
        if self.wanted is None or self.asked or self.running or now < self.wanted.not_before_s:
            return None
        wanted, self.wanted = self.wanted, None
        self._serial += 1
        self.asked = Asked(wanted, f"r{self._serial}", now)
        return CreateResponse(
            self.asked.request_id, wanted.purpose, wanted.instructions, wanted.tools
        )

    def started(self, response_id: str, request_id: str, now: float) -> CancelResponse | None:
        """A response began; gives its cancellation if it is not wanted any more."""
        if self.asked is not None and request_id == self.asked.request_id:
            asked, self.asked = self.asked, None
            self.running = Running(response_id, now, asked.wanted)
            if asked.aborted:
                return self.drop_running()
            return None
        self.running = Running(response_id, now, Wanted(Purpose.ANSWER))
        return None

    def refused(self, request_id: str, *, busy: bool) -> Wanted | None:
        """Our request was turned down. Busy: it is wanted again by itself; else given back."""
        if self.asked is None or self.asked.request_id != request_id:
            return None
        asked, self.asked = self.asked, None
        if not busy:
            return asked.wanted
        if not asked.aborted and self.wanted is None:
            self.wanted = asked.wanted
        return None

    def done(self, response_id: str) -> Running | None:
        """The response is over; gives what was known of it if it was the running one."""
        if self.running is None or self.running.response_id != response_id:
            return None
        running, self.running = self.running, None
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
        all that has happened in view. A goodbye stays wanted.
        """
        if self.running is not None:
            self._dead.append(self.running.response_id)
        if self.asked is not None:
            self.asked.aborted = True
        if self.wanted is not None and self.wanted.purpose is not Purpose.GOODBYE:
            self.wanted = None
