"""Whether a recording is what was wanted, and its first sound at its beginning."""

from __future__ import annotations

import unicodedata

import numpy as np

from sessions_app.core.audio import SAMPLE_BYTES, pcm_ms
from sessions_app.prepared.wording import letters

_WINDOW_MS = 10
#: Softer than this, by itself or against the loudest of the recording, is not speech: 40 dB down
#: are breath and the noise of a codec.
_AUDIBLE_RMS = 50.0
_AUDIBLE_SHARE = 0.01
#: What is left around it: a soft consonant begins before it is loud, and ends after.
_LEAD_MS, _TAIL_MS = 20, 60

#: Hurried speech takes about 40 ms a letter; a digit or a Chinese character takes some 250.
_LEAST_MS_PER_LETTER, _MOST_MS_PER_LETTER, _MOST_MORE_MS = 25, 250, 3000


class Unfit(Exception):
    """What was recorded is not what was wanted; the text says why."""


def longest_ms(text: str) -> int:
    """Longer than this, nobody says only that."""
    return _MOST_MORE_MS + _MOST_MS_PER_LETTER * letters(text)


def trimmed(pcm: bytes, rate_hz: int) -> bytes:
    """s16le mono without the silence around what can be heard. Raises Unfit if nothing can."""
    window = rate_hz * _WINDOW_MS // 1000
    samples = np.frombuffer(pcm[: len(pcm) // SAMPLE_BYTES * SAMPLE_BYTES], dtype="<i2")
    count = -(-samples.size // window)
    padded = np.pad(samples.astype(np.float64), (0, count * window - samples.size))
    loudness = (
        np.sqrt(np.mean(padded.reshape(count, window) ** 2, axis=1)) if count else np.array(0)
    )
    audible = np.flatnonzero(loudness > max(_AUDIBLE_RMS, _AUDIBLE_SHARE * float(loudness.max())))
    if not audible.size:
        raise Unfit("nothing can be heard")
    first = max(0, int(audible[0]) * window - rate_hz * _LEAD_MS // 1000)
    last = (int(audible[-1]) + 1) * window + rate_hz * _TAIL_MS // 1000
    return samples[first:last].tobytes()


def fit(pcm: bytes, rate_hz: int, text: str) -> bytes:
    """The recording of this text, trimmed. Raises Unfit."""
    speech = trimmed(pcm, rate_hz)
    length_ms = pcm_ms(len(speech), rate_hz)
    least_ms, most_ms = _LEAST_MS_PER_LETTER * letters(text), longest_ms(text)
    if not least_ms <= length_ms <= most_ms:
        raise Unfit(f"{length_ms:.0f} ms for {letters(text)} letters")
    return speech


def same_words(one: str, other: str) -> bool:
    """Whether two texts sound alike, whatever their case, accents' form and punctuation."""
    return _spoken(one) == _spoken(other)


def _spoken(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())
