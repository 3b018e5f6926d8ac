"""The page on which staff talk to an agent from their browser, and the tickets of its sockets."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET, require_POST

from sessions_app.live import tickets
from sessions_app.models import Agent
from sessions_app.sandbox.samples import SAMPLES


def urls(site: AdminSite) -> list[URLPattern]:
    """The page and its tickets; any staff may call the agents that are theirs."""
    return [
        path(
            "call/",
            site.admin_view(require_GET(partial(page, site))),
            name="sessions_app_callrecord_call",
        ),
        path(
            "call/ticket/",
            site.admin_view(require_POST(ticket)),
            name="sessions_app_callrecord_call_ticket",
        ),
    ]


def page(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """`?agent=` preselects one; else the default agent, else the first."""
    agents = list(Agent.objects.visible_to(request.user).only("pk", "name", "is_default"))
    return TemplateResponse(
        request,
        "admin/sessions_app/call_the_agent.html",
        {
            **site.each_context(request),
            "title": "Call the agent",
            "agents": agents,
            "chosen": _chosen(agents, request.GET.get("agent", "")),
            "samples": [sample.text for sample in SAMPLES],
            "may_add_agent": request.user.has_perm("sessions_app.add_agent"),
        },
    )


def ticket(request: HttpRequest) -> JsonResponse:
    """A ticket for a socket to the agent named by `agent` (its pk), as `{"path": …}`."""
    pk = request.POST.get("agent", "")
    agent = Agent.objects.visible_to(request.user).filter(pk=pk).first() if pk.isdecimal() else None
    if agent is None:
        return JsonResponse({"error": "There is no such agent, or it is not yours."}, status=404)
    one = tickets.issue(request.user.pk, str(request.session.session_key), agent.pk)
    return JsonResponse({"path": f"/ws/browser-call/{one}"})


def _chosen(agents: list[Any], wanted: str) -> int | None:
    default = next((agent.pk for agent in agents if agent.is_default), None)
    asked = next((agent.pk for agent in agents if str(agent.pk) == wanted), None)
    return asked or default or (agents[0].pk if agents else None)
