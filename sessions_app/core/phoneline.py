"""The phone's line: whether it is there, whether what we send arrives, and the call's clock."""

from __future__ import annotations

import math

from sessions_app.core.ear import PAUSE_S
from sessions_app.core.limits import Limits
from sessions_app.core.playback import Playback

#: A phone that used to return marks, and goes on sending, does not get what we send if a mark is so
#: late.
HALF_DEAD_S = 1.2
#: One that has stopped sending, too, has frozen if a mark is so late: a line may stall a moment.
FROZEN_S = 1.6
#: It has stopped sending if its last frame is so old; then a mark asks whether it is there.
FRESH_S = 1.0
#: A line that stalls goes on after a moment, with all that was said; one that does not by then is
#: silent. It is fed so much silence at a time, as it would have sent.
STALLED_S = 2.0
FEED_S = 0.7
#: So long it takes at most until it is decided how a caller is connected again, or not.
DECIDED_S = 5.0


class PhoneLine:
    """All times are seconds of the call's one clock, passed in."""

    def __init__(self, limits: Limits, playback: Playback, now: float) -> None:
        self._limits = limits
        self._playback = playback
        self.opened_s: float | None = None
        self.muted = False
        #: Since when the media is broken, while the caller may still be there.
        self.broken_s: float | None = None
        self._awaited_until_s = -math.inf
        #: When the last frame of the caller came.
        self.heard_s = now
        self._asked_s: float | None = None
        self._fed_silence_s = -math.inf
        #: Since when the caller's leg is up, as far as the carrier has told.
        self._answered_s: float | None = None
        self._no_way = False

    def opened(self, now: float) -> None:
        self.opened_s = self.heard_s = now

    def broke(self, now: float) -> None:
        self.broken_s = now

    def mute(self, muted: bool, now: float) -> None:
        self.muted, self.heard_s = muted, now

    def answered(self, now: float) -> None:
        """The carrier says that the caller listens."""
        if self._answered_s is None:
            self._answered_s = now

    def no_way(self) -> None:
        """The carrier could not help a caller who is not connected: it is not asked again."""
        self._no_way = True

    def asked(self, now: float) -> None:
        self._asked_s = now

    def fed_silence(self, now: float) -> None:
        self._fed_silence_s = now

    def clock_ms(self, now: float) -> int:
        """The call's clock: 0 when the media socket opened."""
        return max(0, int((now - self.opened_s) * 1000)) if self.opened_s is not None else 0

    # ------------------------------------------------------------------ waiting

    def no_media_at_s(self) -> float | None:
        """When a caller who was picked up, and is not connected to us, is spoken to otherwise."""
        if self._answered_s is None or self._no_way or self.opened_s is not None:
            return None
        return self._answered_s + self._limits.connect_s

    def awaits(self, until_s: float) -> None:
        """The carrier is being told to connect him again."""
        self._awaited_until_s = max(self._awaited_until_s, until_s)

    def awaited(self, now: float) -> bool:
        return now < self._awaited_until_s

    def given_up_at_s(self) -> float | None:
        """When a caller whose media broke has gone as well, since nobody asks for him, or he does
        not come although the carrier was told to connect him.
        """
        if self.broken_s is None:
            return None
        return max(self.broken_s + self._limits.broken_s, self._awaited_until_s)

    def silent_at_s(self) -> float | None:
        """When a phone that sends nothing has gone."""
        return None if self.muted else self.heard_s + self._limits.media_silence_s

    def ask_at_s(self) -> float | None:
        """When a phone that has fallen silent is asked whether it is there."""
        asked = self._asked_s is not None and self._asked_s >= self.heard_s
        if asked or self.muted or not self._playback.marks_idle:
            return None
        return self.heard_s + FRESH_S

    def feed_silence_at_s(self) -> float | None:
        """When one who waits for the end of the caller's turn is to hear `FEED_S` of silence: a
        muted leg sends nothing (reference: media:update), and without any sound, not even silence,
        a turn never ends.
        """
        if self._fed_silence_s >= self.heard_s:
            return self._fed_silence_s + FEED_S
        return self.heard_s + (PAUSE_S if self.muted else STALLED_S)

    def dead_at_s(self, now: float) -> float | None:
        """When a phone that returns no marks any more, sending or not, has to be given up."""
        due_s = self._playback.mark_due_s()
        if due_s is None or self.muted:
            return None
        return due_s + (HALF_DEAD_S if now <= self.heard_s + FRESH_S else FROZEN_S)
