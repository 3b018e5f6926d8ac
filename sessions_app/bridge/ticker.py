"""Hands a call a `Tick` whenever one is due.

What a call decides moves its next deadline many times a second, and mostly away. So nobody is woken
for that: the timer that is set may go off for nothing, and only a deadline that has come nearer
sets another.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context, copy_context

#: Who is so late has not been late: the process stood still, suspended or starved. Less than what
#: would make a healthy phone look frozen.
STOOD_STILL_S = 1.5
#: Then what came meanwhile is read for so long before anybody is judged by the clock.
CATCH_UP_S = 1.0
#: Event loops may let a timer go off up to a millisecond early.
EARLY_S = 0.001


class Ticker:
    """Owned by a call's session: `run` is one of its tasks."""

    def __init__(
        self,
        next_deadline: Callable[[], float | None],
        tick: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        """`next_deadline`: in seconds of `clock`, None while there is none. `tick` is told by how
        many seconds it is late.
        """
        self._next_deadline, self._tick, self._clock = next_deadline, tick, clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer is to go off; infinite: there is none.
        self._set_s = math.inf
        self._failed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Until cancelled. Raises what `tick` raised."""
        # Whoever moves the deadline, a tick belongs to this call.
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()
        self._failed = failed = self._loop.create_future()
        try:
            self.look_again()
            await failed
        finally:
            self._loop = None
            for handle in (self._soon, self._timer):
                if handle is not None:
                    handle.cancel()
            if failed.done() and not failed.cancelled():
                failed.exception()  # whoever cancels this does not want to know

    def look_again(self) -> None:
        """The next deadline may have moved."""
        if self._soon is None and self._loop is not None:
            self._soon = self._loop.call_soon(self._look, context=self._context)

    def _look(self) -> None:
        self._soon = None
        now = self._clock()
        # A timer that should have gone off will, and knows how late it is.
        if self._set_s > now:
            deadline = self._next_deadline()
            if deadline is not None and deadline < self._set_s:
                self._set(max(deadline, now), now)

    def _set(self, at_s: float, now: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._set_s = at_s
        self._timer = self._loop.call_later(at_s - now, self._due, context=self._context)

    def _due(self) -> None:
        assert self._loop is not None
        now, set_s = self._clock(), self._set_s
        self._set_s, self._timer = math.inf, None
        late_s = max(0.0, now - set_s)
        if late_s >= STOOD_STILL_S:
            # Until it has caught up, no other deadline counts.
            self._set_s = -math.inf
            self._timer = self._loop.call_later(
                CATCH_UP_S, self._hand_in, late_s, context=self._context
            )
            return
        deadline = self._next_deadline()
        if deadline is None:
            return
        if deadline > now:
            self._set(max(deadline, now + EARLY_S), now)
        else:
            self._hand_in(late_s)

    def _hand_in(self, late_s: float) -> None:
        self._set_s, self._timer = math.inf, None
        try:
            self._tick(late_s)
        except Exception as error:
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)
        else:
            self.look_again()
