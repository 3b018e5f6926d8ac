"""A clip as a WAV file that anybody can play, its words inside, where players show a comment.

One file, so that audio and words cannot part; its own length at its head, so that a file that was
cut off is found out. RIFF: "Multimedia Programming Interface and Data Specifications 1.0" (1991).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sessions_app.core.audio import SAMPLE_BYTES

_PCM = 1
_FORMAT = struct.Struct("<HHIIHH")
_HEAD = struct.Struct("<4sI")


class NotAClip(Exception):
    """The file is not a recording of ours, or not all of it; the text says what is wrong."""


def write(text: str, rate_hz: int, pcm: bytes) -> bytes:
    """s16le mono and its words as a WAV file."""
    form = _FORMAT.pack(_PCM, 1, rate_hz, rate_hz * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    words = _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", text.encode() + b"\0"))
    return _chunk(b"RIFF", b"WAVE" + _chunk(b"fmt ", form) + words + _chunk(b"data", pcm))


def read(data: bytes) -> tuple[str, int, bytes]:
    """Words, rate and s16le mono of such a file. Raises NotAClip."""
    outer = dict(_chunks(data))
    riff = outer.get(b"RIFF", b"")
    if not riff.startswith(b"WAVE"):
        raise NotAClip("it is no WAV file")
    found = dict(_chunks(riff[4:]))
    form, pcm, info = (found.get(name, b"") for name in (b"fmt ", b"data", b"LIST"))
    if len(form) < _FORMAT.size:
        raise NotAClip("it does not tell its format")
    kind, channels, rate_hz, *_, bits = _FORMAT.unpack_from(form)
    if (kind, channels, bits) != (_PCM, 1, 8 * SAMPLE_BYTES):
        raise NotAClip(f"format {kind} with {channels} channels of {bits} bits, wanted PCM, 1, 16")
    words = dict(_chunks(info[4:])).get(b"ICMT", b"").rstrip(b"\0")
    try:
        text = words.decode()
    except UnicodeDecodeError:
        raise NotAClip("its words are not UTF-8") from None
    if not text or not pcm or len(pcm) % SAMPLE_BYTES or not 8000 <= rate_hz <= 48_000:
        raise NotAClip(f"{len(text)} letters, {len(pcm)} bytes of audio at {rate_hz} Hz")
    return text, rate_hz, pcm


def _chunk(name: bytes, body: bytes) -> bytes:
    return _HEAD.pack(name, len(body)) + body + b"\0" * (len(body) % 2)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + _HEAD.size <= len(data):
        name, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + size > len(data):
            raise NotAClip(f"it is cut off: {size} bytes were to come, {len(data) - at} are there")
        yield name, data[at : at + size]
        at += size + size % 2
