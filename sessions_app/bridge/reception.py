"""How calls come in: the answer webhook's decision, and calls on hold.

What it decides about a call's slot and session it does through the manager.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from django.db import IntegrityError

from sessions_app import admission, rows
from sessions_app.bridge import words
from sessions_app.bridge.claims import Claims
from sessions_app.bridge.connects import Connects
from sessions_app.bridge.directory import (
    DatabaseAway,
    Directory,
    Found,
    ticket_after,
)
from sessions_app.bridge.leg_reports import LegReports, ended_by
from sessions_app.bridge.plan import CallPlan, CapacityReached, Ended, IncomingCall
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import Ticket
from sessions_app.core.agent import AgentProfile, WhenBusy
from sessions_app.core.events import EndReason, MediaAwaited, TransferFailed, Transferred
from sessions_app.core.pacing import Crowded
from sessions_app.logcontext import call_context
from sessions_app.models import CallState
from sessions_app.telephony.vonage import ncco

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

#: A transfer at the carrier, with its retries.
_TRANSFER_MOST_S = 5.0


class Reception:
    """Takes calls in for one manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._directory = Directory(manager)
        self.claim = Claims(manager).claim
        self._connects = Connects(manager, self._directory)
        reports = LegReports(manager, self._directory, self._connects)
        self.media_leg_failed, self.caller_leg = reports.media_leg_failed, reports.caller_leg
        self.remember_default = self._directory.remember_default

    # ------------------------------------------------------------------ the answer webhook

    async def answer(self, call: IncomingCall) -> ncco.Ncco:
        """The NCCO for this call; the same for the same uuid until its socket has opened."""
        await self._manager.start()
        async with self._manager.alone(call.uuid):
            return await self._answer(call)

    async def _answer(self, call: IncomingCall) -> ncco.Ncco:
        if (flow := await self._known_here(call)) is not None:
            return flow
        try:
            with self._manager.slot():
                return await self._take_in(call)
        except CapacityReached as refusal:
            return await self._turn_away(call, str(refusal))

    async def _known_here(self, call: IncomingCall) -> ncco.Ncco | None:
        """A call that this process has, or had lately."""
        if (session := self._manager.get(call.uuid)) is not None:
            ticket = await self._connects.renewed(session)
            if self._manager.get(call.uuid) is session:
                delay_ms = self._manager.plan_of(call.uuid).connect_delay_ms
                return self._connects.flow(session.called, ticket, session.setup.agent, delay_ms)
            # It came to its end while the ticket was kept.
        if (ended := self._manager.ended(call.uuid)) is not None:
            return words.answer_after(ended, self._event_url)
        return None

    async def _take_in(self, call: IncomingCall) -> ncco.Ncco:
        issued_s = int(time.time())
        found = await self._directory.find(call, issued_s, live=True)
        if (flow := await self._settled(call, found, issued_s)) is not None:
            return flow
        record = found.record
        ticket = ticket_after(record, issued_s) if record else Ticket(call.uuid, 1, issued_s)
        return await self._begin(call, found, ticket)

    async def _settled(self, call: IncomingCall, found: Found, now_s: int) -> ncco.Ncco | None:
        """The reply of a call that needs no slot here: it is over, on hold or served elsewhere,
        or there is nobody to answer it.
        """
        record, agent = found.record, found.agent
        if record is not None and record.state == CallState.HELD:
            return self._on_hold(record.uuid, record.called, agent or AgentProfile(), 1)
        if record is not None and not record.is_live:
            return words.answer_after(ended_by(record, agent), self._event_url)
        if agent is None:
            return words.sorry()
        if record is None or not found.media_url or record.node == self._manager.node:
            return None
        # A retry that came to another process than the first: the call stays where it is.
        ticket, delay_ms = ticket_after(record, now_s), record.connect_delay_ms
        if ticket.generation != record.ticket_generation:
            delay_ms = await self._connects.keep(ticket)
        return self._connects.flow(call.called, ticket, agent, delay_ms, media_url=found.media_url)

    async def _begin(self, call: IncomingCall, found: Found, ticket: Ticket) -> ncco.Ncco:
        assert found.agent is not None
        base = dict(found.base or {})
        plan = CallPlan(
            found.agent,
            base,
            call.region_url,
            call.fault,
            clips=self._manager.shelf.find(found.agent),
            connect_delay_ms=found.delay_ms,
            past=found.past,
        )
        session = await self._manager.begin(
            call.uuid, call.caller, call.called, base.get("user_id"), plan
        )
        session.ticket = ticket
        if found.from_memory:
            session.setup.mirror.connects_after(found.delay_ms)
        return self._connects.flow(call.called, ticket, found.agent, found.delay_ms)

    @property
    def _event_url(self) -> str:
        return self._manager.conf.media.event_url

    # ------------------------------------------------------------------ no room

    async def _turn_away(self, call: IncomingCall, why: str) -> ncco.Ncco:
        """The caller hears words, gets a person or is held, and the row says so."""
        logger.warning("[%s] not taken in: %s", call.uuid, why)
        now_s = int(time.time())
        found = await self._directory.find(call, now_s, live=False)
        if (flow := await self._settled(call, found, now_s)) is not None:
            return flow
        if found.agent and found.agent.when_busy is WhenBusy.HOLD and not self._manager.draining:
            flow = await self._hold(call, found, why)
            if flow is not None:
                return flow
        ended = await self._refused(found.agent, call.called)
        # Nobody else ends a row without a session: one of ours that was lost in between, too.
        mirror = self._manager.mirror.open(call.uuid, found.base or {})
        mirror.connects_after(ended.person_delay_ms)
        mirror.note("refused", why)
        mirror.ended(EndReason.REFUSED)
        self._manager.remember(call.uuid, ended)
        return words.refusal(ended, self._event_url)

    async def _refused(self, agent: AgentProfile | None, called: str) -> Ended:
        delay_ms = await self._directory.place_of_person(agent, refused=True)
        return Ended(EndReason.REFUSED, agent, called, delay_ms)

    async def connect_again(self, session: CallSession) -> None:
        """The line to a caller who may still be there is dead: the carrier is asked to connect him
        to a new session of his call, or, after too many lines, to lead him away.
        """
        manager, uuid = self._manager, session.call_uuid
        with call_context(uuid):
            async with manager.alone(uuid):
                if session.over or manager.get(uuid) is not session:
                    return
                region_url = manager.plan_of(uuid).region_url
                try:
                    await self._transfer_again(session)
                except Exception as error:
                    logger.warning("the caller could not be transferred: %s", error)
                    session.handle(TransferFailed(str(error)))
                    # On a line that takes nothing, he does not hear that his call has ended.
                    manager.reconciler.left_up(uuid, region_url)

    async def _transfer_again(self, session: CallSession) -> None:
        again = await self._connects.prepare_again(session, f"socket {session.claimed}")
        if session.over:
            return
        if again is None:
            await session.setup.transfer()
            session.handle(Transferred())
            return

        async def flow() -> ncco.Ncco:
            return self._connects.flow_again(session, again)

        region_url, fault = again.plan.region_url, again.plan.fault
        transfer = self._manager.suppliers.transfer(session.call_uuid, region_url, fault, flow)
        session.handle(MediaAwaited(_TRANSFER_MOST_S))
        await transfer()
        if not session.over:
            await self._connects.begin_again(session, again)

    async def lead_away(self, agent: AgentProfile | None, called: str) -> ncco.Ncco:
        """What a caller hears from the carrier who was served here and cannot be any more."""
        delay_ms = await self._directory.place_of_person(agent, refused=False)
        return words.led_away(Ended(EndReason.LOST, agent, called, delay_ms), self._event_url)

    # ------------------------------------------------------------------ on hold

    async def _hold(self, call: IncomingCall, found: Found, why: str) -> ncco.Ncco | None:
        """Put a new call on hold; None if that cannot be, since every process has to know of it."""
        manager, agent, base = self._manager, found.agent, found.base
        if found.record is not None or base is None or agent is None:
            return None
        try:
            await self._directory.ask(
                lambda: admission.hold(call.uuid, manager.node, base, why, manager.capacity)
            )
        except (DatabaseAway, admission.HeldEnough) as reason:
            logger.warning("[%s] not put on hold: %s", call.uuid, reason)
            return None
        except IntegrityError:
            # The same webhook came to another process in the same moment, whose reply holds.
            now_s = int(time.time())
            found = await self._directory.find(call, now_s, live=False)
            return await self._settled(call, found, now_s)
        return self._on_hold(call.uuid, call.called, agent, 1)

    def _on_hold(self, uuid: str, called: str, agent: AgentProfile, round_: int) -> ncco.Ncco:
        payload = {"hold": {"call_uuid": uuid, "round": round_}}
        return words.on_hold(agent, called, round_, event_url=self._event_url, payload=payload)

    async def still_held(self, uuid: str, round_: int) -> ncco.Ncco:
        """A held call has heard its sentence of this round: what comes next. The same for the same
        round, until a socket has opened.
        """
        await self._manager.start()
        async with self._manager.alone(uuid):
            try:
                return await self._still_held(uuid, round_)
            except DatabaseAway as away:
                # Who answers is not known, but this caller is: he is asked to wait for it.
                logger.warning("[%s] held without the database: %s", uuid, away)
                agent = self._directory.default_agent() or AgentProfile()
                if round_ >= words.HOLD_ROUNDS:
                    return words.apology(agent, "", self._event_url)
                return self._on_hold(uuid, "", agent, round_ + 1)

    async def _still_held(self, uuid: str, round_: int) -> ncco.Ncco:
        record = await self._directory.ask(lambda: rows.find_call(uuid))
        if record is None:
            return words.sorry()
        call = IncomingCall(
            uuid, record.caller, record.called, record.conversation_uuid, record.region_url
        )
        if record.state != CallState.HELD:
            # Taken in or refused, here or elsewhere: as when the answer webhook comes again.
            return await self._answer(call)
        agent = record.agent.profile() if record.agent else AgentProfile()
        if round_ < record.hold_round:
            return self._on_hold(uuid, record.called, agent, round_ + 1)
        try:
            with self._manager.slot():
                flow = await self._take_from_hold(call, agent, round_)
        except CapacityReached as refusal:
            flow = await self._hold_on(call, agent, round_, str(refusal))
        # None: another process has replied to this round in the same moment; its row says how.
        return flow if flow is not None else await self._still_held(uuid, round_)

    async def _take_from_hold(
        self, call: IncomingCall, agent: AgentProfile, round_: int
    ) -> ncco.Ncco | None:
        node, per_second = self._manager.node, self._manager.conf.connects_per_s
        issued_s = int(time.time())
        try:
            record = await self._directory.ask(
                lambda: admission.take_from_hold(call.uuid, node, round_, issued_s, per_second)
            )
        except Crowded as crowded:
            raise CapacityReached(str(crowded)) from None
        if record is None:
            return None
        delay_ms = record.connect_delay_ms
        found = Found(record, agent, base={"user_id": record.user_id}, delay_ms=delay_ms)
        return await self._begin(call, found, ticket_after(record, issued_s))

    async def _hold_on(
        self, call: IncomingCall, agent: AgentProfile, round_: int, why: str
    ) -> ncco.Ncco | None:
        uuid = call.uuid
        if round_ < words.HOLD_ROUNDS and not self._manager.draining:
            if await self._directory.ask(lambda: admission.hold_on(uuid, round_)):
                return self._on_hold(uuid, call.called, agent, round_ + 1)
            return None
        ended = await self._refused(agent, call.called)
        delay_ms = ended.person_delay_ms
        if not await self._directory.ask(lambda: admission.end_hold(uuid, round_, why, delay_ms)):
            return None
        logger.warning("[%s] not taken in after %d sentences: %s", uuid, round_, why)
        self._manager.remember(uuid, ended)
        return words.refusal(ended, self._event_url)
