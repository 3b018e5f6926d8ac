"""An event loop that stands still is told, once, with where; a process that stood still is not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from sessions_app import loopwatch
from sessions_app.loopwatch import LoopWatch, describe


class Told(logging.Handler):
    """The watch's lines, and an event for the first that holds a text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.stall = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if "the event loop" in self.lines[-1]:
            self.stall.set()

    @property
    def stalls(self) -> list[str]:
        return [line for line in self.lines if "the event loop" in line]


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    loopwatch.logger.addHandler(handler)
    yield handler
    loopwatch.logger.removeHandler(handler)


class Time:
    """Clocks that a test moves: what passes, what is worked, what the wall shows."""

    def __init__(self) -> None:
        self.now = self.cpu = 100.0
        self.wall = 1_700_000_000.0

    def passes(self, seconds: float, *, worked: float = 0.0) -> None:
        self.now += seconds
        self.wall += seconds
        self.cpu += worked

    def watch(self) -> LoopWatch:
        watch = LoopWatch(
            clock=lambda: self.now, cpu_clock=lambda: self.cpu, wall_clock=lambda: self.wall
        )
        watch._loop_thread = threading.get_ident()
        return watch


def test_a_loop_that_is_blocked_is_told_with_where_while_it_is_stuck(told: Told) -> None:
    seen = threading.Event()

    def block_the_loop() -> None:
        # Until the thread has seen it, however fast this machine is.
        seen.wait(10)

    def describe_and_let_go(frame: FrameType | None) -> str:
        where = describe(frame)
        seen.set()
        return where

    async def story(watch: LoopWatch) -> None:
        with watch:
            await asyncio.sleep(0.06)
            block_the_loop()
            await asyncio.to_thread(told.stall.wait, 10)

    watch = LoopWatch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loopwatch, "describe", describe_and_let_go)
        asyncio.run(story(watch))
    line = told.stalls[0]
    assert line.startswith("the event loop stood still for ")
    assert "tests/unit/process/test_loopwatch.py:" in line and ".block_the_loop" in line
    assert watch.stalls >= 1 and watch.worst_ms >= 200
    assert not [thread for thread in threading.enumerate() if thread.name == "loop-watch"]


def test_one_stall_is_told_once_and_a_long_one_before_it_is_over(told: Told) -> None:
    clock = Time()
    watch = clock.watch()
    for _ in range(8):
        clock.passes(0.05)
        watch.look()
    assert told.stalls == [] and watch.stalls == 0
    watch.tick()
    for _ in range(3):
        clock.passes(0.05)
        watch.look()
        watch.tick()
    assert len(told.stalls) == 1 and "400 ms" in told.stalls[0]
    assert (watch.stalls, round(watch.worst_ms)) == (1, 400)
    for _ in range(140):
        clock.passes(0.05)
        watch.look()
    assert len(told.stalls) == 2 and "so far" in told.stalls[1]
    watch.tick()
    clock.passes(0.05)
    watch.look()
    assert len(told.stalls) == 3 and watch.stalls == 2


def test_a_loop_that_turns_is_not_told(told: Told) -> None:
    clock = Time()
    watch = clock.watch()
    for _ in range(100):
        clock.passes(0.05)
        watch.tick()
        clock.passes(0.1)
        watch.look()
    assert told.lines == [] and watch.figures()["stalls"] == 0


@pytest.mark.parametrize("loop_first", [True, False])
def test_a_process_that_was_stopped_blames_nobody_and_sees_the_next_stall(
    told: Told, loop_first: bool
) -> None:
    clock = Time()
    watch = clock.watch()
    watch.tick()
    clock.passes(60.0)
    for step in (watch.tick, watch.look) if loop_first else (watch.look, watch.tick):
        step()
    clock.passes(0.05)
    watch.look()
    watch.tick()
    assert told.stalls == [] and watch.stalls == 0
    assert watch.pauses == 1 and "stood still for 60.0 s" in told.lines[0]
    for _ in range(6):
        clock.passes(0.05)
        watch.look()
    watch.tick()
    clock.passes(0.05)
    watch.look()
    assert watch.stalls == 1 and "300 ms" in told.stalls[0]


def test_a_pause_within_a_stall_hides_it_not(told: Told) -> None:
    clock = Time()
    watch = clock.watch()
    for _ in range(5):
        clock.passes(0.05)
        watch.look()
    clock.passes(30.0)
    watch.look()
    for _ in range(5):
        clock.passes(0.05)
        watch.look()
    watch.tick()
    clock.passes(0.05)
    watch.look()
    assert watch.stalls == 1 and "500 ms" in told.stalls[0]


def test_who_keeps_every_thread_from_running_is_told_too(told: Told) -> None:
    """A call into C that holds the interpreter's lock: the thread slept, the process worked."""
    clock = Time()
    watch = clock.watch()
    watch.tick()
    clock.passes(0.8, worked=0.8)
    watch.tick()
    watch.look()
    assert watch.stalls == 1 and watch.pauses == 0
    assert "800 ms" in told.stalls[0]


def test_a_wall_clock_that_is_set_is_told_and_one_that_is_slewed_is_not(told: Told) -> None:
    clock = Time()
    watch = clock.watch()
    for _ in range(100):
        clock.passes(0.05)
        clock.wall += 0.1
        watch.tick()
        watch.look()
    assert told.lines == []
    for leap_s in (3600.0, -3600.0):
        clock.wall += leap_s
        watch.look()
    assert watch.figures()["clock_leaps"] == 2
    assert "+3600" in told.lines[0] and "-3600" in told.lines[1]


def test_a_place_is_named_with_who_called_it() -> None:
    found: list[str] = []

    def inner() -> None:
        import sys

        found.append(describe(sys._getframe()))

    def outer() -> None:
        inner()

    outer()
    assert found[0].startswith("tests/unit/process/test_loopwatch.py:")
    assert ".inner (called by tests/unit/process/test_loopwatch.py:" in found[0]
    assert ".outer < " in found[0]
    assert describe(None) == "an unknown place"


def test_leaving_ends_the_thread_and_the_ticks() -> None:
    async def story() -> None:
        with LoopWatch() as watch:
            assert watch._thread is not None and watch._thread.is_alive()
        assert not watch._thread.is_alive()
        assert watch._handle is not None and watch._handle.cancelled()

    began_s = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - began_s < 30
