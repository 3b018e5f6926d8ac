"""Why a call ended, in words for the person who made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sessions_app.core.events import EndReason
from sessions_app.sandbox.caller import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """`words` complete the sentence "Ended: …"; `failed`: it should not have ended like this."""

    words: str
    failed: bool = False


YOU_HUNG_UP: Final = Ending("you hung up")
OUR_MISTAKE: Final = Ending("the service made a mistake", failed=True)

_REASONS: Final = {
    EndReason.CALLER_HUNG_UP: YOU_HUNG_UP,
    EndReason.AGENT_ENDED: Ending("the agent said goodbye and hung up"),
    EndReason.CALLER_SILENT: Ending("nothing was said for too long"),
    EndReason.MAX_DURATION: Ending("the longest time for a call was reached"),
    EndReason.OPERATOR: Ending("a supervisor hung up"),
    EndReason.MEDIA_LOST: Ending("the sound's connection was lost", failed=True),
    EndReason.MEDIA_SILENT: Ending("no sound came from your side", failed=True),
    EndReason.MEDIA_NEVER_OPENED: Ending("the sound's connection could not be made", failed=True),
    EndReason.PROVIDER_FAILED: Ending("the speech service failed", failed=True),
    EndReason.REPLACED: Ending("another call took its place"),
    EndReason.REFUSED: Ending("every line is busy", failed=True),
    EndReason.DRAINED: Ending("the service is being restarted"),
    EndReason.SHUTDOWN: Ending("the service was stopped"),
    EndReason.INTERNAL_ERROR: OUR_MISTAKE,
    EndReason.LOST: Ending("the process that served the call was lost", failed=True),
}
_OUTCOMES: Final = {
    Outcome.CALLER_HUNG_UP: YOU_HUNG_UP,
    Outcome.HUNG_UP_BY_SERVICE: Ending("the service hung up"),
    Outcome.FLOW_ENDED: Ending("the service had nothing more to say"),
    Outcome.DROPPED: Ending("the line was lost", failed=True),
    Outcome.NOT_ANSWERED: Ending("the service did not answer", failed=True),
}


def ending(reason: str, outcome: Outcome) -> Ending:
    """By the reason that the service published, else by what its caller went through."""
    if reason:
        return _REASONS[EndReason(reason)]
    return _OUTCOMES.get(outcome, Ending("something went wrong on the way", failed=True))
