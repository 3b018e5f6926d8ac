"""The caller's audio on its way to the model: bounded, oldest dropped and counted.

What was sent is kept a while, in case the model's session has to begin anew before it has answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sessions_app.core.audio import Resampler

#: Before the model is ready, so that a first "hello" is not lost; and after, so that it is fresh.
EARLY_FRAMES = 300
LIVE_FRAMES = 50
#: Of what was sent: always so much, since speech begins before it is noticed; and while the caller
#: has not been answered, at most so much.
PREFIX_FRAMES = 25
RETAINED_FRAMES = 300


class Inbox:
    """Frames of the phone, 20 ms each, until the model takes them."""

    def __init__(self, phone_rate_hz: int, provider_rate_hz: int) -> None:
        self._phone_rate_hz = phone_rate_hz
        self._provider_rate_hz = provider_rate_hz
        self._frames: deque[bytes] = deque(maxlen=EARLY_FRAMES)
        self._sent: deque[bytes] = deque(maxlen=PREFIX_FRAMES)
        self._wake = asyncio.Event()
        self.dropped = 0

    def put(self, frame: bytes) -> None:
        """Never blocks; when full the oldest frame goes."""
        if len(self._frames) == self._frames.maxlen:
            self.dropped += 1
        self._frames.append(frame)
        self._wake.set()

    def retain(self, retain: bool) -> None:
        """Keep what is sent from now on (and a little from before), or let it go."""
        self._sent = deque(self._sent, maxlen=RETAINED_FRAMES if retain else PREFIX_FRAMES)

    def rewind(self) -> None:
        """What was kept is sent again to the next session, and what comes meanwhile behind it. If
        nothing had to be kept, nothing of the past is sent.
        """
        kept = self._sent if self._sent.maxlen == RETAINED_FRAMES else ()
        self._frames = deque((*kept, *self._frames), maxlen=EARLY_FRAMES)
        self._sent.clear()
        if self._frames:
            self._wake.set()

    async def run(self, send: Callable[[bytes], None]) -> None:
        """Hand everything on, at the model's rate, to one session of it, until cancelled."""
        resampler = Resampler(self._phone_rate_hz, self._provider_rate_hz)
        first = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._sent.extend(self._frames)
            pcm = b"".join(self._frames)
            if first:
                self._frames = deque(maxlen=LIVE_FRAMES)
                first = False
            else:
                self._frames.clear()
            if ready := resampler.feed(pcm):
                send(ready)
