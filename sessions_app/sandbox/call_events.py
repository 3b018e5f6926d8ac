"""The event webhooks of one simulated call: their payloads, and their telling in order."""

from __future__ import annotations

import asyncio
import time
import uuid as uuids
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from sessions_app.sandbox import ncco
from sessions_app.sandbox.vonage_webhooks import WebhookError, Webhooks, timestamp

_WAITING_LIMIT: Final = 200
_RATE_PER_MINUTE: Final = 0.0072


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls whom, and what Vonage calls the call."""

    caller: str
    called: str
    uuid: str
    conversation_uuid: str


@dataclass(slots=True)
class Leg:
    """One leg as its events tell it. ``action`` is the ``connect`` that made it, empty for the
    caller's own.
    """

    uuid: str
    from_number: str
    to: str
    direction: str
    action: dict[str, Any] = field(default_factory=dict)
    answered_at: float | None = None

    @property
    def headers(self) -> dict[str, Any]:
        endpoints = self.action.get("endpoint") or [{}]
        headers: dict[str, Any] = endpoints[0].get("headers", {})
        return headers

    @property
    def is_synchronous(self) -> bool:
        """Whether the reply to its events may be an NCCO."""
        return self.action.get("eventType") == "synchronous"


def own_leg(who: Identity) -> Leg:
    """The caller's leg."""
    return Leg(who.uuid, who.caller, who.called, "inbound")


def dialled_leg(who: Identity, action: dict[str, Any]) -> Leg:
    """A leg that Vonage dials because of a ``connect``."""
    endpoint = action["endpoint"][0]
    to = next(
        str(endpoint[key]) for key in ("uri", "number", "user", "extension") if key in endpoint
    )
    return Leg(str(uuids.uuid4()), action.get("from", who.called), to, "outbound", action)


@dataclass(frozen=True, slots=True)
class _Telling:
    """One webhook that waits for its turn, and who waits for its reply."""

    url: str
    method: str
    payload: dict[str, Any]
    reply: asyncio.Future[bytes] | None = None


class CallEvents:
    """Tells one call's events, in order and beside the call; ``tell_all`` has to run for that."""

    def __init__(
        self,
        webhooks: Webhooks,
        base_url: str,
        who: Identity,
        errors: deque[str],
        *,
        shuffled: bool = False,
    ) -> None:
        """``shuffled``: what needs no reply is told twice, each after the one that came next."""
        self._webhooks = webhooks
        self._event_url = f"{base_url}/webhooks/vonage/event"
        self._who = who
        self._errors = errors
        self._shuffled = shuffled
        self._late: _Telling | None = None
        self._waiting: asyncio.Queue[_Telling | None] = asyncio.Queue(_WAITING_LIMIT)

    def begun(self, leg: Leg) -> None:
        """A leg rings. As Vonage's own log has it: ringing before started, at the same instant."""
        at = timestamp()
        self._tell(leg, self._payload(leg, "ringing", timestamp=at))
        self._tell(leg, self._payload(leg, "started", timestamp=at))

    def answered(self, leg: Leg) -> None:
        """A leg was picked up."""
        leg.answered_at = time.time()
        fields = {"start_time": None, "rate": None, "network": None}
        self._tell(leg, self._payload(leg, "answered", **fields))

    def completed(self, leg: Leg, *, by_user: bool) -> None:
        """A leg is over. Figures of time and money are strings."""
        began = leg.answered_at or time.time()
        duration_s = max(0, round(time.time() - began))
        payload = self._payload(
            leg,
            "completed",
            start_time=timestamp(began),
            end_time=timestamp(),
            duration=str(duration_s),
            rate=f"{_RATE_PER_MINUTE:.8f}",
            price=f"{duration_s * _RATE_PER_MINUTE / 60:.8f}",
            network="GB-FIXED",
            disconnected_by="user" if by_user else "platform",
        )
        self._tell(leg, payload)

    def transferred(self, leg: Leg) -> None:
        """A leg moved to another conversation: an event with a ``type`` and no status."""
        payload = {
            "type": "transfer",
            "uuid": leg.uuid,
            "conversation_uuid_from": self._who.conversation_uuid,
            "conversation_uuid_to": f"CON-{uuids.uuid4()}",
            "timestamp": timestamp(),
        }
        self._tell(leg, payload)

    async def failed(self, leg: Leg, status: str) -> list[ncco.Action] | None:
        """Tells ``unanswered``, ``failed`` or ``disconnected``; the NCCO that came back.

        Only a synchronous ``connect`` is promised one, so nothing else gets it here.
        """
        flow = await self.ask(leg, self._payload(leg, status))
        return flow if leg.is_synchronous else None

    async def notified(self, leg: Leg, payload: dict[str, Any]) -> list[ncco.Action] | None:
        """A ``notify`` action; the NCCO that came back."""
        return await self.ask(leg, payload | {"conversation_uuid": self._who.conversation_uuid})

    async def ask(self, leg: Leg, payload: dict[str, Any]) -> list[ncco.Action] | None:
        """Tells in turn, and reads the reply as an NCCO; ``None`` when it is none."""
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Telling(*self._where(leg), payload, reply))
        try:
            content = await reply
            return ncco.read(content) if content.strip() else None
        except (WebhookError, ncco.NccoError) as error:
            self._errors.append(str(error))
            return None

    async def tell_all(self) -> None:
        """Tells what waits, one after the other, until ``finish``."""
        while (telling := await self._waiting.get()) is not None:
            if not self._shuffled or telling.reply is not None:
                await self._tell_now(telling)
            elif self._late is None:
                self._late = telling
            else:
                for each in (telling, self._late, telling):
                    await self._tell_now(each)
                self._late = None
        if self._late is not None:
            await self._tell_now(self._late)

    async def _tell_now(self, telling: _Telling) -> None:
        reply = telling.reply
        try:
            content = await self._webhooks.event(telling.url, telling.method, telling.payload)
        except WebhookError as error:
            if reply is None or reply.done():
                self._errors.append(str(error))
            else:
                reply.set_exception(error)
            return
        if reply is not None and not reply.done():
            reply.set_result(content)

    async def finish(self) -> None:
        """Lets ``tell_all`` end once everything is told."""
        await self._waiting.put(None)

    def _payload(self, leg: Leg, status: str, **fields: Any) -> dict[str, Any]:
        return {
            "headers": leg.headers,
            "from": leg.from_number,
            "to": leg.to,
            "uuid": leg.uuid,
            "conversation_uuid": self._who.conversation_uuid,
            "status": status,
            "direction": leg.direction,
            "timestamp": timestamp(),
        } | fields

    def _tell(self, leg: Leg, payload: dict[str, Any]) -> None:
        try:
            self._waiting.put_nowait(_Telling(*self._where(leg), payload))
        except asyncio.QueueFull:
            self._errors.append("too many events are waiting to be told")

    def _where(self, leg: Leg) -> tuple[str, str]:
        urls = leg.action.get("eventUrl") or [self._event_url]
        return urls[0], leg.action.get("eventMethod", "POST")
