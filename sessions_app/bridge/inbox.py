"""The caller's audio on its way to the model: bounded, oldest dropped and counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sessions_app.core.audio import Resampler

#: Before the model is ready, so that a first "hello" is not lost; and after, so that it is fresh.
EARLY_FRAMES = 300
LIVE_FRAMES = 50


class Inbox:
    """Frames of the phone, 20 ms each, until the model takes them."""

    def __init__(self, phone_rate_hz: int, provider_rate_hz: int) -> None:
        self._resampler = Resampler(phone_rate_hz, provider_rate_hz)
        self._frames: deque[bytes] = deque(maxlen=EARLY_FRAMES)
        self._wake = asyncio.Event()
        self.dropped = 0

    def put(self, frame: bytes) -> None:
        """Never blocks; when full the oldest frame goes."""
        if len(self._frames) == self._frames.maxlen:
            self.dropped += 1
        self._frames.append(frame)
        self._wake.set()

    async def run(self, send: Callable[[bytes], None]) -> None:
        """Hand everything on, at the model's rate, until cancelled."""
        first = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            pcm = b"".join(self._frames)
            if first:
                self._frames = deque(maxlen=LIVE_FRAMES)
                first = False
            else:
                self._frames.clear()
            if ready := self._resampler.feed(pcm):
                send(ready)
