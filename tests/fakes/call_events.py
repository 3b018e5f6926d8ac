"""The payloads of Vonage's webhooks as they are seen in the field: strings for numbers, unknown
fields that nobody announced, timestamps that contradict the order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Payload = dict[str, Any]


def timestamp(at: float | None = None) -> str:
    """`2026-11-22T12:00:00.123Z` of a unix time, or of now."""
    moment = time.time() if at is None else at
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03d}Z"


@dataclass(slots=True)
class Leg:
    """One leg of a conversation, as webhooks and the REST API tell of it."""

    conversation_uuid: str
    from_: str | None
    to: str
    kind: str = "phone"
    direction: str = "inbound"
    #: Opaque: without dashes on the PSTN, with dashes elsewhere.
    uuid: str = field(default_factory=lambda: uuid.uuid4().hex)
    headers: Mapping[str, Any] = field(default_factory=dict)
    status: str = "started"
    answered_at: float | None = None
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        return self.ended_at is not None

    def event(self, status: str, **extra: Any) -> Payload:
        """The body of an event webhook; the leg's own status follows it."""
        self.status = status
        payload: Payload = {
            "headers": dict(self.headers),
            "from": self.from_,
            "to": self.to,
            "uuid": self.uuid,
            "conversation_uuid": self.conversation_uuid,
            "status": status,
            "direction": self.direction,
            "timestamp": timestamp(),
            "a_field_from_the_future": {"announced": False},
        }
        if status == "answered":
            self.answered_at = time.time()
            payload |= {"start_time": None, "rate": None, "network": None}
        return payload | extra

    def completed(self, disconnected_by: str) -> Payload:
        """The leg's last event; its timestamp lies before its end_time, as in the docs' own log."""
        self.ended_at = time.time()
        start = self.answered_at or self.ended_at
        seconds = max(round(self.ended_at - start), 0)
        return self.event("completed") | {
            "start_time": timestamp(start),
            "end_time": timestamp(self.ended_at + 0.4),
            "duration": str(seconds),
            "rate": "0.10000000",
            "price": f"{seconds / 600:.8f}",
            "network": "GB-FIXED",
            "disconnected_by": disconnected_by,
            "sip_code": 200,
        }

    def rest(self) -> Payload:
        """The body of `GET /v1/calls/{uuid}`."""
        return {
            "uuid": self.uuid,
            "conversation_uuid": self.conversation_uuid,
            "status": self.status,
            "direction": self.direction,
            "to": {"type": self.kind, "number": self.to},
            "from": {"type": "phone", "number": self.from_},
            "start_time": timestamp(self.answered_at) if self.answered_at else None,
            "end_time": timestamp(self.ended_at) if self.ended_at else None,
            "_links": {"self": {"href": f"/v1/calls/{self.uuid}"}},
        }
