"""What one simulated caller does, step by step, and how it ended for him."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sessions_app.sandbox.caller import Caller, Outcome
from sessions_app.sandbox.faults import Phase, Wish
from sessions_app.sandbox.samples import BY_KEY, SAMPLES

_QUESTIONS: Final = tuple(sample.key for sample in SAMPLES if not sample.tool)
#: Answered at some length, so that a fault finds something to strike into.
_LONG_ANSWERED: Final = ("table", "parking", "appointment")
_SHORT: Final = BY_KEY["yes"].text
_GOODBYE: Final = BY_KEY["goodbye"].text
_QUIET_S: Final = 0.8
#: Long enough that an apology is followed by its hang-up before the caller takes it for an answer.
_LAST_QUIET_S: Final = 1.5
_SHORT_QUIET_S: Final = 0.4
_INTO_PHASE_S: Final = 0.8
_LONGEST_S: Final = 60.0
_CROSSED_S: Final = 1.0
#: So much is heard of a greeting or an answer whose rest came after all: more than the piece before
#: the fault and "one moment" together.
_WHOLE_S: Final = {Phase.DURING_GREETING: 2.0, Phase.AGENT_SPEAKING: 3.0}
_WORDS_S: Final = 0.5


class Ending(StrEnum):
    """What a caller had of it in the end."""

    WENT_ON = "went on"
    GOODBYE = "goodbye"
    PERSON = "person"
    APOLOGY = "apology"
    CUT_OFF = "cut off"
    NOTHING = "nothing"

    @property
    def is_good(self) -> bool:
        """Whether the conversation came to the end that it was meant to have."""
        return self in (Ending.WENT_ON, Ending.GOODBYE)

    @property
    def is_courteous(self) -> bool:
        """Whether the caller was told, or led on."""
        return self not in (Ending.CUT_OFF, Ending.NOTHING)


@dataclass(frozen=True, slots=True)
class Script:
    """What each caller does, and how patient he is. A call with a fault has a script of its own:
    it asks until the fault has struck, and once more.
    """

    questions: int = 1
    """How many sample phrases are asked before the goodbye."""
    is_short: bool = False
    """One short question; the caller hangs up on the first second of the answer."""
    interrupt_every: int = 2
    """Every so many calls the caller speaks into the first answer; 0 for never."""
    goodbye_every: int = 2
    """Every so many calls the caller says goodbye and lets the agent hang up; 0 for never."""
    patience_s: float = 15.0
    """How long the caller waits for words before he hangs up."""
    silence_limit_s: float = 4.0
    """A longer silence than this, in a call without a fault, counts as one that was met."""
    fault_silence_limit_s: float = 3.0
    """The same in a call with a fault."""
    interrupt_after_s: float = 1.5
    """How long the caller listens before he interrupts."""

    def limit_s(self, wish: Wish | None) -> float:
        return self.silence_limit_s if wish is None else self.fault_silence_limit_s


#: Whether what the agent was saying is known to have been cut by the fault.
IsCut = Callable[[], Awaitable[bool]]


class Conversation:
    """One caller's part. ``run`` stops when the call is over or he gives up."""

    def __init__(
        self, call: Caller, index: int, script: Script, wish: Wish | None, is_cut: IsCut
    ) -> None:
        self._call = call
        self._index = index
        self._script = script
        self._wish = wish
        self._is_cut = is_cut
        self._heard_s = 0.0
        self._is_done = False
        self._said_goodbye = False
        self.greeted = False
        self.struck = False
        """Whether the phone's fault was struck from here."""
        self.replies_s: list[float] = []
        self.unanswered = 0

    async def run(self) -> None:
        await self._strike_in(Phase.BEFORE_GREETING)
        await self._hear_out(Phase.DURING_GREETING)
        self.greeted = self._call.first_sound_s is not None
        if not self.greeted:
            return
        if self._wish is not None:
            await self._with_fault(self._wish)
        elif self._script.is_short:
            await self._briefly()
        else:
            await self._at_leisure()

    def ending(self) -> Ending:
        """How it ended, once the call is over."""
        call = self._call
        if call.connected_to:
            return Ending.PERSON
        heard_words = bool(call.talked) or call.agent_s - self._heard_s >= _WORDS_S
        if call.outcome is Outcome.CALLER_HUNG_UP:
            # After a goodbye it is the agent's to hang up.
            good = self._is_done and not self._said_goodbye
            return Ending.WENT_ON if good else Ending.NOTHING
        if not heard_words:
            return Ending.CUT_OFF
        return Ending.GOODBYE if self._said_goodbye else Ending.APOLOGY

    # --- scripts ---

    async def _briefly(self) -> None:
        if await self._ask(_SHORT):
            await asyncio.sleep(1.0)
            self._is_done = not self._call.is_over

    async def _at_leisure(self) -> None:
        script, questions = self._script, self._rotation(_QUESTIONS)
        for number in range(script.questions):
            if self._call.is_over or self.unanswered:
                return
            if not await self._ask(next(questions)):
                continue
            if number == 0 and _every(script.interrupt_every, self._index):
                await asyncio.sleep(script.interrupt_after_s)
                if not await self._ask(next(questions)):
                    continue
            await self._hear_out(Phase.AGENT_SPEAKING)
        self._is_done = not self._call.is_over and not self.unanswered
        if self._is_done and _every(script.goodbye_every, self._index):
            await self._bid_goodbye()

    async def _with_fault(self, wish: Wish) -> None:
        questions = self._rotation(_LONG_ANSWERED)
        spoken = wish.phase in (None, Phase.CALLER_SPEAKING, Phase.AGENT_SPEAKING)
        if spoken and await self._ask(next(questions)):
            await self._hear_out(Phase.AGENT_SPEAKING)
        if self._call.is_over:
            return
        # An answer that did not come is asked for again: what counts is how it goes on.
        self.unanswered = 0
        if not await self._ask(next(questions)):
            return
        await self._listen(_LAST_QUIET_S)
        enough = self._call.agent_s - self._heard_s >= _WHOLE_S[Phase.AGENT_SPEAKING]
        self._is_done = enough and not self._call.is_over
        if not self._is_done:
            return
        ends = wish.phase is Phase.AT_HANG_UP and not wish.fault.is_of_phone
        if ends or wish.phase is Phase.TOOL_RUNNING:
            await self._bid_goodbye()
        else:
            await self._strike_in(Phase.AT_HANG_UP)

    def _rotation(self, keys: tuple[str, ...]) -> Iterator[str]:
        turn = self._index % len(keys)
        return (BY_KEY[key].text for key in itertools.cycle(keys[turn:] + keys[:turn]))

    # --- steps ---

    async def _ask(self, text: str) -> bool:
        """Says something that wants an answer; whether one began."""
        before_s, began_at = self._heard_s, time.monotonic()
        self._heard_s = self._call.agent_s
        async with asyncio.TaskGroup() as group:
            if self._is_due(Phase.CALLER_SPEAKING):
                group.create_task(self._strike_after(_INTO_PHASE_S))
            await self._call.say(text)
        if self._call.is_over:
            if time.monotonic() - began_at < _CROSSED_S:
                # He took the agent's last words for an answer, and began as the agent hung up.
                self._heard_s = before_s
            return False
        # Of what the agent said while he was being interrupted nothing is an answer.
        self._heard_s = self._call.agent_s
        said_at = time.monotonic()
        if not await self._call.agent_starts(timeout_s=self._script.patience_s):
            self.unanswered += not self._call.is_over
            return False
        self.replies_s.append(time.monotonic() - said_at)
        return True

    async def _bid_goodbye(self) -> None:
        self._said_goodbye = True
        had_struck = self.struck
        if await self._ask(_GOODBYE):
            await self._strike_in(Phase.TOOL_RUNNING)
            await self._listen(_QUIET_S)
        if self.struck and not had_struck and not self._call.is_over:
            # Who is brought back from his goodbye bids it once more.
            await self._ask(_GOODBYE)
        await self._call.ended(timeout_s=self._script.patience_s)

    async def _hear_out(self, phase: Phase) -> None:
        """Waits until the agent has said it all, the fault of this phase included."""
        script, wish = self._script, self._wish
        if self._is_due(phase) and await self._call.agent_starts(script.patience_s):
            await self._strike_after(_INTO_PHASE_S)
        may_be_cut = wish is not None and wish.cuts_speech and wish.phase in (None, phase)
        quiet_s = _SHORT_QUIET_S if script.is_short else _QUIET_S
        if may_be_cut:
            quiet_s = script.limit_s(wish) + _WORDS_S
        await self._listen(quiet_s, owed=may_be_cut)
        if may_be_cut and not self._call.is_over:
            heard_s = self._call.agent_s - self._heard_s
            owed = heard_s < _WHOLE_S[phase] and await self._is_cut()
            # The rest is owed: the silence counts until it comes, or until he speaks himself.
            if not owed or await self._listen(quiet_s, owed=True):
                self._call.my_turn()

    async def _listen(self, quiet_s: float, *, owed: bool = False) -> bool:
        patience_s = self._script.patience_s
        finished = await self._call.agent_finished(quiet_s, _LONGEST_S, patience_s)
        if finished and not owed and not self._call.is_over:
            self._call.my_turn()
        return finished

    # --- the phone's fault ---

    def _is_due(self, phase: Phase) -> bool:
        wish = self._wish
        of_phone = wish is not None and wish.fault.is_of_phone and wish.phase is phase
        return of_phone and not self.struck

    async def _strike_in(self, phase: Phase) -> None:
        if self._is_due(phase):
            self.struck = True
            await self._call.strike()

    async def _strike_after(self, seconds: float) -> None:
        self.struck = True
        await asyncio.sleep(seconds)
        await self._call.strike()


def _every(count: int, index: int) -> bool:
    return count > 0 and index % count == 0
