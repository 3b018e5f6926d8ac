"""Audio that can be told apart: who is speaking, and which millisecond of it was heard.

A *voice* is two tones at once: a steady one that names the voice (0 to 15) and one that climbs
200 Hz a second and so names the moment. Both survive resampling to 8, 16 and 24 kHz, which a
sample pattern would not. A *caller's tone* is one steady tone that names the caller.

    pcm = voice_pcm(3, start_ms=0, length_ms=1000, rate=24_000)
    decode(pcm[24_000:24_960], 24_000)      # Heard(voice=3, position_ms≈510)

PCM is s16le mono throughout. Positions wrap after VOICE_CYCLE_MS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

VOICES = 16
CALLERS = 60
VOICE_CYCLE_MS = 11_000

_IDENTITY_HZ = 200.0
_IDENTITY_STEP_HZ = 50.0
_SWEEP_HZ = 1200.0
_SWEEP_HZ_PER_S = 200.0
_CALLER_HZ = 500.0
_CALLER_STEP_HZ = 50.0
_LOUDNESS = 6000
_CALLER_LOUDNESS = 1500
_AUDIBLE_RMS = 200.0
_FFT = 8192


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stretch of audio says of itself: the voice, and the position at its middle."""

    voice: int
    position_ms: float


def voice_pcm(voice: int, start_ms: int, length_ms: int, rate: int) -> bytes:
    """The stretch `start_ms … start_ms + length_ms` of a voice that started speaking at 0."""
    steps = np.arange(length_ms * rate // 1000, dtype=np.float64)
    t = start_ms / 1000 + steps / rate
    identity = np.sin(2 * np.pi * (_IDENTITY_HZ + _IDENTITY_STEP_HZ * (voice % VOICES)) * t)
    t = t % (VOICE_CYCLE_MS / 1000)
    sweep = np.sin(2 * np.pi * (_SWEEP_HZ * t + _SWEEP_HZ_PER_S / 2 * t * t))
    return _pcm((identity + sweep) * _LOUDNESS)


@lru_cache(maxsize=256)
def caller_frame(caller: int, rate: int) -> bytes:
    """20 ms of a caller's tone; repeated, it is a steady tone (a whole number of periods)."""
    t = np.arange(rate // 50, dtype=np.float64) / rate
    hz = _CALLER_HZ + _CALLER_STEP_HZ * (caller % CALLERS)
    return _pcm(np.sin(2 * np.pi * hz * t) * _CALLER_LOUDNESS)


def silence(length_ms: int, rate: int) -> bytes:
    return b"\0\0" * (length_ms * rate // 1000)


def audible(pcm: bytes) -> bool:
    """False for digital silence and comfort noise."""
    samples = _samples(pcm)
    return bool(samples.size) and float(np.sqrt(np.mean(samples * samples))) > _AUDIBLE_RMS


def decode(pcm: bytes, rate: int) -> Heard | None:
    """Who speaks in this stretch (20 to 100 ms are best) and where in it; None for silence."""
    if not audible(pcm):
        return None
    spectrum = _spectrum(pcm)
    identity = _peak_hz(spectrum, rate, 150, 1000)
    sweep = _peak_hz(spectrum, rate, 1100, 3500)
    voice = round((identity - _IDENTITY_HZ) / _IDENTITY_STEP_HZ)
    return Heard(min(max(voice, 0), VOICES - 1), 1000 * (sweep - _SWEEP_HZ) / _SWEEP_HZ_PER_S)


def is_voice(pcm: bytes, rate: int) -> bool:
    """Whether this stretch (20 to 100 ms are best) is a voice of the pattern at all: two tones of
    about the same strength and nothing else. Recordings of people, and noise, are not.
    """
    if not audible(pcm):
        return False
    power = _spectrum(pcm) ** 2
    bins = [
        round(_peak_hz(np.sqrt(power), rate, low, high) * _FFT / rate)
        for low, high in ((150, 1000), (1100, 3500))
    ]
    # The window of 20 ms spreads a tone over a hundred hertz on either side.
    reach = round(120 * _FFT / rate)
    tones = [float(power[max(at - reach, 0) : at + reach + 1].sum()) for at in bins]
    return sum(tones) > 0.8 * float(power.sum()) and max(tones) < 4 * min(tones)


def caller_of(pcm: bytes, rate: int) -> int | None:
    """Which caller's tone this stretch (100 ms or more) holds; None for silence."""
    samples = _samples(pcm)
    if not samples.size or float(np.sqrt(np.mean(samples * samples))) < _AUDIBLE_RMS / 2:
        return None
    hz = _peak_hz(_spectrum(pcm), rate, _CALLER_HZ - 50, 3600)
    return round((hz - _CALLER_HZ) / _CALLER_STEP_HZ)


def _pcm(wave: NDArray[np.float64]) -> bytes:
    return np.round(wave).astype("<i2").tobytes()


def _samples(pcm: bytes) -> NDArray[np.float64]:
    return np.frombuffer(pcm[: len(pcm) & ~1], dtype="<i2").astype(np.float64)


def _spectrum(pcm: bytes) -> NDArray[np.float64]:
    samples = _samples(pcm)[:_FFT]
    return np.asarray(np.abs(np.fft.rfft(samples * np.hanning(samples.size), _FFT)))


def _peak_hz(spectrum: NDArray[np.float64], rate: int, low_hz: float, high_hz: float) -> float:
    low, high = int(low_hz * _FFT / rate), int(high_hz * _FFT / rate)
    at = low + int(np.argmax(spectrum[low:high]))
    left, middle, right = spectrum[at - 1], spectrum[at], spectrum[min(at + 1, spectrum.size - 1)]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend else 0.0
    return float((at + shift) * rate / _FFT)
