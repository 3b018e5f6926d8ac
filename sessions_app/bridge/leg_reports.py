"""What the carrier reports of a call's legs, and what a caller hears whose media leg has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.utils import timezone

from sessions_app import rows
from sessions_app.bridge import words
from sessions_app.bridge.directory import DATABASE_PATIENCE_S
from sessions_app.bridge.plan import Ended
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import CallerAnswered, CallerGone, EndReason, MediaClosed
from sessions_app.lost import LED_TO_WORDS
from sessions_app.models import CallRecord
from sessions_app.telephony.vonage import ncco

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

#: A socket that brought a frame this lately is not lost, whatever a late report says.
_MEDIA_FRESH_S = 1.0


def ended_by(record: CallRecord, agent: AgentProfile | None) -> Ended:
    """What its row tells of a call that is over."""
    reason = EndReason(record.end_reason)
    delay_ms = record.connect_delay_ms if reason is EndReason.REFUSED else 0
    return Ended(reason, agent, record.called, delay_ms)


class LegReports:
    """Takes the carrier's reports for one manager."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    async def media_leg_failed(self, call_uuid: str, conversation_uuid: str) -> ncco.Ncco | None:
        """The media leg could not be made, or broke: what the caller hears instead. None: he has
        been transferred, and must not be called back from where he is.
        """
        session, event_url = self._manager.get(call_uuid), self._manager.conf.media.event_url
        if session is not None:
            agent = session.setup.agent
            if session.media_age_s() > _MEDIA_FRESH_S:
                session.handle(MediaClosed(clean=False))
            if session.end_reason is EndReason.TRANSFERRED:
                return None
            self._note_led(call_uuid)
            return words.apology(agent, session.called, event_url)
        if (ended := self._manager.ended(call_uuid)) is not None:
            self._note_led(call_uuid)
            return words.last_words(ended, event_url)
        try:
            record = await self._manager.mirror.query(
                lambda: rows.find_call(call_uuid) or rows.find_by_conversation(conversation_uuid),
                DATABASE_PATIENCE_S,
            )
        except (DatabaseError, TimeoutError):
            record = None
        if record is None:
            return words.sorry()
        self._note_led(record.uuid)
        agent = record.agent.profile() if record.agent else AgentProfile()
        if record.end_reason:
            return words.last_words(ended_by(record, agent), event_url)
        return words.apology(agent, record.called, event_url)

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
            session.handle(CallerGone())
