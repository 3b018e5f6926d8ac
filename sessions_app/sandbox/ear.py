"""Hearing: when somebody speaks, and whether it was one of the sample phrases.

The detector follows OpenAI's ``server_vad``: ``speech_started`` carries the onset less the prefix
padding, ``speech_stopped`` the end including the silence that was waited for, both in milliseconds
on the clock of the audio that was fed (not the wall's).
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from sessions_app.sandbox.samples import SAMPLES
from sessions_app.sandbox.voice import CALLER, synthesise

WINDOW_MS: Final = 20
# Telephone speech lies at an RMS of some thousands, line noise and comfort noise below a hundred;
# half of this is the limit at server_vad's default threshold of 0.5.
_FULL_THRESHOLD_RMS: Final = 900.0
# A click is one loud window; a syllable is several. Three of five, so that one dip does not restart
# the count.
_ONSET_WINDOWS: Final = 3
_ONSET_SPAN: Final = 5
# What is kept of one utterance: a caller who talks on for longer is still answered, only not
# recognised.
_UTTERANCE_MS: Final = 60_000

Envelope = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak; ``audio_start_ms`` includes the prefix padding."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Somebody stopped; ``pcm`` is the utterance with padding and trailing silence, at the
    detector's rate.
    """

    audio_start_ms: int
    audio_end_ms: int
    pcm: bytes


def window_rms(pcm: bytes, rate_hz: int) -> Envelope:
    """RMS of each whole 20 ms window of s16le mono ``pcm``."""
    size = rate_hz * WINDOW_MS // 1000
    count = len(pcm) // (2 * size)
    if count == 0:
        return np.zeros(0, dtype=np.float32)
    samples = np.frombuffer(pcm, dtype="<i2", count=count * size).astype(np.float32)
    windows = samples.reshape(count, size)
    power: Envelope = np.einsum("ij,ij->i", windows, windows) / size
    return np.sqrt(power)


