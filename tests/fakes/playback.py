"""What the caller hears: the queue that Vonage plays at 20 ms a frame, on a clock passed in.

Nothing here waits; whoever owns it calls `take_reached(now_s)` when a marker is due. Every frame
that was played is kept with the moment it began, the one that a clear cut short only up to the cut,
so that "what did he hear" has an exact answer.

    phone = Playback(rate=16_000)
    phone.push(frame, now_s=10.00)
    phone.push(frame, now_s=10.00)
    phone.clear(now_s=10.03)          # the second frame was heard for 10 ms
    phone.heard_ms(10.03)             # 30.0
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.pattern import VOICE_CYCLE_MS, audible, decode, is_voice

FRAME_S = 0.02
#: Frames that Vonage holds, about a minute; what comes on top is lost.
QUEUE_FRAMES = 3072
#: Shorter than this, a stretch names neither its voice nor its place.
_SHORTEST_S = 0.008


@dataclass(frozen=True, slots=True)
class Played:
    """A stretch of audio and when it began to sound."""

    start_s: float
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Clear:
    """A clear: when it came, how much it dropped, and how much had been heard before it."""

    at_s: float
    dropped_ms: float
    heard_ms: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One voice heard without a break longer than `gap_s`; milliseconds of that voice's audio.

    `from_ms` and `to_ms` are positions in what the voice said, read from the audio itself;
    `gaps_ms` is silence in the middle of it.
    """

    voice: int
    start_s: float
    end_s: float
    from_ms: float
    to_ms: float
    gaps_ms: float


