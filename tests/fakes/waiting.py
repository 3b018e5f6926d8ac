"""Waiting for something to become true, bounded in time, with a clear error if it never does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NeverHappenedError(AssertionError):
    """What was awaited did not come true in time."""


async def eventually(
    what: str, probe: Callable[[], T], timeout_s: float = 5.0, *, every_s: float = 0.005
) -> T:
    """The first truthy value of `probe`, asked every `every_s` for at most `timeout_s`.

    `what` completes the sentence "waited 5.0 s for …" of the error.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise NeverHappenedError(f"waited {timeout_s} s for {what}")
        await asyncio.sleep(every_s)
