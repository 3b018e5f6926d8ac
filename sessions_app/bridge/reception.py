"""How calls come in: the answer webhook's decision, the media socket's ticket, the carrier's
reports. What it decides about a call's slot and session it does through the manager.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    transaction,
)
from django.db.models import CharField
from django.db.models.functions import Now
from django.utils import timezone

from sessions_app import rows
from sessions_app.bridge.plan import CallPlan, CapacityReached, Ended
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import Ticket, TicketRefused
from sessions_app.bridge.words import apology, last_words
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import CallerGone, EndReason, MediaClosed
from sessions_app.lost import LED_TO_WORDS
from sessions_app.models import CallRecord, CallState, Node
from sessions_app.telephony.vonage import ncco

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

#: The answer webhook must be quick: without the database by then, it is answered from memory.
DATABASE_PATIENCE_S = 1.0
#: While it is known to be away, it is asked all the same, but nobody waits for it.
AWAY_PATIENCE_S = 0.2
#: A socket that brought a frame this lately is not lost, whatever a late report says.
_MEDIA_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """What the answer webhook tells."""

    uuid: str
    caller: str
    called: str
    conversation_uuid: str = ""
    region_url: str = ""
    agent_name: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database knows of an incoming call."""

    record: CallRecord | None
    agent: AgentProfile | None
    #: Where the process that serves the call has its sockets; empty: it is not alive.
    media_url: str = ""
    base: Mapping[str, Any] | None = None


def _fits(field: str, text: str) -> str:
    """As much of the text as the row's column holds."""
    column = CallRecord._meta.get_field(field)
    assert isinstance(column, CharField)
    return text[: column.max_length]


