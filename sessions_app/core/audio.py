"""Sound on its way: s16le mono PCM and its sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLE_BYTES = 2
#: What stays below this is line noise or digital silence; nobody hears it as a voice.
AUDIBLE_PEAK = 300


def pcm_ms(size_bytes: int, rate_hz: int) -> float:
    """How long so many bytes of PCM sound."""
    return size_bytes * 1000 / (rate_hz * SAMPLE_BYTES)


def audible(pcm: bytes) -> bool:
    """Whether there is anything in this piece that can be heard."""
    samples = np.frombuffer(pcm, dtype="<i2")
    # Two comparisons instead of abs(), which has no answer for -32768.
    return samples.size > 0 and bool(samples.max() > AUDIBLE_PEAK or samples.min() < -AUDIBLE_PEAK)


def which_audible(frames: Sequence[bytes]) -> list[bool]:
    """The same of each of these pieces of one size; many at once cost hardly more than one."""
    if not frames:
        return []
    samples = np.frombuffer(b"".join(frames), dtype="<i2").reshape(len(frames), -1)
    loud = (samples.max(axis=1) > AUDIBLE_PEAK) | (samples.min(axis=1) < -AUDIBLE_PEAK)
    answers: list[bool] = loud.tolist()
    return answers


class Framer:
    """Cuts PCM into frames of one exact size; the rest waits for more, or is padded.

    Vonage closes the leg on a message of any other size ("unexpected frame size").
    """

    def __init__(self, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        self._rest = b""

    @property
    def waiting_bytes(self) -> int:
        return len(self._rest)

    def feed(self, pcm: bytes) -> list[bytes]:
        """Whole frames, as many as there are now."""
        data = self._rest + pcm
        whole = len(data) - len(data) % self.frame_bytes
        self._rest = data[whole:]
        size = self.frame_bytes
        return [data[at : at + size] for at in range(0, whole, size)]

    def flush(self) -> bytes | None:
        """The last, padded with silence, if anything waits."""
        if not self._rest:
            return None
        frame = self._rest.ljust(self.frame_bytes, b"\0")
        self._rest = b""
        return frame

    def reset(self) -> None:
        self._rest = b""
