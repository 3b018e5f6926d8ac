"""How a call is to be answered, found out before its session is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import EndReason
from sessions_app.core.past import Past
from sessions_app.core.phrases import Clips


class CapacityReached(Exception):
    """No call can be taken in now: no slot, no place for its connect, no model, or a drain."""


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """What the answer webhook tells."""

    uuid: str
    caller: str
    called: str
    conversation_uuid: str = ""
    region_url: str = ""
    agent_name: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """What is kept of a call whose last webhooks are still to come."""

    reason: EndReason
    agent: AgentProfile | None
    called: str
    #: When the agent's person is rung, where the caller is owed one; 0: nobody is.
    person_delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What the answer webhook learnt; a session is made from it."""

    agent: AgentProfile = field(default_factory=AgentProfile)
    #: What makes the call's row, if there is none yet.
    base: Mapping[str, Any] = field(default_factory=dict)
    region_url: str = ""
    fault: str = ""
    #: What the call can say without any supplier.
    clips: Clips = field(default_factory=Clips)
    #: How long the caller is spoken to before the media connects.
    connect_delay_ms: int = 0
    #: The media legs of this call that broke and were made up for by another, oldest first.
    broken_legs: tuple[str, ...] = ()
    #: Of the session of the same call whose place this one takes.
    past: Past | None = None
