"""Rows as servers write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from sessions_app.models import CallRecord, CallState, Node


def a_call(uuid: str, **fields: Any) -> CallRecord:
    """A live call that was answered a minute and a half ago."""
    now = timezone.now()
    values: dict[str, Any] = {
        "node": "one",
        "state": CallState.LIVE,
        "ringing_at": now - timedelta(seconds=90),
        "heartbeat_at": now,
        "agent_name": "Receptionist",
        "caller": "447700900123",
        "called": "442079460000",
    }
    return CallRecord.objects.create(uuid=uuid, **values | fields)


def end(call: CallRecord) -> None:
    CallRecord.objects.filter(pk=call.pk).update(
        state=CallState.ENDED, ended_at=timezone.now(), end_reason="caller_hung_up"
    )


def a_node(name: str, *, heard_s_ago: float = 0, **fields: Any) -> Node:
    heard = timezone.now() - timedelta(seconds=heard_s_ago)
    values: dict[str, Any] = {"channel_layer": "memory", "capacity": 100, "started_at": heard}
    return Node.objects.create(name=name, heartbeat_at=heard, **values | fields)
