"""The one kind of WebSocket frame that comes and goes fifty times a second in every call.

A phone's audio is whole, unfragmented binary messages of 20 ms, one frame each (RFC 6455, 5.2).
Servers take every frame through what they need for all that a WebSocket may be; these functions
know this kind only, and whoever calls them leaves everything else to the server.
"""

from __future__ import annotations

import struct

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where there is that

_WHOLE_BINARY = 0x82
_MASKED_16 = 0x80 | 126
_HEAD, _HEAD_16 = struct.Struct("!BB"), struct.Struct("!BBH")
_MASKED_HEAD_BYTES = 8


def payload_of(data: bytes) -> bytes | None:
    """What a client's frame holds; None unless this is one whole binary frame of 126 to 65,535
    bytes, and nothing besides.
    """
    if len(data) < _MASKED_HEAD_BYTES or data[0] != _WHOLE_BINARY or data[1] != _MASKED_16:
        return None
    size = data[2] << 8 | data[3]
    if size < 126 or len(data) != size + _MASKED_HEAD_BYTES:
        return None
    return apply_mask(data[_MASKED_HEAD_BYTES:], data[4:_MASKED_HEAD_BYTES])


def frame_of(payload: bytes) -> bytes | None:
    """A server's frame that holds this; None beyond 65,535 bytes."""
    size = len(payload)
    if size < 126:
        return _HEAD.pack(_WHOLE_BINARY, size) + payload
    if size < 1 << 16:
        return _HEAD_16.pack(_WHOLE_BINARY, 126, size) + payload
    return None


class Boundaries:
    """Follows a client's stream of frames: whether the next byte begins one."""

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
    size, mask_bytes = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
    length_bytes = {126: 2, 127: 8}.get(size, 0)
    if len(head) < 2 + length_bytes:
        return None
    return mask_bytes + (int.from_bytes(head[2:], "big") if length_bytes else size)
