"""How long things may last in a call, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the installation sets; an agent may only shorten them."""

    #: Hard end of a call, counted from the opening of its media.
    max_s: float = 3300.0
    #: No inbound media for this long ends the call, unless the platform says it is muted.
    media_silence_s: float = 30.0
    #: The media socket must open this soon after the answer.
    unclaimed_s: float = 30.0
    #: A caller whose leg is up must be connected to us this soon.
    connect_s: float = 2.0
    #: A caller whose media broke may be connected again: if he is still there, the carrier asks
    #: this soon what he is to hear. What is to be released two seconds later waits no longer.
    broken_s: float = 0.9
    #: A response that was asked for, or is due, must begin to sound this soon.
    answer_s: float = 4.0
    #: The same for a model that has begun anew, or heard nothing where we did, and was not heard
    #: since.
    doubtful_answer_s: float = 2.5
    #: A model that has not begun to answer by then, when the caller speaks again, ignores him.
    ignored_s: float = 2.0
    #: A caller who waits for the agent and hears nothing is spoken to this soon, whatever the
    #: reason. The promise is three seconds; the rest is the way to his ear.
    silence_s: float = 2.2
    #: What our ear heard the caller say and the model did not is asked about this much later.
    unheard_s: float = 1.0
    #: A model that hears the caller still speak, when our ear heard him stop so long ago, is stuck.
    stuck_s: float = 4.0
    #: A goodbye must have been spoken this soon, or the call ends without it.
    goodbye_s: float = 12.0
    #: Keys pressed within this time of each other belong together.
    keys_s: float = 1.5

    def polite_end_s(self, max_s: float) -> float:
        """When the caller is told that the longest duration is near."""
        return max_s - min(self.goodbye_s, max_s * 0.25)