class Reception:
    """Takes calls in for one manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._database_away = False
        #: The last agent that answered each number, for when the database is away.
        self._last_routes: dict[str, tuple[AgentProfile, dict[str, Any]]] = {}

    # ------------------------------------------------------------------ the answer webhook

    async def answer(self, call: IncomingCall) -> ncco.Ncco:
        """The NCCO for this call; the same for the same uuid until its socket has opened."""
        await self._manager.start()
        async with self._manager.alone(call.uuid):
            if (session := self._manager.get(call.uuid)) is not None:
                return self._connect(call, await self._renewed(session), session.setup.agent)
            if (ended := self._manager.ended(call.uuid)) is not None:
                return apology(ended.agent, ended.called)
            try:
                with self._manager.slot():
                    return await self._take_in(call)
            except CapacityReached as refusal:
                return await self._turn_away(call, str(refusal))

    async def _take_in(self, call: IncomingCall) -> ncco.Ncco:
        issued_s = int(time.time())
        found = await self._find(call, issued_s, live=True)
        if found.agent is None or (found.record is not None and not found.record.is_live):
            return apology(found.agent, call.called)
        if (flow := await self._served_elsewhere(call, found, issued_s)) is not None:
            return flow
        record = found.record
        ticket = self._ticket_after(record, issued_s) if record else Ticket(call.uuid, 1, issued_s)
        await self._begin(call, found, ticket)
        return self._connect(call, ticket, found.agent)

    async def _served_elsewhere(
        self, call: IncomingCall, found: _Found, now_s: int
    ) -> ncco.Ncco | None:
        """A retry that came to another process than the first: the call stays where it is."""
        record = found.record
        if record is None or not record.is_live or not found.media_url or found.agent is None:
            return None
        if record.node == self._manager.node:
            return None
        ticket = self._ticket_after(record, now_s)
        if ticket.generation != record.ticket_generation:
            await self._keep_ticket(ticket)
        return self._connect(call, ticket, found.agent, found.media_url)

    async def _begin(self, call: IncomingCall, found: _Found, ticket: Ticket) -> CallSession:
        assert found.agent is not None
        base = dict(found.base or {})
        plan = CallPlan(found.agent, base, call.region_url, call.fault)
        session = await self._manager.begin(
            call.uuid, call.caller, call.called, base.get("user_id"), plan
        )
        session.ticket = ticket
        return session

    def _ticket_after(self, record: CallRecord, issued_s: int) -> Ticket:
        """The ticket of the row while it can still be used, else the next one."""
        ticket = Ticket(record.uuid, record.ticket_generation, record.ticket_issued_s)
        unspent = record.ticket_claimed < record.ticket_generation
        if unspent and ticket.fresh(issued_s):
            return ticket
        return Ticket(record.uuid, record.ticket_generation + 1, issued_s)

    async def _renewed(self, session: CallSession) -> Ticket:
        """The session's ticket; a new one once the socket has opened or it has grown old."""
        ticket = session.ticket
        assert ticket is not None
        now_s = int(time.time())
        if session.claimed < ticket.generation and ticket.fresh(now_s):
            return ticket
        # Another process may have given newer ones of this call, one of which was spent here.
        generation = max(ticket.generation, session.claimed) + 1
        session.ticket = Ticket(ticket.call_uuid, generation, now_s)
        await self._keep_ticket(session.ticket)
        return session.ticket

    async def _keep_ticket(self, ticket: Ticket) -> None:
        """Write it before it is given out, so that every process gives the same one."""
        try:
            await self._manager.mirror.query(
                lambda: rows.keep_ticket(ticket.call_uuid, ticket.generation, ticket.issued_s),
                DATABASE_PATIENCE_S,
            )
        except (DatabaseError, TimeoutError) as away:
            logger.warning("a new ticket is known to this process only: %s", away)

    async def _turn_away(self, call: IncomingCall, why: str) -> ncco.Ncco:
        """No slot: the caller hears an apology or gets a person, and the row says so."""
        logger.warning("[%s] not taken in: %s", call.uuid, why)
        now_s = int(time.time())
        found = await self._find(call, now_s, live=False)
        if (flow := await self._served_elsewhere(call, found, now_s)) is not None:
            return flow
        if found.record is None and found.base is not None:
            mirror = self._manager.mirror.open(call.uuid, found.base)
            mirror.note("refused", why)
            mirror.ended(EndReason.REFUSED)
        self._manager.remember(call.uuid, Ended(EndReason.REFUSED, found.agent, call.called))
        return apology(found.agent, call.called)

    async def _find(self, call: IncomingCall, issued_s: int, *, live: bool) -> _Found:
        """Ask the database; when it is away, fall back to who answered the number last."""
        node, lost_s = self._manager.node, self._manager.conf.lost_s

        def known(record: CallRecord) -> _Found:
            agent = record.agent.profile() if record.agent else None
            alive = Node.objects.alive(lost_s).filter(name=record.node).first()
            if live and record.is_live and (alive is None or record.node == node):
                # Its process has gone, or is this one and has lost the session: begun anew here.
                generation = self._ticket_after(record, issued_s).generation
                record = rows.take_over(call.uuid, node, generation, claim=False) or record
            return _Found(
                record, agent, alive.media_url if alive else "", {"user_id": record.user_id}
            )

        def ask() -> _Found:
            record = rows.find_call(call.uuid)
            if record is not None:
                return known(record)
            route = rows.find_route(call.called, call.agent_name)
            base = self._base(call, route, issued_s)
            if live and route.agent is not None:
                try:
                    with transaction.atomic():
                        CallRecord.objects.create(uuid=call.uuid, node=node, **base)
                except IntegrityError:
                    # The same webhook came to another process in the same moment.
                    if (record := rows.find_call(call.uuid)) is not None:
                        return known(record)
                    raise
            return _Found(None, route.agent.profile() if route.agent else None, base=base)

        patience_s = AWAY_PATIENCE_S if self._database_away else DATABASE_PATIENCE_S
        try:
            found = await self._manager.mirror.query(ask, patience_s)
            self._database_away = False
        except (OperationalError, InterfaceError, TimeoutError) as away:
            self._database_away = True
            reason = str(away).strip() or "no answer in time"
            logger.warning("[%s] answered without the database: %s", call.uuid, reason)
            last = self._last_routes.get(call.called) or self._last_routes.get("")
            if last is None:
                return _Found(None, None)
            agent, base = last
            return _Found(None, agent, base={**base, **self._facts(call, issued_s)})
        chosen = bool(call.agent_name)
        if not chosen and found.record is None and found.agent and found.base is not None:
            self._remember(call.called, found.agent, dict(found.base))
        return found

    def _remember(self, called: str, agent: AgentProfile, base: dict[str, Any]) -> None:
        if len(self._last_routes) > 1000:
            self._last_routes.clear()
        self._last_routes[called] = (agent, base)

    def remember_default(self, route: rows.Route) -> None:
        """Who answers every other number, should the database be away when one rings."""
        if route.agent is not None:
            self._last_routes[""] = (route.agent.profile(), self._owned(route))

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

    def _base(self, call: IncomingCall, route: rows.Route, issued_s: int) -> dict[str, Any]:
        return {**self._facts(call, issued_s), **self._owned(route)}

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

    def _connect(
        self, call: IncomingCall, ticket: Ticket, agent: AgentProfile, media_url: str = ""
    ) -> ncco.Ncco:
        media = self._manager.conf.media
        limit_s = min(agent.max_call_s or 7200, self._manager.conf.limits.max_s) + 60
        return ncco.connect_media(
            uri=f"{media_url or media.socket_url}/media/{ticket.text()}",
            rate_hz=media.rate_hz,
            event_url=f"{media.public_url}/webhooks/vonage/event",
            headers={"call_uuid": call.uuid},
            caller_id=call.called,
            limit_s=int(limit_s),
        )

    # ------------------------------------------------------------------ the media socket

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
            if session.media_opened or session.claimed:
                session = await self._replace(session, ticket)
            session.claimed = ticket.generation
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

    async def _replace(self, former: CallSession, ticket: Ticket) -> CallSession:
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
                record = await self._manager.mirror.query(
                    lambda: rows.take_over(uuid, node, ticket.generation, claim=True),
                    DATABASE_PATIENCE_S,
                )
                if record is None:
                    raise TicketRefused("the call has ended, or the ticket has been used")
                agent = record.agent.profile() if record.agent else AgentProfile()
                plan = CallPlan(agent, {"user_id": record.user_id}, record.region_url)
                session = await self._manager.begin(
                    uuid, record.caller, record.called, record.user_id, plan
                )
        except (CapacityReached, DatabaseError, TimeoutError) as reason:
            raise TicketRefused(f"the call is not known here: {reason}") from None
        session.ticket, session.claimed = ticket, ticket.generation
        return session

    # ------------------------------------------------------------------ the carrier's reports

    async def media_leg_failed(self, call_uuid: str, conversation_uuid: str) -> ncco.Ncco:
        """The media leg could not be made, or broke: what the caller hears instead."""
        session = self._manager.get(call_uuid)
        if session is not None:
            agent = session.setup.agent
            if session.media_age_s() > _MEDIA_FRESH_S:
                session.handle(MediaClosed(clean=False))
            return apology(agent, session.called)
        if (ended := self._manager.ended(call_uuid)) is not None:
            return last_words(ended)
        try:
            record = await self._manager.mirror.query(
                lambda: rows.find_call(call_uuid) or rows.find_by_conversation(conversation_uuid),
                DATABASE_PATIENCE_S,
            )
        except (DatabaseError, TimeoutError):
            record = None
        if record is None:
            return apology(None)
        # Should its process have been lost: the caller is in good hands, nobody needs to look.
        self._manager.mirror.report(
            rows.CarrierReport(
                record.uuid, timezone.now(), LED_TO_WORDS, {}, ended=False, elsewhere=False
            )
        )
        agent = record.agent.profile() if record.agent else AgentProfile()
        if record.end_reason:
            return last_words(Ended(EndReason(record.end_reason), agent, record.called))
        return apology(agent, record.called)

    def caller_leg(
        self, call_uuid: str, status: str, fields: dict[str, Any], *, ended: bool
    ) -> None:
        """The carrier reports on the caller's leg, maybe twice, maybe late."""
        session = self._manager.get(call_uuid)
        report = rows.CarrierReport(
            call_uuid, timezone.now(), status, fields, ended, elsewhere=session is None
        )
        self._manager.mirror.report(report)
        if session is None:
            return
        if status == "answered":
            session.setup.mirror.answered()
        if ended:
            session.handle(CallerGone())
