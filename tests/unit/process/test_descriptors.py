"""How many descriptors are left, and when a caller is turned away for it."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import resource

from sessions_app.process import (
    FDS_PER_CALL,
    RESERVED_FDS,
    Descriptors,
    fd_limit,
    open_fds,
    rss_bytes,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_they_are_counted_once_a_second() -> None:
    clock, counts = Clock(), iter([10, 60])
    descriptors = Descriptors(count=lambda: next(counts), limit=lambda: 100.0, clock=clock)
    assert [descriptors.left() for _ in range(5)] == [90.0] * 5
    clock.now += 1.0
    assert descriptors.left() == 40.0


def test_what_webhooks_and_the_database_need_is_nobodys() -> None:
    def enough(left: float, beginning: int = 0) -> bool:
        return Descriptors(count=lambda: 0, limit=lambda: left).enough(beginning)

    assert enough(RESERVED_FDS + FDS_PER_CALL)
    assert not enough(RESERVED_FDS + FDS_PER_CALL - 1)
    # Calls whose sockets are still to open count before they do.
    assert enough(RESERVED_FDS + 4 * FDS_PER_CALL, beginning=3)
    assert not enough(RESERVED_FDS + 4 * FDS_PER_CALL, beginning=4)


def test_when_none_is_left_to_look_with_none_is_left() -> None:
    def none_left() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    descriptors = Descriptors(count=none_left, limit=lambda: 1e9)
    assert descriptors.left() == 0 and not descriptors.enough()


def test_a_system_that_does_not_tell_turns_nobody_away() -> None:
    assert Descriptors(count=lambda: None, limit=lambda: 100.0).left() == math.inf
    assert Descriptors(count=lambda: 50, limit=lambda: math.inf).enough(10_000)


def test_the_figures_are_those_of_this_process() -> None:
    async def story() -> dict[str, object]:
        return Descriptors().figures()

    before = open_fds()
    assert before is not None
    pipe = os.pipe()
    try:
        assert open_fds() == before + 2
        figures = asyncio.run(story())
    finally:
        for fd in pipe:
            os.close(fd)
    assert open_fds() == before
    assert fd_limit() == float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert figures["tasks"] == 1
    assert isinstance(figures["threads"], int) and figures["threads"] >= 1
    assert figures["fds_reserved"] == RESERVED_FDS
    # At least the interpreter, at most what a machine has.
    assert 5_000_000 < (rss_bytes() or 0) < 1 << 40
