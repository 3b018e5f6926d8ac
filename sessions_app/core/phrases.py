"""What a call can say without any supplier: audio that exists before it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Phrase(StrEnum):
    """What prepared audio there is for each agent."""

    #: The agent's own fixed greeting; there is no neutral recording of it.
    GREETING = "greeting"
    #: Said when the caller would else begin to listen to silence.
    ONE_MOMENT = "one_moment"
    #: Said when that has been said and it still takes longer.
    STILL_HERE = "still_here"
    #: The call cannot go on; ends with a goodbye.
    APOLOGY = "apology"
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Clip:
    """One phrase as audio: s16le mono at `rate_hz`, and the words that are heard in it."""

    phrase: Phrase
    text: str
    rate_hz: int
    pcm: bytes


class Clips:
    """The clips of one agent, for one call: its own voice's where they exist, else neutral ones."""

    def __init__(self, clips: Iterable[Clip] = ()) -> None:
        self._clips = {clip.phrase: clip for clip in clips}

    def get(self, phrase: Phrase) -> Clip | None:
        return self._clips.get(phrase)
