"""What the carrier reports of a call's legs, and what a caller hears whose media leg has failed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.utils import timezone

from sessions_app import handover, rows
from sessions_app.bridge import words
from sessions_app.bridge.connects import BROKEN_MOST, Connects
from sessions_app.bridge.directory import DATABASE_PATIENCE_S, DatabaseAway, Directory, ticket_of
from sessions_app.bridge.plan import CallPlan, CapacityReached, Ended
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import Ticket
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import CallerAnswered, CallerGone, EndReason, MediaClosed
from sessions_app.handover import MEDIA_REPLACED, Elsewhere
from sessions_app.logcontext import call_context
from sessions_app.lost import LED_TO_WORDS
from sessions_app.models import CallRecord
from sessions_app.telephony.vonage import ncco

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

#: From the break of a socket until its process has written it down, and how often that is asked.
_TOLD_S = 0.7
_ASK_EVERY_S = 0.1
#: The carrier repeats a report within a minute or so.
_PLACES_MOST = 1000


@dataclass(frozen=True, slots=True)
class MediaLeg:
    """One of our sockets, as the carrier names it. `generation`: of its ticket, 0 if not known."""

    uuid: str
    generation: int = 0


def ended_by(record: CallRecord, agent: AgentProfile | None) -> Ended:
    """What its row tells of a call that is over."""
    reason = EndReason(record.end_reason)
    delay_ms = record.connect_delay_ms if reason is EndReason.REFUSED else 0
    return Ended(reason, agent, record.called, delay_ms)


class LegReports:
    """Takes the carrier's reports for one manager."""

    def __init__(self, manager: SessionManager, directory: Directory, connects: Connects) -> None:
        self._manager = manager
        self._directory = directory
        self._connects = connects
        #: By call: when its person is rung, so that the same report again gets the same words.
        self._places: OrderedDict[str, int] = OrderedDict()

    async def media_leg_failed(
        self, call_uuid: str, conversation_uuid: str, leg: MediaLeg, *, broke: bool
    ) -> ncco.Ncco | None:
        """The media leg could not be made, or `broke`: what the caller hears instead. None: he has
        been transferred, and must not be called back from where he is.
        """
        if broke:
            # Should the carrier hang up on this webhook, the caller is awaited all the same.
            flow = await self._manager.undisturbed(self._connect_again(call_uuid, leg))
            if flow is not None:
                return flow
        return await self._no_more_media(call_uuid, conversation_uuid)

    async def _connect_again(self, call_uuid: str, leg: MediaLeg) -> ncco.Ncco | None:
        """His conversation goes on over another socket, the same for the same leg however often it
        is reported. None: there is none to go on with here, or it broke too often.
        """
        with call_context(call_uuid):
            async with self._manager.alone(call_uuid):
                session = self._manager.get(call_uuid)
                if session is None:
                    return await self._of_elsewhere(call_uuid, leg)
                return None if session.over else await self._of_here(session, leg)

    async def _of_here(self, session: CallSession, leg: MediaLeg) -> ncco.Ncco | None:
        known = leg.uuid in self._manager.plan_of(session.call_uuid).broken_legs
        # A session that awaits the next socket of its call can only be told of the former one.
        told_before = known or (session.claimed > 0 and not session.taken)
        if session.has_left(leg.generation) or (told_before and not session.awaits_socket):
            return words.nothing(self._manager.conf.media.event_url)
        awaiting = session if told_before else await self._await_again(session, leg)
        if awaiting is None:
            return None
        ticket = await self._connects.renewed(awaiting)
        if self._manager.get(session.call_uuid) is not awaiting:
            # It came to its end while the ticket was kept.
            return None
        delay_ms = self._manager.plan_of(session.call_uuid).connect_delay_ms
        agent = session.setup.agent
        return self._connects.flow(session.called, ticket, agent, delay_ms, again=True)

    async def _await_again(self, session: CallSession, leg: MediaLeg) -> CallSession | None:
        """Whoever awaits the caller's next socket."""
        if not session.may_be_connected_again:
            return None
        again = await self._connects.prepare_again(session, leg.uuid)
        if again is None:
            return None
        if not session.media_gone:
            # A late report of an older leg, perhaps: should a socket come, it takes over.
            self._manager.amend(session.call_uuid, again.plan)
            session.ticket = again.ticket
            return session
        try:
            return await self._connects.begin_again(session, again)
        except CapacityReached:
            return None

    # ------------------------------------------------------------------ another process's call

    async def _of_elsewhere(self, call_uuid: str, leg: MediaLeg) -> ncco.Ncco | None:
        """The same for a call that another process has, or had: it goes on where it is awaited; if
        its process tells by its row that it has lost the caller's socket, it goes on here.
        """
        if not leg.generation or self._manager.ended(call_uuid) is not None:
            return None
        seen = await self._look_elsewhere(call_uuid, leg.generation)
        if seen is None:
            return None
        record = seen.record
        if leg.generation < record.ticket_claimed:
            return words.nothing(self._manager.conf.media.event_url)
        agent = record.agent.profile() if record.agent else AgentProfile()
        if leg.generation < record.ticket_generation:
            ticket = ticket_of(record)
            delay_ms = record.connect_delay_ms
            return self._connects.flow(
                record.called, ticket, agent, delay_ms, media_url=seen.media_url, again=True
            )
        return await self._take_over(record, agent, leg)

    async def _look_elsewhere(self, call_uuid: str, generation: int) -> Elsewhere | None:
        """What becomes of that call, which its process tells within a moment; None: nothing, and
        one that has gone tells nothing. The callers of such are led to words.
        """
        manager = self._manager
        try:
            async with asyncio.timeout(_TOLD_S):
                while True:
                    seen = await manager.mirror.query(
                        lambda: handover.look(call_uuid, manager.node, manager.conf.lost_s),
                        _TOLD_S,
                    )
                    if seen is None or generation < seen.record.ticket_generation:
                        return seen
                    if seen.breaks:
                        return seen if seen.breaks <= BROKEN_MOST else None
                    await asyncio.sleep(_ASK_EVERY_S)
        except (DatabaseError, TimeoutError):
            return None

    async def _take_over(
        self, record: CallRecord, agent: AgentProfile, leg: MediaLeg
    ) -> ncco.Ncco | None:
        manager, uuid = self._manager, record.uuid
        ticket = Ticket(uuid, leg.generation + 1, int(time.time()))
        try:
            with manager.slot():
                delay_ms = await self._connects.keep(ticket, words.again_ms(agent))
                taken = await self._directory.ask(
                    lambda: handover.take_over(uuid, manager.node, ticket.generation, claim=False)
                )
                if taken is None:
                    return None
                plan = CallPlan(
                    agent,
                    {"user_id": record.user_id},
                    record.region_url,
                    clips=manager.shelf.find(agent),
                    connect_delay_ms=delay_ms,
                    broken_legs=(leg.uuid,),
                    past=taken.past,
                )
                session = await manager.begin(
                    uuid, record.caller, record.called, record.user_id, plan
                )
        except (CapacityReached, DatabaseAway) as reason:
            logger.warning("the call is not gone on with here: %s", reason)
            return None
        session.ticket, session.claimed = ticket, leg.generation
        session.setup.mirror.note(MEDIA_REPLACED, "by a socket of another process")
        session.handle(CallerAnswered())
        return self._connects.flow(record.called, ticket, agent, delay_ms, again=True)

    # ------------------------------------------------------------------ words

    async def _no_more_media(self, call_uuid: str, conversation_uuid: str) -> ncco.Ncco | None:
        session = self._manager.get(call_uuid)
        if session is not None:
            if session.media_gone:
                session.handle(MediaClosed(clean=False, for_good=True))
            if session.end_reason is EndReason.TRANSFERRED:
                return None
            # It may have come to its end already, and be about to release what it had.
            reason = session.end_reason or EndReason.MEDIA_LOST
            ended = Ended(reason, session.setup.agent, session.called)
            return await self._last_words(call_uuid, ended)
        if (known := self._manager.ended(call_uuid)) is not None:
            return await self._last_words(call_uuid, known)
        try:
            record = await self._manager.mirror.query(
                lambda: rows.find_call(call_uuid) or rows.find_by_conversation(conversation_uuid),
                DATABASE_PATIENCE_S,
            )
        except (DatabaseError, TimeoutError):
            record = None
        if record is None:
            return words.sorry()
        agent = record.agent.profile() if record.agent else AgentProfile()
        ended = Ended(EndReason.MEDIA_LOST, agent, record.called)
        return await self._last_words(
            record.uuid, ended_by(record, agent) if record.end_reason else ended
        )

    async def _last_words(self, call_uuid: str, ended: Ended) -> ncco.Ncco | None:
        """What he hears. A process that is lost leaves all its callers in one moment, so their
        persons are rung at the carrier's pace too.
        """
        self._note_led(call_uuid)
        if words.owes_apology(ended):
            if call_uuid not in self._places:
                place = await self._directory.place_of_person(ended.agent, refused=False)
                self._places[call_uuid] = place
                if len(self._places) > _PLACES_MOST:
                    self._places.popitem(last=False)
            ended = replace(ended, person_delay_ms=self._places[call_uuid])
        return words.last_words(ended, self._manager.conf.media.event_url)

    def _note_led(self, call_uuid: str) -> None:
        """Should its process be lost, or the hang-up of its leg fail: the caller is in good hands,
        nobody needs to look.
        """
        self._manager.mirror.report(
            rows.CarrierReport(
                call_uuid, timezone.now(), LED_TO_WORDS, {}, ended=False, elsewhere=False
            )
        )

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
            session.handle(CallerAnswered())
        if ended:
            session.caller_gone = True
            session.handle(CallerGone())
