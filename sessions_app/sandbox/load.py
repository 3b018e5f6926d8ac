"""Many simulated calls against a running server: a short conversation each, and what they met.

The engine behind ``manage.py simulate_calls``; it knows nothing of the server but its address.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sessions_app.sandbox.caller import Caller, Outcome
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.samples import BY_KEY, SAMPLES

_BROKEN: Final = frozenset(
    {Outcome.BROKEN, Outcome.FAILED, Outcome.NOT_ANSWERED, Outcome.DROPPED, Outcome.UNDECIDED}
)
_QUESTIONS: Final = tuple(sample.key for sample in SAMPLES if not sample.tool)
_GOODBYE: Final = BY_KEY["goodbye"].text
_KEPT_ERRORS: Final = 5


@dataclass(frozen=True, slots=True)
class Target:
    """The server under load, and the account its webhooks are signed with."""

    base_url: str
    signature_secret: str
    api_key: str
    application_id: str
    called: str = "442079460000"
    control_url: str | None = None
    """``Sandbox.control_url`` of the sandbox that the server's REST goes to."""


@dataclass(frozen=True, slots=True)
class Script:
    """What each caller does, and how patient he is."""

    questions: int = 1
    """How many sample phrases are asked before the goodbye."""
    interrupt_every: int = 2
    """Every so many calls the caller speaks into the first answer; 0 for never."""
    goodbye_every: int = 2
    """Every so many calls the caller says goodbye and lets the agent hang up; 0 for never."""
    patience_s: float = 15.0
    """How long the caller waits for words before he hangs up."""
    silence_limit_s: float = 6.0
    """A longer silence than this counts as one that was met."""
    interrupt_after_s: float = 1.5
    """How long the caller listens before he interrupts."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one caller went through. Times are seconds."""

    index: int
    uuid: str
    fault: Fault | None
    outcome: Outcome
    greeted: bool
    replies_s: tuple[float, ...]
    """From the end of each question to the first sound of its answer."""
    unanswered: int
    """Questions after which nothing was heard."""
    first_sound_s: float | None
    longest_silence_s: float
    met_silence: bool
    broken: bool
    clears: int
    frames_received: int
    talked: tuple[str, ...]
    duration_s: float
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle, the bad end and the worst of some times in seconds; ``None`` for none."""

    p50: float | None
    p95: float | None
    worst: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of ``values`` (nearest rank)."""
        ranked = sorted(values)
        if not ranked:
            return cls(None, None, None)
        last = len(ranked) - 1
        return cls(ranked[last // 2], ranked[min(last, int(len(ranked) * 0.95))], ranked[last])


@dataclass(frozen=True, slots=True)
class Summary:
    """All calls of one run."""

    calls: int
    greeted: int
    met_silence: int
    broken: int
    unanswered: int
    first_sound_s: Spread
    reply_s: Spread
    longest_silence_s: float
    outcomes: dict[Outcome, int]
    duration_s: float

    @property
    def is_good(self) -> bool:
        """Whether no caller met silence and nothing broke."""
        return self.met_silence == 0 and self.broken == 0


ProgressHook = Callable[[CallResult], None]


async def run_calls(
    target: Target,
    *,
    calls: int,
    at_once: int,
    faults: Sequence[Fault | None] = (None,),
    script: Script | None = None,
    start_every_s: float = 0.05,
    on_result: ProgressHook | None = None,
) -> tuple[list[CallResult], Summary]:
    """Makes ``calls`` calls, at most ``at_once`` at a time, the ``faults`` in rotation.

    A new call begins at the earliest ``start_every_s`` after the one before. ``on_result`` is
    called as each call ends. Returns the results in order of beginning, and their summary.
    """
    if calls < 1 or at_once < 1 or not faults:
        raise ValueError(f"calls={calls}, at_once={at_once}: wanted 1 or more, and faults")
    script = script or Script()
    began = time.monotonic()
    indices = iter(range(calls))
    results: list[CallResult] = []
    gate = _Gate(start_every_s)

    async def worker() -> None:
        for index in indices:
            await gate.wait()
            result = await _one_call(target, index, faults[index % len(faults)], script)
            results.append(result)
            if on_result is not None:
                on_result(result)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, calls)):
            group.create_task(worker())
    results.sort(key=lambda result: result.index)
    return results, summarise(results, time.monotonic() - began)


