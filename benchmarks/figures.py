"""What is noted while calls go on, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.model import Conversation
from benchmarks.phones import Phone

#: The numbers of frames come again after a second: what is later than this cannot be told.
LATEST_S = 0.9


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many (0 to 1) of them do not exceed; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(slots=True)
class Noted:
    """Delays in seconds, of all calls together, since the last `begin`."""

    #: A caller's frame, from the phone's send to the model's receipt.
    to_model_s: list[float] = field(default_factory=list)
    #: From the model's first delta of an answer to the phone's first sound of it.
    to_phone_s: list[float] = field(default_factory=list)
    #: From `speech_started` to the phone's `clear`.
    clear_s: list[float] = field(default_factory=list)
    #: From the media socket's opening to the first sound.
    greeting_s: list[float] = field(default_factory=list)
    #: How late the load itself was with its frames.
    load_late_s: list[float] = field(default_factory=list)
    #: Frames that came too late for anybody to say how late.
    very_late: int = 0

    def begin(self) -> None:
        """What is measured from here on is what counts; greetings are of the calls' beginning."""
        for values in (self.to_model_s, self.to_phone_s, self.clear_s, self.load_late_s):
            values.clear()
        self.very_late = 0

    def join(self, phone: Phone, conversation: Conversation) -> None:
        """Phone and model of one call, once they are known to be."""
        phone.known = True

        def stamps(numbers: list[int], now: float) -> None:
            for number in numbers:
                sent_s = phone.sent_s[number]
                if sent_s and now - sent_s < LATEST_S:
                    self.to_model_s.append(now - sent_s)
                elif sent_s:
                    self.very_late += 1

        def first_delta(now: float) -> None:
            if phone.on_sound is None:  # otherwise it is the greeting that is waited for
                phone.on_sound = lambda heard_s: self.to_phone_s.append(heard_s - now)

        def speech_started(now: float, speaking: bool) -> None:
            if speaking:
                phone.on_clear = lambda cleared_s: self._cleared(phone, cleared_s - now)

        conversation.on_stamps = stamps
        conversation.on_first_delta = first_delta
        conversation.on_speech_started = speech_started

    def _cleared(self, phone: Phone, delay_s: float) -> None:
        self.clear_s.append(delay_s)
        phone.on_clear = lambda now: None


@dataclass(frozen=True, slots=True)
class Rung:
    """One system with so many calls; times in milliseconds."""

    system: str
    calls: int
    window_s: float
    #: Of its process, for each second of each call.
    cpu_ms_per_call_s: float
    #: Of its core.
    core_share: float
    to_model_ms: tuple[float, float]
    to_phone_ms: tuple[float, float]
    clear_ms: tuple[float, float]
    greeting_ms: tuple[float, float]
    #: Times that a phone's queue was dry within an answer, and interruptions seen.
    dry: int
    clears: int
    #: Frames that came more than 0.9 s late; the delays leave them out.
    very_late: int
    #: Resident memory of one call, over the idle process.
    kb_per_call: float
    load_late_ms: float
    load_share: float
    problems: tuple[str, ...] = ()

    @property
    def saturated(self) -> bool:
        """It could not keep up, so its other figures say little."""
        late = self.very_late > 0 or self.to_model_ms[1] >= 500
        return late or self.core_share > 0.97


def both_ms(values: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile, seconds in, milliseconds out."""
    return percentile(values, 0.5) * 1000, percentile(values, 0.99) * 1000
