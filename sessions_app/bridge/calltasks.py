"""A call's one task group."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class CallTasks(asyncio.TaskGroup):
    """A task group that can be told to end, as Python's own can from 3.15 on.

    Parts of a call that need tasks are given this one. A group within a group would do, too, but a
    `TaskGroup` that is cancelled keeps itself alive, with all that its caller knows, until Python's
    garbage collector finds it (https://github.com/python/cpython/issues/124958).
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[asyncio.Task[Any]] = set()
        self._cancelled = False

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._cancelled:
            task.cancel()
        return task

    def cancel(self) -> None:
        """Cancel whatever runs in it, or is still to; leaving it waits for them."""
        self._cancelled = True
        for task in list(self._running):
            task.cancel()