def summarise(results: Sequence[CallResult], duration_s: float) -> Summary:
    """Counts and spreads of ``results``."""
    outcomes: dict[Outcome, int] = {}
    for result in results:
        outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
    first = [result.first_sound_s for result in results if result.first_sound_s is not None]
    return Summary(
        calls=len(results),
        greeted=sum(result.greeted for result in results),
        met_silence=sum(result.met_silence for result in results),
        broken=sum(result.broken for result in results),
        unanswered=sum(result.unanswered for result in results),
        first_sound_s=Spread.of(first),
        reply_s=Spread.of([reply for result in results for reply in result.replies_s]),
        longest_silence_s=max((result.longest_silence_s for result in results), default=0.0),
        outcomes=outcomes,
        duration_s=duration_s,
    )


class _Gate:
    """Lets one through every so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._every_s
        await asyncio.sleep(at - now)


class _Conversation:
    """What one caller does, step by step; it stops when the call is over."""

    def __init__(self, call: Caller, index: int, script: Script) -> None:
        self._call = call
        self._index = index
        self._script = script
        self._questions = self._rotation()
        self.greeted = False
        self.replies_s: list[float] = []
        self.unanswered = 0

    def _rotation(self) -> Iterator[str]:
        turn = self._index % len(_QUESTIONS)
        keys = itertools.cycle(_QUESTIONS[turn:] + _QUESTIONS[:turn])
        return (BY_KEY[key].text for key in keys)

    async def run(self) -> None:
        script = self._script
        await self._call.agent_finished(timeout_s=script.patience_s)
        self.greeted = self._call.first_sound_s is not None
        for number in range(script.questions):
            if self._call.is_over or self.unanswered:
                return
            interrupts = number == 0 and _every(script.interrupt_every, self._index)
            await self._ask(interrupts)
        if not self._call.is_over and _every(script.goodbye_every, self._index):
            await self._call.say(_GOODBYE)
            await self._call.ended(timeout_s=script.patience_s)

    async def _ask(self, interrupts: bool) -> None:
        await self._call.say(next(self._questions))
        said_at = time.monotonic()
        if not await self._call.agent_starts(timeout_s=self._script.patience_s):
            self.unanswered += not self._call.is_over
            return
        self.replies_s.append(time.monotonic() - said_at)
        if interrupts:
            await asyncio.sleep(self._script.interrupt_after_s)
            await self._ask(interrupts=False)
        else:
            await self._call.agent_finished(timeout_s=60.0)


def _every(count: int, index: int) -> bool:
    return count > 0 and index % count == 0


async def _one_call(target: Target, index: int, fault: Fault | None, script: Script) -> CallResult:
    call = Caller(
        target.base_url,
        signature_secret=target.signature_secret,
        api_key=target.api_key,
        application_id=target.application_id,
        caller=f"4477009{index % 100000:05d}",
        called=target.called,
        fault=fault,
        control_url=target.control_url,
        keep_heard_s=0.0,
    )
    began = time.monotonic()
    errors: list[str] = []
    conversation = _Conversation(call, index, script)
    try:
        async with call:
            await conversation.run()
            await call.hang_up()
    except Exception as error:
        # One caller's trouble is a result, not the end of the run.
        errors.append(f"{type(error).__name__}: {error}"[:300])
    errors += call.errors
    silence_s = call.longest_silence_s
    return CallResult(
        index=index,
        uuid=call.uuid,
        fault=fault,
        outcome=call.outcome,
        greeted=conversation.greeted,
        replies_s=tuple(conversation.replies_s),
        unanswered=conversation.unanswered,
        first_sound_s=call.first_sound_s,
        longest_silence_s=silence_s,
        met_silence=silence_s > script.silence_limit_s,
        broken=call.outcome in _BROKEN,
        clears=call.clears,
        frames_received=call.frames_received,
        talked=tuple(call.talked),
        duration_s=time.monotonic() - began,
        errors=tuple(errors[:_KEPT_ERRORS]),
    )
