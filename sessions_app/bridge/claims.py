"""How a media socket gets its session: by spending its ticket, once and in one process."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from django.db import DatabaseError

from sessions_app import handover, rows
from sessions_app.bridge.directory import DATABASE_PATIENCE_S
from sessions_app.bridge.plan import CallPlan, CapacityReached
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import Ticket, TicketRefused
from sessions_app.core.agent import AgentProfile

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)


class Claims:
    """Lets sockets in for one manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    async def claim(self, text: str) -> CallSession:
        """Spend a ticket and give the session that its socket belongs to.

        A live socket of the same call is closed fully first. Raises TicketRefused; a refused
        ticket is not spent.
        """
        await self._manager.start()
        ticket = Ticket.read(text, time.time())
        async with self._manager.alone(ticket.call_uuid):
            session = self._manager.get(ticket.call_uuid)
            if session is None:
                return await self._claim_cold(ticket)
            if session.over:
                raise TicketRefused("the call has ended")
            if ticket.generation <= session.claimed:
                raise TicketRefused("the ticket has been used")
            await self._spend(ticket)
            if session.taken:
                try:
                    session = await self._replace(session)
                except CapacityReached as closing:
                    raise TicketRefused(str(closing)) from None
            session.claimed, session.taken = ticket.generation, True
            session.setup.mirror.claimed(ticket.generation)
            return session

    async def _spend(self, ticket: Ticket) -> None:
        """Spend it on the row too, lest another process takes it. While the database is away,
        what this process remembers must do.
        """
        try:
            spent = await self._manager.mirror.query(
                lambda: rows.spend_ticket(ticket.call_uuid, ticket.generation), DATABASE_PATIENCE_S
            )
        except (DatabaseError, TimeoutError) as away:
            logger.warning("a ticket is spent in memory only: %s", away)
            return
        if not spent:
            raise TicketRefused("the ticket has been used")

    async def _replace(self, former: CallSession) -> CallSession:
        plan = self._manager.plan_of(former.call_uuid)
        session = await self._manager.begin(
            former.call_uuid, former.caller, former.called, former.user_id, plan
        )
        session.ticket = former.ticket
        return session

    async def _claim_cold(self, ticket: Ticket) -> CallSession:
        """A call that another process answered comes here: it is served here."""
        uuid, node = ticket.call_uuid, self._manager.node
        if self._manager.ended(uuid) is not None:
            raise TicketRefused("the call has ended")
        try:
            with self._manager.slot():
                taken = await self._manager.mirror.query(
                    lambda: handover.take_over(uuid, node, ticket.generation, claim=True),
                    DATABASE_PATIENCE_S,
                )
                if taken is None:
                    raise TicketRefused("the call has ended, or the ticket has been used")
                record = taken.record
                agent = record.agent.profile() if record.agent else AgentProfile()
                plan = CallPlan(
                    agent,
                    {"user_id": record.user_id},
                    record.region_url,
                    clips=self._manager.shelf.find(agent),
                    past=taken.past,
                )
                session = await self._manager.begin(
                    uuid, record.caller, record.called, record.user_id, plan
                )
        except (CapacityReached, DatabaseError, TimeoutError) as reason:
            raise TicketRefused(f"the call is not known here: {reason}") from None
        session.ticket, session.claimed, session.taken = ticket, ticket.generation, True
        return session
