"""Real synthesised speech for the stand-ins: espeak-ng through ctypes.

A stand-in that played a tone could not be listened to, and a detector tuned on tones says nothing
about speech. espeak-ng renders seconds of speech in a few milliseconds, needs no network, and with
a fixed seed speaks a text the same way every time (to within a syllable's flutter), which is what
lets ``ear.py`` recognise the sample phrases.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import espeakng_loader
import numpy as np
import soxr

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_CHARS_UTF8: Final = 1
_PARAMETER_RATE: Final = 1
_PARAMETER_PITCH: Final = 3
_SEED: Final = 1
_TEXT_LIMIT: Final = 5000
# espeak-ng keeps its data directory in a buffer of 160 characters and cuts what is longer.
_PATH_LIMIT: Final = 140

_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class VoiceError(Exception):
    """espeak-ng could not be loaded, does not know a voice, or failed to speak."""


@dataclass(frozen=True, slots=True)
class Timbre:
    """One way of speaking: an espeak-ng voice (with variant), pitch 0-99, words per minute."""

    espeak: str
    pitch: int = 50
    words_per_minute: int = 165


CALLER: Final = "caller"
TALK: Final = "talk"

# Names of the suppliers' voices, so that two agents sound different; any other name is espeak-ng's
# own.
TIMBRES: Final[dict[str, Timbre]] = {
    CALLER: Timbre("en-us+m3", pitch=38, words_per_minute=160),
    TALK: Timbre("en-us+f4", pitch=60, words_per_minute=170),
    "alloy": Timbre("en-us", pitch=55),
    "ash": Timbre("en+m1", pitch=40),
    "ballad": Timbre("en+m2", pitch=45),
    "coral": Timbre("en+f1", pitch=60),
    "echo": Timbre("en-us+m4", pitch=45),
    "sage": Timbre("en+f2", pitch=55),
    "shimmer": Timbre("en-us+f5", pitch=65),
    "verse": Timbre("en-us+m7", pitch=45),
    "marin": Timbre("en+f3", pitch=58),
    "cedar": Timbre("en+m3", pitch=42),
    "sarah": Timbre("en+f3", pitch=52),
    "theo": Timbre("en+m5", pitch=40),
    "megan": Timbre("en-us+f2", pitch=56),
    "jack": Timbre("en-us+m2", pitch=44),
}


def _data_path() -> str:
    """The data directory, by a short link when an environment lies too deep for espeak-ng."""
    path: str = espeakng_loader.get_data_path()
    if len(path.encode()) <= _PATH_LIMIT:
        return path
    short = Path(tempfile.mkdtemp(prefix="espeak-"))
    atexit.register(shutil.rmtree, short, ignore_errors=True)
    link = short / "espeak-ng-data"
    link.symlink_to(path, target_is_directory=True)
    return str(link)


class _Espeak:
    """The loaded library. Its state is global to the process, so every use holds ``_lock``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples = bytearray()
        try:
            self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise VoiceError(f"espeak-ng could not be loaded: {error}") from error
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.rate_hz: int = self._lib.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, _data_path().encode(), _DONT_EXIT
        )
        if self.rate_hz <= 0:
            raise VoiceError("espeak-ng did not accept its data directory")
        self._callback = _SynthCallback(self._collect)  # kept: the library holds a bare pointer
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0 and samples:
            self._samples.extend(ctypes.string_at(samples, count * 2))
        return 0

    def speak(self, text: str, timbre: Timbre, speed: float) -> bytes:
        """Renders ``text`` at ``rate_hz``, s16le mono."""
        encoded = text.encode()
        with self._lock:
            if self._lib.espeak_SetVoiceByName(timbre.espeak.encode()) != 0:
                raise VoiceError(f"espeak-ng has no voice {timbre.espeak!r}")
            words_per_minute = round(timbre.words_per_minute * speed)
            self._lib.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
            self._lib.espeak_SetParameter(_PARAMETER_PITCH, timbre.pitch, 0)
            # Flutter and breath are random; a fixed seed keeps the same text alike.
            self._lib.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
            self._samples.clear()
            status = self._lib.espeak_Synth(
                encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None
            )
            speech = bytes(self._samples)
            self._samples.clear()
        if status != 0:
            raise VoiceError(f"espeak-ng failed with status {status}")
        return speech


_loading = threading.Lock()


@functools.cache
def _load() -> _Espeak:
    return _Espeak()


def _espeak() -> _Espeak:
    # functools.cache may run its function twice when two threads come first at the same time, and
    # initialising the library twice is not allowed.
    with _loading:
        return _load()


@functools.lru_cache(maxsize=96)
def synthesise(text: str, rate_hz: int, *, voice: str = "en", speed: float = 1.0) -> bytes:
    """Speaks ``text``: s16le mono PCM at ``rate_hz`` (8000, 16000 or 24000).

    ``voice`` is a name from ``TIMBRES`` or one of espeak-ng's own (``en``, ``fr``, ``en-us+f3``).
    The last sentences are kept, so that the hundredth caller's greeting costs nothing. Raises
    ``ValueError`` for a rate or a length that is not wanted here, ``VoiceError`` for an unknown
    voice.
    """
    if rate_hz not in (8000, 16000, 24000):
        raise ValueError(f"rate_hz is {rate_hz}, wanted 8000, 16000 or 24000")
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"the text has {len(text)} characters, at most {_TEXT_LIMIT} are spoken")
    if not text.strip():
        return b""
    espeak = _espeak()
    speech = espeak.speak(text, TIMBRES.get(voice) or Timbre(voice), speed)
    samples = np.frombuffer(speech, dtype="<i2")
    resampled = soxr.resample(samples, espeak.rate_hz, rate_hz, quality="MQ")
    return bytes(resampled.astype("<i2").tobytes())


def duration_ms(pcm: bytes, rate_hz: int) -> int:
    """Length of s16le mono ``pcm`` in whole milliseconds."""
    return len(pcm) * 1000 // (2 * rate_hz)
