"""What waits to be sent: commands, which are never lost, before audio, which is bounded."""

from __future__ import annotations

from collections import deque

from sessions_app.providers.openai.conversation import RATE_HZ
from sessions_app.providers.openai.wire import audio_append

_BYTES_PER_MS = RATE_HZ * 2 // 1000
_KEPT_BYTES = 2000 * _BYTES_PER_MS
_APPEND_BYTES = 100 * _BYTES_PER_MS


class SendQueue:
    """One conversation's outgoing messages: empty, unless the connection is slow."""

    def __init__(self) -> None:
        self.closed = False
        self.audio_dropped_ms = 0
        self._messages: deque[bytes] = deque()
        self._audio: deque[bytes] = deque()
        self._audio_bytes = 0
        self._most_bytes = _KEPT_BYTES

    @property
    def empty(self) -> bool:
        return not self._messages and not self._audio

    def put(self, message: bytes) -> None:
        if not self.closed:
            self._messages.append(message)

    def put_audio(self, pcm: bytes) -> None:
        """Queue audio; beyond two seconds of it the oldest is dropped and counted. What a session
        that begins anew is given at once comes on top.
        """
        if self.closed or not pcm:
            return
        self._audio.append(pcm)
        self._audio_bytes += len(pcm)
        if len(pcm) > _KEPT_BYTES:
            self._most_bytes = self._audio_bytes + _KEPT_BYTES
        while self._audio_bytes > self._most_bytes and len(self._audio) > 1:
            dropped = len(self._audio.popleft())
            self._audio_bytes -= dropped
            self.audio_dropped_ms += dropped // _BYTES_PER_MS

    def take(self) -> bytes | None:
        """The next client event, ready to be sent as text; None: nothing waits."""
        if self._messages:
            return self._messages.popleft()
        if not self._audio:
            return None
        pieces = [self._audio.popleft()]
        size = len(pieces[0])
        while self._audio and size + len(self._audio[0]) <= _APPEND_BYTES:
            pieces.append(self._audio.popleft())
            size += len(pieces[-1])
        self._audio_bytes -= size
        if self._audio_bytes <= _KEPT_BYTES:
            self._most_bytes = _KEPT_BYTES
        return audio_append(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Forget what waits, and take no more."""
        self.closed = True
        self._messages.clear()
        self._audio.clear()
        self._audio_bytes = 0
