"""`/api/health` for monitors and balancers, `/api/health/live` for process supervisors.

503 only where a balancer should lead callers elsewhere: while draining, and when this process can
serve no webhook at all. A call that comes in while anything else is away still gets a courteous
answer here, so that is 200 and `degraded`, with the reasons.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from health import probes
from health.probes import Finding, Rows
from sessions_app.bridge.manager import SessionManager, get_manager

_AWAY: Final = {
    "database": "database away",
    "channel_layer": "channel layer away",
    "provider": "provider away",
    "worker": "worker away",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a balancer needs to know, and why."""

    status: str
    reasons: list[str]

    @property
    def code(self) -> HTTPStatus:
        away = self.status in ("draining", "unavailable")
        return HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.OK


@require_safe
async def live(request: HttpRequest) -> HttpResponse:
    """200 while the event loop turns."""
    return _reply({"status": "ok"}, HTTPStatus.OK)


@require_safe
async def health(request: HttpRequest) -> HttpResponse:
    """How this process and what it needs are doing; `?node=self`: only this process's calls."""
    manager = get_manager()
    (database, rows), layer = await asyncio.gather(
        probes.database(manager.mirror.query), probes.channel_layer()
    )
    checks = {
        "database": database,
        "channel_layer": layer,
        "provider": _provider(manager),
        "worker": probes.worker(rows),
    }
    verdict = _verdict(manager, checks, rows)
    sessions = _sessions(manager, rows, own=request.GET.get("node") == "self")
    trusted = _may_see_details(request)
    body: dict[str, object] = {
        "status": verdict.status,
        "reasons": verdict.reasons,
        "version": settings.VERSION,
        "node": manager.node,
        "sessions": sessions if trusted else _counts(sessions),
        "checks": {
            name: {"ok": finding.ok, **(finding.detail if trusted else {})}
            for name, finding in checks.items()
        },
    }
    if trusted:
        body |= {
            "process": manager.descriptors.figures(),
            "event_loop": manager.loop_watch.figures(),
            "reconciliation": manager.reconciler.figures(),
        }
    return _reply(body, verdict.code)


def _provider(manager: SessionManager) -> Finding:
    trouble = {"error": manager.provider_trouble} if manager.provider_trouble else {}
    return Finding(not trouble, {"kind": settings.AI_PROVIDER, **trouble})


def _verdict(manager: SessionManager, checks: dict[str, Finding], rows: Rows | None) -> Verdict:
    # Without the right settings no webhook can be told from a forgery. Servers refuse to start
    # like that, but this view may also be served by something that did not ask them.
    unavailable = ["settings are wrong"] if settings.SETTINGS_MISTAKES else []
    full = ["full"] if manager.get_active_session_count() >= manager.capacity else []
    unknown = {"worker"} if rows is None else set()
    away = [_AWAY[name] for name, it in checks.items() if not it.ok and name not in unknown]
    # A disk that is full lets rows be read and not be written.
    unwritten = ["rows cannot be written"] if rows is not None and manager.mirror.trouble else []
    short = ["few descriptors left"] if manager.short_of_descriptors else []
    reasons = [*unavailable, *full, *short, *away, *unwritten]
    if unavailable:
        return Verdict("unavailable", reasons)
    if manager.draining:
        return Verdict("draining", reasons)
    return Verdict("degraded" if reasons else "ok", reasons)


def _sessions(manager: SessionManager, rows: Rows | None, *, own: bool) -> dict[str, object]:
    from_memory = own or rows is None
    uuids = manager.get_all_session_uuids() if rows is None or own else rows.live
    # The count has its own source here: a slot is taken before its session is listed.
    count = manager.get_active_session_count() if from_memory else len(uuids)
    sessions = {"active_count": count, "uuids": uuids, "capacity": manager.capacity}
    if from_memory and not own:
        sessions["note"] = "of this process only: the database is away"
    return sessions


def _counts(sessions: dict[str, object]) -> dict[str, object]:
    return {name: sessions[name] for name in ("active_count", "capacity")}


def _may_see_details(request: HttpRequest) -> bool:
    wanted = str(settings.HEALTH_TOKEN)
    if not wanted:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # As bytes, since compare_digest takes no text beyond ASCII.
    given = token.strip().encode("utf-8", "replace")
    return scheme.lower() == "bearer" and hmac.compare_digest(given, wanted.encode())


def _reply(body: dict[str, object], code: HTTPStatus) -> HttpResponse:
    return JsonResponse(body, status=code, headers={"Cache-Control": "no-store"})