class Playback:
    """The queue of one media leg."""

    def __init__(self, rate: int, capacity: int = QUEUE_FRAMES) -> None:
        self.rate = rate
        self.capacity = capacity
        self.played: list[Played] = []
        self.clears: list[Clear] = []
        #: Frames that came while the queue was full.
        self.overflowed = 0
        self._queue: deque[bytes | Mapping[str, Any]] = deque()
        self._reached: list[Mapping[str, Any]] = []
        self._frames = 0
        self._free_s = 0.0  # when what is being played now ends
        self._played_ms = 0.0

    @property
    def queued_ms(self) -> float:
        """What waits to be played, the frame that is sounding excluded."""
        return self._frames * FRAME_S * 1000

    def push(self, frame: bytes, now_s: float) -> None:
        """Queues a frame; it is lost when the queue is full."""
        self.advance(now_s)
        if self._frames >= self.capacity:
            self.overflowed += 1
            return
        if self._free_s < now_s:
            self._free_s = now_s  # the queue had run dry: there is a gap up to this moment
        self._queue.append(frame)
        self._frames += 1
        self.advance(now_s)

    def mark(self, payload: Mapping[str, Any], now_s: float) -> None:
        """Queues a marker; it is reached when all that was queued before it has been played."""
        self._queue.append(payload)
        self.advance(now_s)

    def take_reached(self, now_s: float) -> list[Mapping[str, Any]]:
        """Markers reached by this moment, each of them once."""
        self.advance(now_s)
        reached, self._reached = self._reached, []
        return reached

    def clear(self, now_s: float) -> list[Mapping[str, Any]]:
        """Stops at once and drops the queue; returns the markers that were dropped with it."""
        self.advance(now_s)
        dropped_ms = self.queued_ms
        if self.played and self._free_s > now_s:
            dropped_ms += self._cut_last(now_s)
        pending = [part for part in self._queue if not isinstance(part, bytes)]
        self._queue.clear()
        self._frames = 0
        self._free_s = now_s
        self.clears.append(Clear(now_s, dropped_ms, self._played_ms))
        return pending

    def advance(self, now_s: float) -> None:
        """Plays up to this moment."""
        while self._queue and self._free_s <= now_s:
            head = self._queue.popleft()
            if not isinstance(head, bytes):
                self._reached.append(head)
                continue
            self.played.append(Played(self._free_s, head))
            self._frames -= 1
            self._free_s += FRAME_S
            self._played_ms += FRAME_S * 1000

    def next_marker_s(self) -> float | None:
        """When the next marker will be reached if nothing else happens; None without one."""
        if self._reached:
            return self._free_s
        for ahead, part in enumerate(self._queue):
            if not isinstance(part, bytes):
                return self._free_s + ahead * FRAME_S
        return None

    def heard_ms(self, now_s: float) -> float:
        """Everything heard up to this moment, silence that was sent included."""
        self.advance(now_s)
        return self._played_ms - max(self._free_s - now_s, 0) * 1000

    def voice_heard_ms(self, voice: int, until_s: float | None = None) -> float:
        """How many milliseconds of this voice's audio have sounded, up to a moment.

        Counted from the position that the audio tells of itself, so that silence in front of it and
        gaps in it do not count.
        """
        return max(
            (u.to_ms for u in self.utterances(until_s=until_s) if u.voice == voice), default=0.0
        )

    def first_audible_s(self, since_s: float = 0.0) -> float | None:
        """When something other than silence first sounded at or after a moment."""
        for part in self.played:
            if part.start_s >= since_s and audible(part.pcm):
                return part.start_s
        return None

    def utterances(self, gap_s: float = 0.5, until_s: float | None = None) -> list[Utterance]:
        """What was heard, voice by voice; less than two frames of a voice are not told apart."""
        found: list[Utterance] = []
        for stretch in self._decoded(until_s):
            last = found[-1] if found else None
            if last and last.voice == stretch.voice and stretch.start_s - last.end_s <= gap_s:
                found[-1] = _joined(last, stretch)
            else:
                found.append(stretch)
        return [each for each in found if each.end_s - each.start_s > 1.5 * FRAME_S]

    def _decoded(self, until_s: float | None) -> Iterator[Utterance]:
        """Each audible frame as an utterance of its own."""
        for part in self.played:
            pcm, length_s = part.pcm, len(part.pcm) / (2 * self.rate)
            if until_s is not None:
                length_s = min(length_s, until_s - part.start_s)
                pcm = pcm[: max(round(length_s * self.rate), 0) * 2]
            if length_s < _SHORTEST_S or not self._is_voice(part.pcm):
                continue
            if heard := decode(pcm, self.rate):
                half_ms = length_s * 500
                yield Utterance(
                    voice=heard.voice,
                    start_s=part.start_s,
                    end_s=part.start_s + length_s,
                    from_ms=heard.position_ms - half_ms,
                    to_ms=heard.position_ms + half_ms,
                    gaps_ms=0.0,
                )

    def _is_voice(self, pcm: bytes) -> bool:
        """Not a recording; what is shorter than a frame is not told apart."""
        return len(pcm) < FRAME_S * self.rate or is_voice(pcm, self.rate)

    def longest_silence_s(self, since_s: float, until_s: float) -> float:
        """The longest time between two moments in which the caller heard nothing."""
        longest_s, heard_s = 0.0, since_s
        for part in self.played:
            end_s = part.start_s + len(part.pcm) / (2 * self.rate)
            if end_s <= since_s or not audible(part.pcm):
                continue
            longest_s = max(longest_s, min(part.start_s, until_s) - heard_s)
            heard_s = max(heard_s, end_s)
            if part.start_s >= until_s:
                break
        return max(longest_s, until_s - heard_s)

    def _cut_last(self, now_s: float) -> float:
        """Shortens the frame that is sounding; returns the milliseconds that were not heard."""
        last = self.played[-1]
        kept = max(round((now_s - last.start_s) * self.rate), 0) * 2
        lost_ms = (len(last.pcm) - kept) / (2 * self.rate) * 1000
        self.played[-1] = Played(last.start_s, last.pcm[:kept])
        self._played_ms -= lost_ms
        return lost_ms


def _joined(first: Utterance, then: Utterance) -> Utterance:
    to_ms = then.to_ms
    while to_ms < first.to_ms - VOICE_CYCLE_MS / 2:
        to_ms += VOICE_CYCLE_MS  # the position in the audio wraps
    gap_ms = max(then.start_s - first.end_s, 0) * 1000
    return Utterance(
        first.voice, first.start_s, then.end_s, first.from_ms, to_ms, first.gaps_ms + gap_ms
    )
