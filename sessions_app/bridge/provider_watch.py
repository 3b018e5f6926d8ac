"""Knows whether the model's service is down, and finds out by itself when it is back."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from sessions_app.core.breaker import Breaker
from sessions_app.core.errors import CallError

logger = logging.getLogger(__name__)

#: A look, and the release of what it opened.
LOOK_TIMEOUT_S = 12.0

#: Has the model answer once. Raises CallError.
Look = Callable[[], Awaitable[None]]


class ProviderWatch:
    """How the model fares. No caller is spent to find out that it is back."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
    ) -> None:
        #: What was wrong the last time; empty: nothing.
        self.trouble = ""
        self._breaker = Breaker()
        self._went_down = asyncio.Event()
        self._clock = clock
        self._sleep = sleep
        self._rand = rand

    @property
    def down(self) -> bool:
        """No call that begins now would be answered by the model."""
        return self._breaker.down

    def fares(self, call: str, trouble: str, *, answered: bool = True) -> None:
        """A call was answered by the model (""), or at least let in, or neither for this reason.
        One that is down is down until it answers.
        """
        if answered or not self.down:
            self.trouble = trouble
        if not trouble:
            if answered:
                self._up()
        elif self._breaker.failed(call, self._clock()):
            self._went_down.set()
            logger.error("the model's service is down, callers are led elsewhere: %s", trouble)

    def _up(self) -> None:
        if self._breaker.succeeded():
            self._went_down.clear()
            logger.info("the model's service is back, calls are taken again")

    async def run(self, look: Look) -> None:
        """Look after a service that is down until it answers; until cancelled."""
        while True:
            await self._went_down.wait()
            await self._sleep(self._breaker.pause_s(self._rand()))
            if not self.down:
                continue
            try:
                self.trouble = await self._look(look)
            except Exception as fault:
                # Such as an unusable setting: the next look may find it mended.
                logger.exception("a look at the model's service failed")
                self.trouble = f"{type(fault).__name__}: {fault}"
            if not self.trouble:
                self._up()

    async def _look(self, look: Look) -> str:
        """What was wrong; empty for nothing."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await look()
        except TimeoutError:
            return f"no answer in {LOOK_TIMEOUT_S:g} s"
        except CallError as error:
            return str(error) or "refused"
        return ""
