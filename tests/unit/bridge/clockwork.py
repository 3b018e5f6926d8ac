"""An event loop whose time is moved by waiting: an hour of a call passes in a moment.

When nothing is ready, the next timer's time has come. When there is no timer either, nothing would
ever happen again, and that is an error. Not for code that uses threads.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_monotonic = time.monotonic


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for something that cannot happen")
            self.now += max(0.0, timeout)
        return ready


class ClockworkLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._hands = _Selector()
        super().__init__(self._hands)

    def time(self) -> float:
        return self._hands.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, on a loop of this kind."""
    with asyncio.Runner(loop_factory=ClockworkLoop) as runner:
        return runner.run(story)


def now() -> float:
    """The story's time. In the place of `time.monotonic` it is asked by other threads' loops too,
    whose own clock it is: those get the real one.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _monotonic()
    return loop.time() if isinstance(loop, ClockworkLoop) else _monotonic()
