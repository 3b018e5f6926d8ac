"""An agent's prepared audio on its page: what there is, to listen to."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_GET

from sessions_app.conf import prepared_dir
from sessions_app.core.phrases import Clip, Phrase
from sessions_app.models import Agent
from sessions_app.prepared import wav
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import wanted

_NAME = "sessions_app_agent_prepared"


def url(admin: ModelAdmin[Any]) -> URLPattern:
    """Where an agent's audio is fetched, by who may see the agent."""
    view = admin.admin_site.admin_view(require_GET(partial(_audio, admin)))
    return path("<int:pk>/prepared/<str:phrase>.wav", view, name=_NAME)


def table(agent: Agent) -> str:
    """Each phrase: whether the agent's own voice has said it, and its words."""
    found = _own(agent)
    return format_html(
        '<ul class="call-prepared">{}</ul>',
        format_html_join("", "{}", ((_line(agent, phrase, found),) for phrase in Phrase)),
    )


def _line(agent: Agent, phrase: Phrase, found: dict[Phrase, Clip | None]) -> str:
    name = phrase.value.replace("_", " ").capitalize()
    if phrase not in found:
        return format_html("<li>{}: none, the agent greets in its own words</li>", name)
    clip = found[phrase]
    if clip is None:
        instead = "" if phrase is Phrase.GREETING else "; a neutral recording is used"
        return format_html("<li>{}: not made yet{}</li>", name, instead)
    return format_html(
        '<li>{}: “{}”<br><audio controls preload="none" src="{}" aria-label="{}"></audio></li>',
        name,
        clip.text,
        reverse(f"admin:{_NAME}", args=[agent.pk, phrase.value]),
        name,
    )


def _own(agent: Agent) -> dict[Phrase, Clip | None]:
    """What the agent is to say, and the clips that its own voice has made of it."""
    phrases = wanted(agent.profile())
    shelf = Shelf(prepared_dir())
    shelf.load(phrases)
    return {each.phrase: shelf.own(each) for each in phrases}


def _audio(admin: ModelAdmin[Any], request: HttpRequest, pk: int, phrase: str) -> HttpResponse:
    agent = admin.get_object(request, str(pk))
    if agent is None or not admin.has_view_permission(request, agent):
        raise Http404("There is no such agent, or it is not yours.")
    clip = next((clip for name, clip in _own(agent).items() if name == phrase), None)
    if clip is None:
        raise Http404("The agent's voice has not said this yet.")
    return HttpResponse(
        wav.write(clip.text, clip.rate_hz, clip.pcm),
        content_type="audio/wav",
        # Of the agent as it is now: a changed one says something else here.
        headers={"Cache-Control": "private, no-store"},
    )
