"""What is known of a call that comes in: from the database, and from memory while it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DatabaseError, IntegrityError
from django.db.models import CharField
from django.db.models.functions import Now
from django.utils import timezone

from sessions_app import admission, handover, rows
from sessions_app.bridge import words
from sessions_app.bridge.plan import CapacityReached, IncomingCall
from sessions_app.bridge.tickets import Ticket
from sessions_app.core.agent import AgentProfile
from sessions_app.core.pacing import Crowded, Pace
from sessions_app.core.past import Past
from sessions_app.models import CallRecord, CallState, Node

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: The answer webhook must be quick: without the database by then, it is answered from memory.
DATABASE_PATIENCE_S = 1.0
#: While it is known to be away, it is asked all the same, but nobody waits for it.
AWAY_PATIENCE_S = 0.2


class DatabaseAway(Exception):
    """No answer from the database in time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the database knows of an incoming call."""

    record: CallRecord | None
    agent: AgentProfile | None
    #: Where the process that serves the call has its sockets; empty: it is not alive.
    media_url: str = ""
    base: Mapping[str, Any] | None = None
    #: How long the caller is spoken to before the connect.
    delay_ms: int = 0
    #: The database did not answer in time; what it was asked for it may still do.
    from_memory: bool = False
    #: What was said so far, where the call was taken over from a process that has gone.
    past: Past | None = None


def ticket_of(record: CallRecord) -> Ticket:
    """The newest ticket that was given out for the call."""
    return Ticket(record.uuid, record.ticket_generation, record.ticket_issued_s)


def ticket_after(record: CallRecord, issued_s: int) -> Ticket:
    """The ticket of the row while it can still be used, else the next one."""
    ticket = ticket_of(record)
    unspent = record.ticket_claimed < record.ticket_generation
    if unspent and ticket.fresh(issued_s):
        return ticket
    return Ticket(record.uuid, record.ticket_generation + 1, issued_s)


def _fits(field: str, text: str) -> str:
    """As much of the text as the row's column holds."""
    column = CallRecord._meta.get_field(field)
    assert isinstance(column, CharField)
    return text[: column.max_length]


