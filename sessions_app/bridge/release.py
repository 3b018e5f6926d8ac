"""Gives back what a call had opened: each thing bounded in time, told in the log, all at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

#: A peer that hangs holds nobody up for longer.
STEP_TIMEOUT_S = 1.2


@dataclass(frozen=True, slots=True)
class Step:
    """One resource: what the log says when it is closed, and whether it was opened at all."""

    done: str
    close: Callable[[], Awaitable[None]]
    was_opened: Callable[[], bool]

    async def run(self) -> None:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await self.close()


async def release(steps: list[Step]) -> None:
    """Together, so that peers which hang cost no more than one of them; told in order. No step can
    keep another from its own.
    """
    outcomes = await asyncio.gather(*(step.run() for step in steps), return_exceptions=True)
    for step, error in zip(steps, outcomes, strict=True):
        if isinstance(error, BaseException):
            logger.warning("✗ Failed: %s: %s", step.done, str(error) or "timed out")
        elif step.was_opened():
            logger.info("✓ %s", step.done)
