"""The input audio buffer of a realtime session: what was appended, and the turns found in it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from sessions_app.sandbox.checks import WireError
from sessions_app.sandbox.ear import Detector, SpeechStarted, SpeechStopped
from sessions_app.sandbox.realtime_config import RATE_HZ

_APPEND_LIMIT: Final = 15 << 20
# Without turn detection nothing takes audio out of the buffer but the client: two minutes, then an
# error.
_BUFFER_LIMIT: Final = 120 * RATE_HZ * 2
_COMMIT_MIN_MS: Final = 100
# How long a pause ends a turn, for the model that listens to meaning: eagerness by OpenAI's guide,
# shortened.
_EAGERNESS_MS: Final[dict[str, int]] = {"low": 1500, "medium": 800, "auto": 800, "high": 400}


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn of the caller's, cut out of the input."""

    pcm: bytes
    start_ms: int
    end_ms: int


def _detector(turn_detection: dict[str, Any] | None, origin_ms: int) -> Detector | None:
    if turn_detection is None:
        return None
    if turn_detection["type"] == "semantic_vad":
        silence_ms = _EAGERNESS_MS[turn_detection["eagerness"]]
        return Detector(RATE_HZ, silence_duration_ms=silence_ms, origin_ms=origin_ms)
    return Detector(
        RATE_HZ,
        threshold=turn_detection["threshold"],
        prefix_padding_ms=turn_detection["prefix_padding_ms"],
        silence_duration_ms=turn_detection["silence_duration_ms"],
        origin_ms=origin_ms,
    )


class InputAudio:
    """Holds what was appended, or passes it to the detector when turns are found by the server."""

    def __init__(self, turn_detection: dict[str, Any] | None) -> None:
        self._turn_detection = turn_detection
        self._detector = _detector(turn_detection, 0)
        self._buffer = bytearray()
        self._received = 0

    @property
    def at_ms(self) -> int:
        """Milliseconds of audio received since the session began."""
        return self._received * 1000 // (2 * RATE_HZ)

    def configure(self, turn_detection: dict[str, Any] | None) -> None:
        """Applies a changed ``turn_detection``; the clock goes on."""
        if turn_detection != self._turn_detection:
            self._turn_detection = turn_detection
            self._detector = _detector(turn_detection, self.at_ms)

    def append(self, encoded: str) -> list[SpeechStarted | SpeechStopped]:
        """Takes one ``input_audio_buffer.append``; what was noticed in it."""
        if len(encoded) > _APPEND_LIMIT:
            raise WireError("invalid_value", "Audio of one event is limited to 15 MiB.", "audio")
        try:
            pcm = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise WireError(
                "invalid_value", "Invalid 'audio'. Expected base64-encoded audio bytes.", "audio"
            ) from None
        if len(pcm) % 2:
            raise WireError("invalid_value", "Invalid 'audio'. Expected 16-bit samples.", "audio")
        self._received += len(pcm)
        if self._detector is not None:
            return self._detector.feed(pcm)
        if len(self._buffer) + len(pcm) > _BUFFER_LIMIT:
            raise WireError("invalid_value", "The input audio buffer is full.", "audio")
        self._buffer += pcm
        return []

    def commit(self) -> Utterance:
        """Takes the buffer as a turn. Raises ``WireError`` when there is nearly nothing in it."""
        held_ms = len(self._buffer) * 1000 / (2 * RATE_HZ)
        if held_ms < _COMMIT_MIN_MS:
            raise WireError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of "
                f"audio, but buffer only has {held_ms:.2f}ms of audio.",
            )
        pcm = bytes(self._buffer)
        self._buffer.clear()
        return Utterance(pcm, self.at_ms - int(held_ms), self.at_ms)

    def clear(self) -> None:
        """Forgets what was not yet made a turn."""
        self._buffer.clear()
        if self._detector is not None:
            self._detector.clear()
