"""What health asks of the things around this process. Each probe is bounded and never raises."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import uuid4

from channels.layers import get_channel_layer
from django.conf import settings

from sessions_app.diagnosis.jobs import overdue_jobs
from sessions_app.models import CallRecord

T = TypeVar("T")
#: Runs a synchronous function of the ORM elsewhere: `await query(fn, timeout_s)`.
Query = Callable[[Callable[[], Any], float], Awaitable[Any]]

DATABASE_TIMEOUT_S: Final = 0.6
LAYER_TIMEOUT_S: Final = 0.6

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something works, and what else there is to tell of it (nothing secret)."""

    ok: bool
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the database knows: the fleet's live calls, and jobs that no worker took in time."""

    live: list[str]
    overdue_jobs: int


def read_rows() -> Rows:
    """Both figures in one go, so that a probe holds one thread and one connection."""
    live = CallRecord.objects.live().order_by("ringing_at", "id").values_list("uuid", flat=True)
    return Rows(list(live), overdue_jobs())


async def database(query: Query) -> tuple[Finding, Rows | None]:
    """Whether rows can be read within the bound, and the rows."""
    return await _timed(query(read_rows, DATABASE_TIMEOUT_S), DATABASE_TIMEOUT_S)


async def channel_layer() -> Finding:
    """Whether a message comes back through the layer that supervisors' pages hang on."""
    kind = "redis" if settings.REDIS_URL else "memory"
    finding, _ = await _timed(_round_trip(), LAYER_TIMEOUT_S)
    return Finding(finding.ok, {"kind": kind, **finding.detail})


def worker(rows: Rows | None) -> Finding:
    """Whether somebody takes the jobs that are due."""
    if rows is None:
        return Finding(False, {"error": "not known while the database is away"})
    return Finding(not rows.overdue_jobs, {"waiting": rows.overdue_jobs})


async def _round_trip() -> None:
    layer = get_channel_layer()
    if layer is None:
        raise LookupError("no channel layer is configured")
    # Not a process-local name ("…!…"): on Redis those share one reader, which a probe that is cut
    # off would leave with a message that nobody fetches. Such a channel expires by itself.
    channel = f"health.{uuid4().hex}"
    await layer.send(channel, {"type": "health.probe"})
    await layer.receive(channel)


async def _timed(work: Awaitable[T], timeout_s: float) -> tuple[Finding, T | None]:
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            result = await work
    except Exception as away:  # any client library's; monitors need an answer whatever it is
        # Only its kind, since the text may hold addresses and user names.
        logger.debug("probe failed", exc_info=away)
        return Finding(False, {"error": type(away).__name__, "ms": _ms_since(began_s)}), None
    return Finding(True, {"ms": _ms_since(began_s)}), result


def _ms_since(began_s: float) -> float:
    return round(1000 * (time.monotonic() - began_s), 1)
