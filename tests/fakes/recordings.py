"""The neutral recordings that the product speaks by itself, and whether a phone has heard them."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.fakes.playback import FRAME_S, Playback

_NEUTRAL = Path(__file__).resolve().parents[2] / "sessions_app" / "prepared" / "neutral"
_RATE = 16_000
#: An item is padded to a whole frame, and its last frame may have been cut.
_TAIL_MS = 40.0
#: So much of a recording tells it from all others.
_START_FRAMES = 10


@dataclass(frozen=True, slots=True)
class HeardRecording:
    """One time that a recording sounded; `heard_ms` of it, all of it if `whole`."""

    start_s: float
    heard_ms: float
    whole: bool


def heard(playback: Playback, phrase: str, language: str = "en") -> list[HeardRecording]:
    """Each time that this phrase sounded on a phone of 16 kHz, which plays it as recorded."""
    assert playback.rate == _RATE, "the recordings would have been resampled"
    pcm = _recording(phrase, language)
    size = round(FRAME_S * _RATE) * 2
    frames = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    found: list[HeardRecording] = []
    played = playback.played
    for at, part in enumerate(played):
        start = [each.pcm for each in played[at : at + _START_FRAMES]]
        # The end of a call may have come in the middle of it.
        if part.pcm != frames[0] or start != frames[: len(start)]:
            continue
        count = 0
        while count < len(frames) and at + count < len(played):
            if not played[at + count].pcm.startswith(frames[count][: len(played[at + count].pcm)]):
                break
            count += 1
        heard_ms = 1000 * sum(len(p.pcm) for p in played[at : at + count]) / (2 * _RATE)
        whole = heard_ms >= 1000 * len(pcm) / (2 * _RATE) - _TAIL_MS
        found.append(HeardRecording(part.start_s, heard_ms, whole))
    return found


@lru_cache
def _recording(phrase: str, language: str) -> bytes:
    with wave.open(str(_NEUTRAL / f"{language}-{phrase}.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (_RATE, 1, 2)
        return file.readframes(file.getnframes())
