"""What callers hear from the carrier when no agent can speak to them (any more)."""

from __future__ import annotations

from sessions_app.bridge.plan import Ended
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import EndReason
from sessions_app.telephony.vonage import ncco

#: Ends after which the caller was bid goodbye; after all others he is owed an apology.
_GOOD_ENDS = frozenset(
    {
        EndReason.AGENT_ENDED,
        EndReason.CALLER_HUNG_UP,
        EndReason.CALLER_SILENT,
        EndReason.MAX_DURATION,
        EndReason.OPERATOR,
    }
)


def apology(agent: AgentProfile | None, called: str = "") -> ncco.Ncco:
    """Words for a caller who cannot be served, and the agent's person if it has one."""
    if agent is None:
        return ncco.apology(ncco.APOLOGY, ncco.DEFAULT_LANGUAGE, None, None)
    return ncco.apology(agent.apology, agent.language, agent.fallback_number or None, called)


def last_words(ended: Ended) -> ncco.Ncco:
    """For a caller whose call here is over, while his leg is still up."""
    if ended.reason in _GOOD_ENDS and ended.agent is not None:
        return ncco.goodbye(ncco.GOODBYE, ended.agent.language)
    return apology(ended.agent, ended.called)
