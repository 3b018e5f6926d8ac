"""A phone line for `Call`: a clock that is moved by hand, and a phone that really plays.

The phone keeps its own account of what it played, made from arrival times only; the call's playback
clock is judged by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.audio import audible
from sessions_app.core.call import Call
from sessions_app.core.limits import Limits
from sessions_app.core.past import Past
from sessions_app.core.phrases import Clip, Clips, Phrase
from sessions_app.core.playback import Playback

RATE_HZ = 8000
FRAME_MS = 20.0
LEAD_MS = 1000.0
#: From our socket to the caller's ear; less than the clock allows for.
WAY_S = 0.04
#: More ticks than this in one second of a call is a busy loop.
TICKS_A_SECOND_MOST = 120


def pcm(audio_ms: float) -> bytes:
    """Loud enough to be heard."""
    return b"\x00\x10" * round(audio_ms * RATE_HZ / 1000)


def silent_pcm(audio_ms: float) -> bytes:
    return bytes(2 * round(audio_ms * RATE_HZ / 1000))


def clip(phrase: Phrase, text: str, audio_ms: float) -> Clip:
    """Prepared audio, at a rate of its own."""
    return Clip(phrase, text, 16_000, b"\x00\x10" * round(audio_ms * 16))


#: What an agent has prepared, the greeting apart.
CLIPS = (
    clip(Phrase.ONE_MOMENT, "One moment, please.", 1200),
    clip(Phrase.STILL_HERE, "I am still here.", 1000),
    clip(Phrase.APOLOGY, "I am sorry. Goodbye.", 1600),
    clip(Phrase.GOODBYE, "Goodbye.", 600),
)
GREETING_CLIP = clip(Phrase.GREETING, "Hello, how can I help you?", 1500)


class Phone:
    """Takes frames ahead of time, plays them in real time, returns marks."""

    def __init__(self, playback: Playback, *, marks: bool = True) -> None:
        self._playback = playback
        self._marks = marks
        #: From the caller's ear back to us.
        self.way_back_s = WAY_S
        self._queue: deque[tuple[str, float, bool] | tuple[str, None, bool]] = deque()
        self._played: list[tuple[str, float, float]] = []
        #: When something could be heard, from and to.
        self.sounded: list[tuple[float, float]] = []
        self._free_s = 0.0
        self._due: deque[tuple[float, str]] = deque()
        self._serial = 0
        self._since_mark_ms = 0.0
        self.holding = self._asked = False
        #: As the bridge sets them: behind the first frame of a speech, and then so often. None:
        #: only behind the last.
        self.mark_every_ms: float | None = None

    def play(self, item_id: str, audio_ms: float, *, audible: bool) -> None:
        while audio_ms > 0:
            part = min(FRAME_MS, audio_ms)
            self._queue.append((item_id, part, audible))
            audio_ms -= part

    def ask(self) -> None:
        """A mark is wanted, whether or not there is something new."""
        self._asked = True

    def finish(self, item_id: str) -> None:
        self._queue.append((item_id, None, False))

    def clear(self, now: float) -> None:
        self._queue.clear()
        self._due.clear()
        self._played = [
            (item, start, min(end, max(start, now))) for item, start, end in self._played
        ]
        self.sounded = [(start, min(end, max(start, now))) for start, end in self.sounded]
        self._free_s = min(self._free_s, now)

    def fill(self, now: float) -> list[ev.Event]:
        """Write what fits; gives what the bridge would tell the call."""
        told: list[ev.Event] = []
        if self._asked:
            self._asked = False
            self._mark(now)
        while self._queue and not self.holding and self._playback.backlog_ms(now) < LEAD_MS:
            item_id, audio_ms, sounds = self._queue.popleft()
            if audio_ms is None:
                if self._free_s > 0:
                    self._mark(now)
                told.append(ev.ItemWritten(item_id))
                continue
            if self._playback.backlog_ms(now) <= 0 and self.mark_every_ms is not None:
                self._since_mark_ms = self.mark_every_ms
            self._playback.wrote(item_id, audio_ms, now, FRAME_MS - audio_ms, audible=sounds)
            start = max(self._free_s, now + WAY_S)
            self._played.append((item_id, start, start + audio_ms / 1000))
            if sounds:
                self.sounded.append((start, start + audio_ms / 1000))
            self._free_s = start + FRAME_MS / 1000
            self._since_mark_ms += FRAME_MS
            if self.mark_every_ms is not None and self._since_mark_ms >= self.mark_every_ms:
                self._mark(now)
        return told

    def _mark(self, now: float) -> None:
        self._since_mark_ms = 0.0
        self._serial += 1
        self._playback.marked(f"m{self._serial}", now)
        if self._marks:
            self._due.append((max(self._free_s, now) + self.way_back_s, f"m{self._serial}"))

    def returned(self, now: float) -> list[ev.Event]:
        told: list[ev.Event] = []
        while self._due and self._due[0][0] <= now:
            told.append(ev.MarkPlayed(self._due.popleft()[1]))
        return told

    def next_s(self, now: float) -> float | None:
        """When the phone does something by itself."""
        times = [self._due[0][0]] if self._due else []
        if self._queue and not self.holding:
            times.append(max(now + 0.02, now + (self._playback.backlog_ms(now) - 750) / 1000))
        return min(times, default=None)

    def heard_ms(self, item_id: str, now: float) -> float:
        """What was really played of the item."""
        return sum(
            1000 * max(0.0, min(end, now) - start)
            for item, start, end in self._played
            if item == item_id
        )


@dataclass
class Done:
    """A command, and when it came."""

    at_s: float
    command: ev.Command


class Line:
    """One call on one phone. Every event goes in through `do`, which checks what comes out."""

    def __init__(
        self,
        agent: AgentProfile | None = None,
        limits: Limits | None = None,
        *,
        speaks: bool = True,
        spare_voice: bool = False,
        now: float = 1000.0,
        marks: bool = True,
        open_media: bool = True,
        ready: bool = True,
        clips: Iterable[Clip] = (),
        past: Past | None = None,
    ) -> None:
        self.now = self.began_s = now
        self.speaks = speaks
        self.call = Call(
            agent or AgentProfile(),
            limits or Limits(answer_s=8.0),
            speaks=speaks,
            spare_voice=spare_voice,
            provider_rate_hz=RATE_HZ,
            voice_rate_hz=0 if speaks and not spare_voice else RATE_HZ,
            clips=Clips(clips),
            past=past,
            now=now,
        )
        self.phone = Phone(self.call.playback, marks=marks)
        self.done: list[Done] = []
        self.caller_sends = True
        self.was_ready = False
        self._opened = False
        if open_media:
            self.do(ev.MediaOpened())
        if ready:
            self.do(ev.ProviderReady())

    # ------------------------------------------------------------------ in

    def do(self, *events: ev.Event) -> list[ev.Command]:
        """Hand in events now, carry out what is wanted; gives all of it."""
        out: list[ev.Command] = []
        for event in events:
            self._opened = self._opened or isinstance(event, ev.MediaOpened)
            self.was_ready = self.call.model.ready
            commands = self.call.handle(event, self.now)
            self.check(event, commands)
            out += commands
            for command in commands:
                self.done.append(Done(self.now, command))
                self._carry_out(command)
        if self._opened and not self.call.over:
            for told in self.phone.fill(self.now):
                out += self.do(told)
        return out

    def check(self, event: ev.Event, commands: list[ev.Command]) -> None:
        """For those who want to look at every step."""

    def _carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.Play(item_id=item_id, pcm=pcm, rate_hz=rate_hz):
                audio_ms = len(pcm) * 1000 / (rate_hz * 2)
                self.phone.play(item_id, audio_ms, audible=audible(pcm))
            case ev.FinishItem(item_id=item_id):
                self.phone.finish(item_id)
            case ev.ClearPhone():
                self.phone.clear(self.now)
            case ev.AskPhone():
                self.phone.ask()

    def wait(self, seconds: float) -> list[ev.Command]:
        """Let time pass: deadlines are ticked, the phone plays. Gives what was wanted."""
        out: list[ev.Command] = []
        until, ticks, second = self.now + seconds, 0, int(self.now)
        while not self.call.over:
            deadline = self.call.next_deadline()
            phone = self.phone.next_s(self.now) if self._opened else None
            at = min((t for t in (deadline, phone, until) if t is not None), default=until)
            self.now = min(max(self.now, at), until)
            if self.caller_sends:
                self.call.heard_caller_s = self.now
            if int(self.now) != second:
                second, ticks = int(self.now), 0
            if self._opened:
                for told in [*self.phone.returned(self.now), *self.phone.fill(self.now)]:
                    out += self.do(told)
            if deadline is not None and deadline <= self.now and not self.call.over:
                ticks += 1
                assert ticks <= TICKS_A_SECOND_MOST, f"a busy loop at {self.now}"
                out += self.do(ev.Tick())
                again = self.call.next_deadline()
                assert again is None or again > self.now, "the deadline stays in the past"
            if self.now >= until:
                break
        self.now = max(self.now, until) if not self.call.over else self.now
        return out

    # ------------------------------------------------------------------ what happens in calls

    def started(self, response_id: str, request_id: str = "") -> list[ev.Command]:
        return self.do(ev.ResponseStarted(response_id, request_id))

    def answer(
        self, response_id: str, item_id: str, text: str, audio_ms: float, request_id: str = ""
    ) -> list[ev.Command]:
        """A whole answer of the model that speaks itself, faster than real time."""
        return [
            *self.started(response_id, request_id),
            *self.do(
                ev.AgentText(response_id, item_id, text),
                ev.AgentAudio(response_id, item_id, pcm(audio_ms)),
                ev.AgentItemDone(response_id, item_id),
                ev.ResponseDone(response_id, "completed"),
            ),
        ]

    def spoken(self, clause: ev.SpeakClause, audio_ms: float) -> list[ev.Command]:
        """The voice speaks a clause that was asked for."""
        return self.do(
            ev.SpokenAudio(clause.item_id, clause.clause, pcm(audio_ms)),
            ev.ClauseSpoken(clause.item_id, clause.clause),
        )

    def caller_says(self, item_id: str, seconds: float, text: str = "") -> list[ev.Command]:
        out = self.do(ev.SpeechStarted(item_id))
        out += self.wait(seconds)
        out += self.do(ev.SpeechStopped(item_id))
        if text:
            out += self.do(ev.CallerTranscript(item_id, text, final=True))
        return out

    # ------------------------------------------------------------------ out

    def all(self, *kinds: type) -> list[Any]:
        return [done.command for done in self.done if isinstance(done.command, kinds)]

    def requests(self) -> list[ev.CreateResponse]:
        return self.all(ev.CreateResponse)

    def last_request(self) -> ev.CreateResponse:
        return self.requests()[-1]

    def end(self) -> ev.EndCall | None:
        ends = self.all(ev.EndCall)
        return ends[0] if ends else None

    def turn(self, item_id: str) -> ev.Turn:
        """The newest form of a turn."""
        return [save.turn for save in self.all(ev.SaveTurn) if save.turn.item_id == item_id][-1]

    def notes(self) -> list[str]:
        return [note.kind for note in self.all(ev.Note)]


def of(kind: type, commands: Iterable[ev.Command]) -> list[Any]:
    return [command for command in commands if isinstance(command, kind)]


def finals(commands: Iterable[ev.Command]) -> Iterator[ev.Turn]:
    for save in of(ev.SaveTurn, commands):
        if save.turn.final:
            yield save.turn


def greeted(line: Line, audio_ms: float = 1000.0) -> Line:
    """A line whose greeting has been asked for, spoken by the model, and heard."""
    line.answer("resp_g", "item_g", "Hello there", audio_ms, line.last_request().request_id)
    line.wait(audio_ms / 1000 + 0.5)
    return line


def agent(**changes: Any) -> AgentProfile:
    return replace(AgentProfile(), **changes)
