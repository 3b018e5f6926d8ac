"""The kinds of WebSocket frames that come and go fifty times a second in every call.

A phone's audio is whole binary messages of 20 ms, and what a model says and hears is whole text
messages, one frame each (RFC 6455, 5.2). Servers and clients take every frame through what they
need for all that a WebSocket may be; these functions know these kinds only, and whoever calls them
leaves everything else to the library.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where there is that

_WHOLE_TEXT, _WHOLE_BINARY = 0x81, 0x82
_MASKED = 0x80
_SIZE_16, _SIZE_64 = 126, 127
_HEAD, _HEAD_16, _HEAD_64 = struct.Struct("!BB"), struct.Struct("!BBH"), struct.Struct("!BBQ")
_HEAD_16_BYTES, _MASK_BYTES = 4, 4
_MASKS_AT_ONCE = 64
_MASKED_HEAD_BYTES = _HEAD_16_BYTES + _MASK_BYTES


def audio_at(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The audio in the phone's frame that begins there, and where the next one begins; None unless
    it is one whole binary frame of 126 to 65,535 bytes, masked, and all of it is there.
    """
    begins = at + _MASKED_HEAD_BYTES
    if len(data) < begins or data[at] != _WHOLE_BINARY or data[at + 1] != _MASKED | _SIZE_16:
        return None
    size = data[at + 2] << 8 | data[at + 3]
    ends = begins + size
    if size < _SIZE_16 or len(data) < ends:
        return None
    return apply_mask(data[begins:ends], data[begins - _MASK_BYTES : begins]), ends


def audio_frame(pcm: bytes) -> bytes | None:
    """A frame to the phone that holds this; None beyond 65,535 bytes."""
    size = len(pcm)
    if size < _SIZE_16:
        return _HEAD.pack(_WHOLE_BINARY, size) + pcm
    if size < 1 << 16:
        return _HEAD_16.pack(_WHOLE_BINARY, _SIZE_16, size) + pcm
    return None


def text_at(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The text in a service's frame that begins there, UTF-8 as it came, and where the next one
    begins; None unless it is one whole text frame of up to 65,535 bytes, and all of it is there.
    """
    begins = at + _HEAD.size
    if len(data) < begins or data[at] != _WHOLE_TEXT:
        return None
    size = data[at + 1]
    if size == _SIZE_16:
        begins = at + _HEAD_16_BYTES
        if len(data) < begins:
            return None
        size = data[at + 2] << 8 | data[at + 3]
        if size < _SIZE_16:
            return None
    elif size > _SIZE_16:  # longer, or masked, which no server may send
        return None
    ends = begins + size
    return (data[begins:ends], ends) if len(data) >= ends else None


class Masks:
    """What a client's frames are masked with: four bytes each that nobody can foresee (RFC 6455,
    10.3), taken from the kernel for many at once, which costs as much as for one.
    """

    def __init__(self) -> None:
        self._bytes, self._used = b"", 0

    def next(self) -> bytes:
        if self._used == len(self._bytes):
            self._bytes, self._used = os.urandom(_MASK_BYTES * _MASKS_AT_ONCE), 0
        self._used += _MASK_BYTES
        return self._bytes[self._used - _MASK_BYTES : self._used]


def text_frame(text: bytes, mask: bytes) -> bytes:
    """A frame to a service that holds this, UTF-8."""
    size = len(text)
    if size < _SIZE_16:
        head = _HEAD.pack(_WHOLE_TEXT, _MASKED | size)
    elif size < 1 << 16:
        head = _HEAD_16.pack(_WHOLE_TEXT, _MASKED | _SIZE_16, size)
    else:
        head = _HEAD_64.pack(_WHOLE_TEXT, _MASKED | _SIZE_64, size)
    return head + mask + apply_mask(text, mask)


#: An ASGI extension of this project's servers. Its `hand_to` takes a function that from then on is
#: given each piece of a phone's audio where it comes in, in place of a message in `receive()`.
#: Other messages come as ever.
HAND_AUDIO: Final = "callcenter.hand_audio"


class AudioSink:
    """Where one phone's audio goes as it comes in."""

    def __init__(self) -> None:
        #: None: among the other messages. It must not raise.
        self.take: Callable[[bytes], None] | None = None

    def hand_to(self, take: Callable[[bytes], None] | None) -> None:
        self.take = take

    def extension(self) -> dict[str, Any]:
        """For the `extensions` of an ASGI scope."""
        return {HAND_AUDIO: {"hand_to": self.hand_to}}


class Boundaries:
    """Follows a stream of frames: whether the next byte begins one."""

    def __init__(self) -> None:
        self._head = b""
        self._missing_bytes = 0

    @property
    def between_frames(self) -> bool:
        return not self._head and not self._missing_bytes

    def follow(self, data: bytes) -> None:
        """The next bytes of it, which somebody else reads."""
        at = 0
        while at < len(data):
            if self._missing_bytes:
                step = min(self._missing_bytes, len(data) - at)
                self._missing_bytes -= step
                at += step
                continue
            self._head += data[at : at + 1]
            at += 1
            if (rest := _rest_bytes(self._head)) is not None:
                self._head, self._missing_bytes = b"", rest


def _rest_bytes(head: bytes) -> int | None:
    """How many bytes come behind the length of a frame; None while the length is not known."""
    if len(head) < 2:
        return None
    size, mask_bytes = head[1] & 0x7F, _MASK_BYTES if head[1] & _MASKED else 0
    length_bytes = {_SIZE_16: 2, _SIZE_64: 8}.get(size, 0)
    if len(head) < 2 + length_bytes:
        return None
    return mask_bytes + (int.from_bytes(head[2:], "big") if length_bytes else size)