class Detector:
    """Voice activity by energy, for one stream of s16le mono audio at ``rate_hz``."""

    def __init__(
        self,
        rate_hz: int = 24000,
        *,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_duration_ms: int = 500,
        origin_ms: int = 0,
    ) -> None:
        self._rate_hz = rate_hz
        self._window_bytes = rate_hz * WINDOW_MS // 1000 * 2
        self._limit = max(_FULL_THRESHOLD_RMS * threshold, 1.0)
        self._prefix_ms = prefix_padding_ms
        self._silence_ms = silence_duration_ms
        self._at_ms = origin_ms
        self._start_ms = 0
        self._quiet_ms = 0
        self._partial = b""
        self._recent: deque[bool] = deque(maxlen=_ONSET_SPAN)
        # The onset takes a few windows to be sure of, so they are kept besides the padding itself.
        padding = prefix_padding_ms // WINDOW_MS + _ONSET_SPAN
        self._before: deque[bytes] = deque(maxlen=padding)
        self._utterance: list[bytes] = []
        self.speaking = False

    @property
    def at_ms(self) -> int:
        """Where the input clock stands: milliseconds of audio examined."""
        return self._at_ms

    def feed(self, pcm: bytes) -> list[SpeechStarted | SpeechStopped]:
        """Examines more audio; what was noticed, in order."""
        audio = self._partial + pcm
        whole = len(audio) - len(audio) % self._window_bytes
        self._partial = audio[whole:]
        noticed: list[SpeechStarted | SpeechStopped] = []
        loud = window_rms(audio[:whole], self._rate_hz) >= self._limit
        for index, is_loud in enumerate(loud.tolist()):
            begin = index * self._window_bytes
            event = self._window(audio[begin : begin + self._window_bytes], is_loud)
            if event is not None:
                noticed.append(event)
        return noticed

    def clear(self) -> None:
        """Forgets the utterance in hand; the clock goes on."""
        self.speaking = False
        self._quiet_ms = 0
        self._recent.clear()
        self._before.clear()
        self._utterance.clear()

    def _window(self, window: bytes, is_loud: bool) -> SpeechStarted | SpeechStopped | None:
        self._at_ms += WINDOW_MS
        if self.speaking:
            return self._while_speaking(window, is_loud)
        self._before.append(window)
        self._recent.append(is_loud)
        if not is_loud or sum(self._recent) < _ONSET_WINDOWS:
            return None
        self.speaking = True
        self._quiet_ms = 0
        span = len(self._recent) - list(self._recent).index(True)
        onset_ms = self._at_ms - span * WINDOW_MS
        kept = min(len(self._before), span + self._prefix_ms // WINDOW_MS)
        self._start_ms = onset_ms - (kept - span) * WINDOW_MS
        self._utterance = list(self._before)[len(self._before) - kept :]
        self._before.clear()
        self._recent.clear()
        return SpeechStarted(self._start_ms)

    def _while_speaking(self, window: bytes, is_loud: bool) -> SpeechStopped | None:
        if len(self._utterance) * WINDOW_MS < _UTTERANCE_MS:
            self._utterance.append(window)
        self._quiet_ms = 0 if is_loud else self._quiet_ms + WINDOW_MS
        if self._quiet_ms < self._silence_ms:
            return None
        utterance = b"".join(self._utterance)
        self.clear()
        return SpeechStopped(self._start_ms, self._at_ms, utterance)


# --- recognition ----------

_MATCH: Final = 0.75
_CLEARLY_BETTER: Final = 0.15
_DURATION_TOLERANCE: Final = 0.12
_SHIFT_WINDOWS: Final = 3


def _spoken_part(envelope: Envelope) -> Envelope:
    """The envelope from the first to the last audible window (relative to its own loudest)."""
    if envelope.size == 0:
        return envelope
    audible = np.flatnonzero(envelope > max(float(envelope.max()) * 0.06, 60.0))
    if audible.size == 0:
        return envelope[:0]
    return envelope[audible[0] : audible[-1] + 1]


@functools.cache
def _known() -> tuple[tuple[str, Envelope], ...]:
    """The samples' envelopes, as the caller of the sandbox says them."""
    return tuple(
        (sample.text, _spoken_part(window_rms(synthesise(sample.text, 16000, voice=CALLER), 16000)))
        for sample in SAMPLES
    )


def _likeness(heard: Envelope, known: Envelope) -> float:
    """How alike two envelopes of nearly the same length are: correlation at the best small shift,
    -1..1.
    """
    if abs(heard.size - known.size) > max(known.size * _DURATION_TOLERANCE, _SHIFT_WINDOWS):
        return -1.0
    length = min(heard.size, known.size) - 2 * _SHIFT_WINDOWS
    if length < 10:
        return -1.0
    reference = np.log1p(known[_SHIFT_WINDOWS : _SHIFT_WINDOWS + length])
    scores = [
        _correlation(np.log1p(heard[shift : shift + length]), reference)
        for shift in range(2 * _SHIFT_WINDOWS + 1)
        if heard.size >= shift + length
    ]
    return max(scores, default=-1.0)


def _correlation(one: Envelope, other: Envelope) -> float:
    """Pearson's; 0 when either does not vary (a steady tone is like nothing)."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 1e-6 else 0.0


def recognise(pcm: bytes, rate_hz: int) -> str:
    """The sample phrase that was clearly said, else an honest ``(2.1 s of speech)``."""
    heard = _spoken_part(window_rms(pcm, rate_hz))
    scores = sorted(
        ((_likeness(heard, envelope), text) for text, envelope in _known()), reverse=True
    )
    (best, text), (second, _) = scores[0], scores[1]
    if best >= _MATCH and best - second >= _CLEARLY_BETTER:
        return text
    return f"({heard.size * WINDOW_MS / 1000:.1f} s of speech)"
