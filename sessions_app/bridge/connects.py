"""How a caller is connected to a session's socket: its ticket, and its place among the connects."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessions_app import rows
from sessions_app.bridge import words
from sessions_app.bridge.directory import DatabaseAway, Directory
from sessions_app.bridge.plan import CallPlan, CapacityReached
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import Ticket
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import CallerAnswered, MediaAwaited
from sessions_app.core.phoneline import DECIDED_S
from sessions_app.telephony.vonage import ncco

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)


#: A line that breaks more often in one call would break again.
BROKEN_MOST = 2


@dataclass(frozen=True, slots=True)
class Again:
    """The next connect of a call whose socket broke."""

    ticket: Ticket
    plan: CallPlan


class Connects:
    """Makes the carrier's `connect`s for one manager."""

    def __init__(self, manager: SessionManager, directory: Directory) -> None:
        self._manager = manager
        self._directory = directory

    async def renewed(self, session: CallSession) -> Ticket:
        """The session's ticket; a new one once the socket has opened or it has grown old."""
        ticket = session.ticket
        assert ticket is not None
        now_s = int(time.time())
        if session.claimed < ticket.generation and ticket.fresh(now_s):
            return ticket
        session.ticket = after(session, now_s)
        delay_ms = await self.keep(session.ticket)
        if self._manager.get(session.call_uuid) is session:
            plan = self._manager.plan_of(session.call_uuid)
            self._manager.amend(session.call_uuid, replace(plan, connect_delay_ms=delay_ms))
        return session.ticket

    async def keep(self, ticket: Ticket, lead_ms: int = 0) -> int:
        """Write it before it is given out, so that every process gives the same one; gives how far
        away the place of its connect is, `lead_ms` or more.
        """
        try:
            delay_ms = await self._directory.place(lead_ms)
        except CapacityReached:
            # The call has its slot and must be served, however many others connect.
            delay_ms = lead_ms
        uuid, generation, issued_s = ticket.call_uuid, ticket.generation, ticket.issued_s
        try:
            await self._directory.ask(
                lambda: rows.keep_ticket(uuid, generation, issued_s, delay_ms)
            )
        except DatabaseAway as away:
            logger.warning("a new ticket is known to this process only: %s", away)
        return delay_ms

    async def prepare_again(self, session: CallSession, leg: str) -> Again | None:
        """For a caller whose media leg broke. None: it broke too often, or the call has ended."""
        plan = self._manager.plan_of(session.call_uuid)
        if len(plan.broken_legs) >= BROKEN_MOST:
            return None
        session.handle(MediaAwaited(DECIDED_S))
        ticket = after(session, int(time.time()))
        delay_ms = await self.keep(ticket, words.again_ms(plan.agent))
        if session.over:
            return None
        spoken_s = delay_ms / 1000 * words.SLOWEST_VOICE
        session.handle(MediaAwaited(spoken_s + self._manager.conf.limits.connect_s))
        legs = (*plan.broken_legs, leg)
        return Again(ticket, replace(plan, broken_legs=legs, connect_delay_ms=delay_ms))

    async def begin_again(self, former: CallSession, again: Again) -> CallSession:
        """A session that knows what was said, awaits the caller, and takes the former's place.
        Raises CapacityReached if this process closes its calls.
        """
        session = await self._manager.begin(
            former.call_uuid, former.caller, former.called, former.user_id, again.plan
        )
        session.ticket, session.claimed = again.ticket, former.claimed
        session.handle(CallerAnswered())
        return session

    def flow_again(self, session: CallSession, again: Again) -> ncco.Ncco:
        agent, delay_ms = session.setup.agent, again.plan.connect_delay_ms
        return self.flow(session.called, again.ticket, agent, delay_ms, again=True)

    def flow(
        self,
        called: str,
        ticket: Ticket,
        agent: AgentProfile,
        delay_ms: int,
        *,
        media_url: str = "",
        again: bool = False,
    ) -> ncco.Ncco:
        """The NCCO. `media_url`: of the process that has the call, if it is not this one. `again`:
        he was connected before, and it broke off.
        """
        conf = self._manager.conf
        limit_s = min(agent.max_call_s or 7200, conf.limits.max_s) + 60
        return words.connect_media(
            agent,
            uri=f"{media_url or conf.media.socket_url}/media/{ticket.text()}",
            rate_hz=conf.media.rate_hz,
            event_url=conf.media.event_url,
            headers={"call_uuid": ticket.call_uuid, "socket": str(ticket.generation)},
            caller_id=called,
            limit_s=int(limit_s),
            delay_ms=delay_ms,
            again=again,
        )


def after(session: CallSession, issued_s: int) -> Ticket:
    """The ticket behind the session's newest one. Another process may have given newer ones of
    this call, one of which was spent here.
    """
    given = session.ticket.generation if session.ticket is not None else 0
    return Ticket(session.call_uuid, max(given, session.claimed) + 1, issued_s)
