"""The agent's audio on its way to the phone: framed exactly, bounded, ahead by about a second.

Never a timer for each frame: timers only fire late, and the caller hears the gaps. Frames go out in
batches whenever the phone's queue, by the playback clock, has fallen below the low mark.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sessions_app.core.audio import Framer, audible, pcm_ms, which_audible
from sessions_app.core.events import Event, ItemWritten, MediaClosed, ProviderNotice
from sessions_app.core.playback import Playback
from sessions_app.core.resampler import Resampler

#: How far the phone's queue is filled, and when it is filled again.
LEAD_MS = 1000.0
REFILL_MS = 750.0
#: A mark behind the first frame of a speech, which tells when the phone began, and then this often,
#: so that a phone that stalls is noticed.
MARK_EVERY_MS = 500.0
#: What one call may have queued here; a model that says more at one go is cut there.
QUEUE_MOST_MS = 240_000.0
#: A socket that takes nothing for this long is dead.
SEND_TIMEOUT_S = 5.0
#: From a closed socket that takes nothing more to the word that it was closed.
CLOSE_TOLD_S = 0.5


class MediaSocket(Protocol):
    """The phone's end, as the bridge sees it; whoever implements it knows the carrier's wire."""

    async def send_audio(self, frame: bytes) -> None: ...

    async def send_clear(self) -> None: ...

    async def send_mark(self, mark_id: str) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)  # one for every 20 ms: to freeze it would treble what it costs
class _Frame:
    item_id: str
    data: bytes
    audio_ms: float
    padding_ms: float
    audible: bool


@dataclass(frozen=True, slots=True)
class _End:
    """Behind the last frame of an item."""

    item_id: str


class Outbox:
    """One call's queue to the phone, and the only writer of its socket."""

    def __init__(
        self,
        playback: Playback,
        *,
        phone_rate_hz: int,
        frame_bytes: int,
        emit: Callable[[Event], None],
        wrote: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._playback = playback
        self._rate_hz = phone_rate_hz
        self._frame_ms = pcm_ms(frame_bytes, phone_rate_hz)
        self._resampler = Resampler(phone_rate_hz, phone_rate_hz)
        self._framer = Framer(frame_bytes)
        self._emit = emit
        self._wrote = wrote
        self._clock = clock
        self._queue: deque[_Frame | _End] = deque()
        self._queued_ms = 0.0
        self._framing = ""
        self._clear_wanted = self._mark_wanted = False
        self._since_mark_ms = 0.0
        self._marks = 0
        self._wake = asyncio.Event()
        #: The phone has enough for now: more of the same can wait until it has not.
        self._full = False
        self.overrun_ms = 0.0

    @property
    def queued_ms(self) -> float:
        """Waiting here; what the phone has not played yet comes on top."""
        return self._queued_ms

    def ahead_ms(self) -> float:
        """All that is still to be heard, here and at the phone."""
        return self._playback.backlog_ms(self._clock()) + self.queued_ms

    # ------------------------------------------------------------------ in

    def play(self, item_id: str, pcm: bytes, rate_hz: int) -> None:
        """Queue audio of an item, s16le at this rate."""
        if self._framing and self._framing != item_id:
            self._pad(self._framing)
        self._framing = item_id
        if self._resampler.from_hz != rate_hz:
            self._resampler = Resampler(rate_hz, self._rate_hz)
        self._add(item_id, self._resampler.feed(pcm))
        self._more()

    def finish(self, item_id: str) -> None:
        """The item is complete: its last frame is padded, and a mark goes behind it."""
        if self._framing == item_id:
            self._pad(item_id)
        self._queue.append(_End(item_id))
        self._more()

    def _more(self) -> None:
        if not self._full:
            self._wake.set()

    def ask(self) -> None:
        """Set a mark behind what was written, whether or not there is something new."""
        self._mark_wanted = True
        self._wake.set()

    def clear(self) -> None:
        """Drop everything here and have the phone drop its own, before anything else is sent."""
        self._queue.clear()
        self._queued_ms = 0.0
        self._framer.reset()
        self._resampler.reset()
        self._framing = ""
        self._clear_wanted = True
        self._wake.set()

    def forget(self) -> None:
        """The call is over: what waits is not kept until the last who knows this has gone."""
        self._queue.clear()
        self._framer.reset()
        self._resampler.reset()

    def _add(self, item_id: str, pcm: bytes) -> None:
        frames = self._framer.feed(pcm)
        for data, loud in zip(frames, which_audible(frames), strict=True):
            if self._queued_ms >= QUEUE_MOST_MS:
                if not self.overrun_ms:
                    self._emit(ProviderNotice("speech_too_long", "the rest was not played"))
                self.overrun_ms += self._frame_ms
                continue
            self._queue.append(_Frame(item_id, data, self._frame_ms, 0.0, loud))
            self._queued_ms += self._frame_ms

    def _pad(self, item_id: str) -> None:
        self._add(item_id, self._resampler.flush())
        audio_ms = pcm_ms(self._framer.waiting_bytes, self._rate_hz)
        if (last := self._framer.flush()) is not None:
            padding_ms = self._frame_ms - audio_ms
            self._queue.append(_Frame(item_id, last, audio_ms, padding_ms, audible(last)))
            self._queued_ms += self._frame_ms
        self._framing = ""

    # ------------------------------------------------------------------ out

    async def run(self, socket: MediaSocket) -> None:
        """Send until cancelled. A socket that breaks or hangs ends the media."""
        try:
            while True:
                self._wake.clear()
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._send_what_fits(socket)
                self._wrote()
                await self._until_there_is_room()
        except OSError:  # a TimeoutError is one, too
            self._emit(MediaClosed(clean=False))
        except RuntimeError:
            # The server's own "already closed". The socket's reader is told in a moment whether it
            # was closed well; only if it is not, the socket broke.
            await asyncio.sleep(CLOSE_TOLD_S)
            self._emit(MediaClosed(clean=False))

    async def _send_what_fits(self, socket: MediaSocket) -> None:
        if self._clear_wanted:
            self._clear_wanted = False
            self._since_mark_ms = 0.0
            await socket.send_clear()
        if self._mark_wanted:
            await self._mark(socket)
        backlog_ms = self._playback.backlog_ms(self._clock())
        while self._queue and not self._clear_wanted:
            if backlog_ms >= LEAD_MS:
                return
            piece = self._queue.popleft()
            if isinstance(piece, _End):
                if self._since_mark_ms:
                    await self._mark(socket)
                self._emit(ItemWritten(piece.item_id))
                continue
            self._queued_ms -= self._frame_ms
            if backlog_ms <= 0:
                self._since_mark_ms = MARK_EVERY_MS
            backlog_ms += self._frame_ms
            # Counted before it is sent: a clear that comes while sending must know of it.
            self._playback.wrote(
                piece.item_id,
                piece.audio_ms,
                self._clock(),
                piece.padding_ms,
                audible=piece.audible,
            )
            self._since_mark_ms += self._frame_ms
            await socket.send_audio(piece.data)
            if self._since_mark_ms >= MARK_EVERY_MS and not self._clear_wanted:
                await self._mark(socket)

    async def _mark(self, socket: MediaSocket) -> None:
        self._mark_wanted = False
        self._since_mark_ms = 0.0
        self._marks += 1
        mark_id = f"m{self._marks}"
        self._playback.marked(mark_id, self._clock())
        await socket.send_mark(mark_id)

    async def _until_there_is_room(self) -> None:
        """Wait for the phone to have played enough, or for something new."""
        delay_s = None
        if self._queue and not self._clear_wanted:
            delay_s = max(0.005, (self._playback.backlog_ms(self._clock()) - REFILL_MS) / 1000)
            self._full = True
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
        finally:
            self._full = False
