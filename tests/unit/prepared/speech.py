"""Sounds and mouths for the tests of prepared audio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.core.errors import CallError
from sessions_app.prepared import sound
from sessions_app.prepared.mouths import Say, Spoken
from sessions_app.prepared.wording import Wanted, letters

RATE_HZ = 16_000
ANN = AgentProfile(name="Ann", greeting="Good morning, this is Ann.")
SARAH = AgentProfile(
    name="Sarah", greeting="Hello.", voice_kind=VoiceKind.SPEECHMATICS, voice="sarah"
)


def tone(length_ms: float, rate_hz: int = RATE_HZ, loudness: float = 8000) -> bytes:
    steps = np.arange(round(length_ms * rate_hz / 1000))
    return (loudness * np.sin(2 * np.pi * 300 * steps / rate_hz)).astype("<i2").tobytes()


def silence(length_ms: int, rate_hz: int = RATE_HZ) -> bytes:
    return b"\0\0" * (length_ms * rate_hz // 1000)


def speech(text: str, rate_hz: int = RATE_HZ) -> bytes:
    """As long as somebody takes to say it, without silence around it."""
    return sound.trimmed(tone(65 * letters(text), rate_hz) + silence(200, rate_hz), rate_hz)


class Mouths:
    """Voices that say what they are asked, unless `answer` decides otherwise; all openings and
    everything asked are kept.
    """

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.open_now = 0
        self.asked: list[Wanted] = []
        #: What a phrase becomes; raises for a supplier that fails.
        self.answer: Callable[[Wanted], Spoken] = self.well
        #: Raised by each opening.
        self.away: CallError | None = None

    @staticmethod
    def well(wanted: Wanted) -> Spoken:
        tells = wanted.voice_kind is VoiceKind.OPENAI
        return Spoken(RATE_HZ, speech(wanted.text), wanted.text if tells else None)

    @asynccontextmanager
    async def of(self, agent: AgentProfile) -> AsyncIterator[Say]:
        self.opened.append(agent.name)
        if self.away is not None:
            raise self.away
        self.open_now += 1
        try:
            yield self._say
        finally:
            self.open_now -= 1

    async def _say(self, wanted: Wanted) -> Spoken:
        self.asked.append(wanted)
        return self.answer(wanted)
