"""The caller's audio on its way to the model: handed on as it comes, kept while nobody takes it.

What was sent is kept a while, in case the model's session has to begin anew before it has answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sessions_app.core.resampler import Resampler

#: While there is no model to take it, so that a first "hello" is not lost; the oldest is dropped.
EARLY_FRAMES = 300
#: Of what was sent: always so much, since speech begins before it is noticed; and while the caller
#: has not been answered, at most so much.
PREFIX_FRAMES = 25
RETAINED_FRAMES = 300


class Inbox:
    """Frames of the phone, 20 ms each, until the model takes them."""

    def __init__(self, phone_rate_hz: int, provider_rate_hz: int) -> None:
        self._phone_rate_hz = phone_rate_hz
        self._provider_rate_hz = provider_rate_hz
        self._waiting: deque[bytes] = deque(maxlen=EARLY_FRAMES)
        self._sent: deque[bytes] = deque(maxlen=PREFIX_FRAMES)
        self._hand_on: Callable[[bytes], None] | None = None
        self.dropped = 0

    def put(self, frame: bytes) -> None:
        """To the model at once, if there is one. Never blocks."""
        if self._hand_on is not None:
            self._sent.append(frame)
            self._hand_on(frame)
            return
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(frame)

    def retain(self, retain: bool) -> None:
        """Keep what is sent from now on (and a little from before), or let it go."""
        self._sent = deque(self._sent, maxlen=RETAINED_FRAMES if retain else PREFIX_FRAMES)

    def rewind(self) -> None:
        """What was kept is sent again to the next session, and what comes meanwhile behind it. If
        nothing had to be kept, nothing of the past is sent.
        """
        kept = self._sent if self._sent.maxlen == RETAINED_FRAMES else ()
        self._waiting = deque((*kept, *self._waiting), maxlen=EARLY_FRAMES)
        self._sent.clear()

    def forget(self) -> None:
        """The call is over: nothing of it is kept until the last who knows this has gone."""
        self._waiting.clear()
        self._sent.clear()

    @contextmanager
    def flowing(self, send: Callable[[bytes], None]) -> Iterator[None]:
        """Within this, one session of the model takes everything, at its rate: first what waits, in
        one piece, then each frame as it comes.
        """
        resampler = Resampler(self._phone_rate_hz, self._provider_rate_hz)

        def hand_on(pcm: bytes) -> None:
            if ready := resampler.feed(pcm):
                send(ready)

        self._sent.extend(self._waiting)
        waited = b"".join(self._waiting)
        self._waiting.clear()
        if waited:
            hand_on(waited)
        self._hand_on = hand_on
        try:
            yield
        finally:
            self._hand_on = None
