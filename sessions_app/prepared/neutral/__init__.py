"""Recordings shipped with the project, for the very first fault, when no voice has spoken yet.

`python -m sessions_app.prepared.neutral` makes them again. They are read into memory here, once.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sessions_app.core.agent import main_language
from sessions_app.core.phrases import Clip, Phrase
from sessions_app.prepared import wav
from sessions_app.prepared.wording import ENGLISH

HERE = Path(__file__).parent


def path_of(language: str, phrase: Phrase) -> Path:
    return HERE / f"{language}-{phrase}.wav"


def _read() -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = {}
    for path in sorted(HERE.glob("*.wav")):
        language, _, phrase = path.stem.partition("-")
        text, rate_hz, pcm = wav.read(path.read_bytes())
        found.setdefault(language, []).append(Clip(Phrase(phrase), text, rate_hz, pcm))
    return found


_CLIPS = _read()


def clips(language: str) -> Collection[Clip]:
    """Those of this language, else the English ones; there is no greeting among them."""
    return _CLIPS.get(main_language(language)) or _CLIPS.get(ENGLISH, [])
