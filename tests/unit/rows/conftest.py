"""A mirror on the test database, and calls as the answer webhook makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from sessions_app import mirror as mirror_module
from sessions_app import rows
from sessions_app.core.events import Speaker, Turn
from sessions_app.mirror import Mirror
from sessions_app.models import Agent, CallRecord, CallState

NODE = "test-node"


def base(**changes: Any) -> dict[str, Any]:
    """What makes the row of a call."""
    now = timezone.now()
    return {
        "caller": "447700900123",
        "called": "442079460000",
        "state": CallState.RINGING,
        "ringing_at": now,
        "heartbeat_at": now,
        "ticket_issued_s": 1,
        "ticket_generation": 1,
        **changes,
    }


def a_row(uuid: str = "u-1", *, silent_s: float = 0.0, **changes: Any) -> CallRecord:
    heard = timezone.now() - timedelta(seconds=silent_s)
    return CallRecord.objects.create(
        uuid=uuid, **{"node": NODE, **base(), "heartbeat_at": heard, **changes}
    )


def row(uuid: str = "u-1") -> CallRecord:
    return CallRecord.objects.get(uuid=uuid)


def turn(item_id: str = "i1", text: str = "hello", *, final: bool = True, from_ms: int = 0) -> Turn:
    return Turn(item_id, Speaker.CALLER, text, from_ms, from_ms + 500, False, final)


def change(uuid: str = "u-1", **parts: Any) -> rows.CallChange:
    whole = {"base": base(), "fields": {}, "turns": [], "notes": [], **parts}
    return rows.CallChange(uuid, **whole)


def report(
    status: str, uuid: str = "u-1", *, elsewhere: bool = False, **fields: Any
) -> rows.CarrierReport:
    ended = status in ("completed", "failed")
    return rows.CarrierReport(uuid, timezone.now(), status, fields, ended, elsewhere)


def write_report(report: rows.CarrierReport) -> None:
    """As it is written while nothing else of its call is."""
    rows.write(rows.CallChange(report.uuid, None, reports=[report]), NODE)


@pytest.fixture
def agent_named() -> Callable[..., Agent]:
    def make(name: str, **fields: Any) -> Agent:
        return Agent.objects.create(name=name, instructions="Be kind.", **fields)

    return make


@pytest.fixture
def no_agents(db: None) -> None:
    """Without the default agent that a fresh database has."""
    Agent.objects.all().delete()


@asynccontextmanager
async def at_work() -> AsyncIterator[Mirror]:
    """A mirror that writes as it does in a server; what is left is written at the end."""
    mirror = Mirror(NODE)
    running = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        mirror.stop()
        async with asyncio.timeout(20):
            await running
        await mirror.write(connections.close_all)
        await mirror.aclose()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows follow at once, so that no test waits for them."""
    monkeypatch.setattr(mirror_module, "FLUSH_EVERY_S", 0.01)
    monkeypatch.setattr(mirror_module, "RETRY_MOST_S", 0.05)
