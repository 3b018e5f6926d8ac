"""Whether callers of every agent can be told something without any supplier."""

from __future__ import annotations

from django.conf import settings
from django.db import Error

from sessions_app.conf import prepared_dir
from sessions_app.diagnosis.finding import Finding, ok, warn
from sessions_app.models import Agent
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import wanted

_WHAT = "prepared audio"


def audio() -> list[Finding]:
    """Nothing while the database is away, which has a finding of its own."""
    try:
        agents = [agent.profile() for agent in Agent.objects.all()]
    except Error:
        return []
    shelf = Shelf(prepared_dir())
    lacking, missing, every = [], 0, 0
    for agent in agents:
        phrases = wanted(agent)
        absent = [each for each in phrases if not shelf.usable(each)]
        every, missing = every + len(phrases), missing + len(absent)
        if absent:
            lacking.append(repr(agent.name))
    if not missing:
        return [ok(_WHAT, f"every agent has its own, {every} phrases")]
    names = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
    seen = f"{missing} of {every} phrases are not there in the agents' own voices ({names})"
    if not settings.PREPARE_AUDIO:
        mend = "Set PREPARE_AUDIO=1; until then neutral recordings are used."
    else:
        mend = (
            "A running server makes them within a minute or so; if not, its log says why. "
            f"{prepared_dir()} must be writable and the same for this command and the server."
        )
    return [warn(_WHAT, seen, mend)]