class Directory:
    """Asks for one manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._away = False
        #: The last agent that answered each number, for when the database is away.
        self._last_routes: dict[str, tuple[AgentProfile, dict[str, Any]]] = {}
        #: The connects that this process knows of, for when the database is away.
        self._pace = Pace(manager.conf.connects_per_s)

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to something asked of the database. Raises DatabaseAway."""
        patience_s = AWAY_PATIENCE_S if self._away else DATABASE_PATIENCE_S
        try:
            answer = await self._manager.mirror.query(question, patience_s)
        except IntegrityError:
            raise
        except (DatabaseError, TimeoutError) as away:
            # Also one that can be read only, or is broken: whatever it is, callers get an answer.
            self._away = True
            raise DatabaseAway(str(away).strip() or "no answer in time") from None
        self._away = False
        return answer

    # ------------------------------------------------------------------ who answers

    async def find(self, call: IncomingCall, issued_s: int, *, live: bool) -> Found:
        """What is known of the call; with `live` its row is made, or taken over from a process
        that has gone. Raises CapacityReached if there is no place for its connect.
        """
        try:
            found = await self.ask(lambda: self._look_up(call, issued_s, live=live))
        except DatabaseAway as away:
            logger.warning("[%s] answered without the database: %s", call.uuid, away)
            return self._remembered(call, issued_s, live=live)
        except Crowded as crowded:
            raise CapacityReached(str(crowded)) from None
        if found.record is None and found.agent and found.base is not None:
            if live:
                self._pace.note(_now_ms(), found.delay_ms)
            if not call.agent_name:
                self._remember(call.called, found.agent, dict(found.base))
        return found

    def _look_up(self, call: IncomingCall, issued_s: int, *, live: bool) -> Found:
        """In a thread."""
        if (record := rows.find_call(call.uuid)) is not None:
            return self._known(record, issued_s, live=live)
        route = rows.find_route(call.called, call.agent_name)
        base, delay_ms = {**self._facts(call, issued_s), **self._owned(route)}, 0
        if live and route.agent is not None:
            manager = self._manager
            try:
                made = admission.create(call.uuid, manager.node, base, manager.conf.connects_per_s)
                delay_ms = made.connect_delay_ms
            except IntegrityError:
                # The same webhook came to another process in the same moment.
                if (record := rows.find_call(call.uuid)) is not None:
                    return self._known(record, issued_s, live=live)
                raise
        agent = route.agent.profile() if route.agent else None
        return Found(None, agent, base=base, delay_ms=delay_ms)

    def _known(self, record: CallRecord, issued_s: int, *, live: bool) -> Found:
        node = self._manager.node
        agent = record.agent.profile() if record.agent else None
        alive = Node.objects.alive(self._manager.conf.lost_s).filter(name=record.node).first()
        past = None
        if live and record.is_live and (alive is None or record.node == node):
            # Its process has gone, or is this one and has lost the session: begun anew here.
            generation = ticket_after(record, issued_s).generation
            taken = handover.take_over(record.uuid, node, generation, claim=False)
            record, past = (taken.record, taken.past) if taken else (record, None)
        return Found(
            record,
            agent,
            alive.media_url if alive else "",
            {"user_id": record.user_id},
            record.connect_delay_ms,
            past=past,
        )

    # ------------------------------------------------------------------ without the database

    def _remembered(self, call: IncomingCall, issued_s: int, *, live: bool) -> Found:
        last = self._last_routes.get(call.called) or self._last_routes.get("")
        if last is None:
            return Found(None, None)
        agent, base = last
        delay_ms = self._place_in_memory(0) if live else 0
        facts = self._facts(call, issued_s)
        base = {**base, **facts, "connect_delay_ms": delay_ms}
        return Found(None, agent, base=base, delay_ms=delay_ms, from_memory=True)

    def default_agent(self) -> AgentProfile | None:
        """Who answers any number, as far as this process remembers."""
        last = self._last_routes.get("")
        return last[0] if last else None

    def _remember(self, called: str, agent: AgentProfile, base: dict[str, Any]) -> None:
        if len(self._last_routes) > 1000:
            default = self._last_routes.get("")
            self._last_routes = {"": default} if default else {}
        self._last_routes[called] = (agent, base)

    def remember_default(self, route: rows.Route) -> None:
        """Who answers every other number, should the database be away when one rings."""
        if route.agent is not None:
            self._last_routes[""] = (route.agent.profile(), self._owned(route))

    # ------------------------------------------------------------------ places

    async def place(self, lead_ms: int = 0) -> int:
        """A place for one more connect, `lead_ms` from now or later; gives how far away it is.

        Raises CapacityReached if there is none soon enough.
        """
        per_second = self._manager.conf.connects_per_s
        if not per_second:
            return lead_ms
        try:
            delay_ms = await self.ask(lambda: admission.take_place(per_second, lead_ms))
        except DatabaseAway:
            return self._place_in_memory(lead_ms)
        except Crowded as crowded:
            raise CapacityReached(str(crowded)) from None
        self._pace.note(_now_ms(), delay_ms)
        return delay_ms

    async def place_of_person(self, agent: AgentProfile | None, *, refused: bool) -> int:
        """When the agent's person is rung: a connect as any other, behind some words. 0: nobody is,
        since there is none, or no place.
        """
        lead_ms = words.person_lead_ms(agent, refused=refused)
        if not lead_ms:
            return 0
        try:
            return await self.place(lead_ms)
        except CapacityReached as crowded:
            logger.warning("no person is rung: %s", crowded)
            return 0

    def _place_in_memory(self, lead_ms: int) -> int:
        try:
            return self._pace.take(_now_ms(), lead_ms)
        except Crowded as crowded:
            raise CapacityReached(str(crowded)) from None

    # ------------------------------------------------------------------ what makes a row

    def _facts(self, call: IncomingCall, issued_s: int) -> dict[str, Any]:
        now = timezone.now()
        return {
            "conversation_uuid": _fits("conversation_uuid", call.conversation_uuid),
            "region_url": _fits("region_url", call.region_url),
            "caller": _fits("caller", call.caller),
            "called": _fits("called", call.called),
            "state": CallState.RINGING,
            "ringing_at": now,
            # The database's clock judges it, whatever this machine's says.
            "heartbeat_at": Now(),
            "ticket_issued_s": issued_s,
            "ticket_generation": 1,
        }

    def _owned(self, route: rows.Route) -> dict[str, Any]:
        """Whose call it is, and who answers it."""
        agent = route.agent
        return {
            "user_id": route.user_id,
            "agent_id": agent.pk if agent else None,
            "agent_name": agent.name if agent else "",
            "voice": agent.voice if agent else "",
            "model": (agent.model if agent else "") or self._manager.conf.provider.realtime_model,
        }


def _now_ms() -> int:
    return int(time.time() * 1000)
