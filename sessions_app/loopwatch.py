"""Notices when the event loop stands still, and where: every caller's audio stands still with it.

The loop ticks; a thread looks whether it does. When a tick is overdue the thread takes the stack on
which the loop is stuck, while it is stuck, and tells the log once the loop turns again. A process
that was itself stopped (a signal, a laptop's lid, a starved machine) is told apart: then the
watching thread slept too long as well, and nobody's code is to blame.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

logger = logging.getLogger(__name__)

#: The loop ticks and the thread looks this often.
EVERY_S = 0.05
#: Standing still for longer is told.
STALL_S = 0.2
#: A process that stood still for so long says so.
PAUSE_TOLD_S = 1.0
#: A stall that lasts so long is told before it is over.
LONG_STALL_S = 5.0
#: The wall clock has been set when it differs by so much from what time has passed.
LEAP_S = 2.0
#: Callers of the stuck function that are named.
CHAIN_MOST = 4

_ROOT = Path(__file__).resolve().parents[1]


class LoopWatch:
    """Watches the loop on which it is entered, until it is left."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._cpu_clock, self._wall_clock = clock, cpu_clock, wall_clock
        self.stalls = self.pauses = self.clock_leaps = 0
        self.worst_ms = self.lag_ms = 0.0
        self._ticked_s = self._looked_s = clock()
        self._looked_cpu_s = cpu_clock()
        self._offset_s = wall_clock() - clock()
        #: Ticks that came late: the one before, and when they came. Told by the thread.
        self._late: deque[tuple[float, float]] = deque(maxlen=100)
        #: From when to when the whole process last stood still.
        self._pause = (self._ticked_s, self._ticked_s)
        #: The tick that the loop is stuck behind, and where it was found.
        self._stuck_since_s: float | None = None
        self._where = ""
        self._told_long = False
        self._loop_thread = 0
        self._handle: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def figures(self) -> dict[str, object]:
        """For health."""
        return {
            "stalls": self.stalls,
            "worst_ms": round(self.worst_ms),
            "lag_ms": round(self.lag_ms, 1),
            "pauses": self.pauses,
            "clock_leaps": self.clock_leaps,
        }

    # ------------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        self._stop.clear()
        self._loop_thread = threading.get_ident()
        self._ticked_s = self._looked_s = self._clock()
        self._looked_cpu_s = self._cpu_clock()
        self._schedule(asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._handle is not None:
            self._handle.cancel()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_later(EVERY_S, self._on_tick, loop)

    def _on_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tick()
        self._schedule(loop)

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.look()

    # ------------------------------------------------------------------ what it notices

    def tick(self) -> None:
        """On the loop: it turns."""
        now, before_s = self._clock(), self._ticked_s
        self.lag_ms = max(0.0, now - before_s - EVERY_S) * 1000
        if now - before_s >= STALL_S:
            self._late.append((before_s, now))
        self._ticked_s = now

    def look(self) -> None:
        """In the thread: whether it does."""
        now, cpu_s = self._clock(), self._cpu_clock()
        self._look_at_myself(now, cpu_s)
        self._look_at_the_clock(now)
        while self._late:
            self._tell(*self._late.popleft())
        ticked_s = self._ticked_s
        stands_s = self._stood_s(ticked_s, now)
        if stands_s < STALL_S:
            return
        if self._stuck_since_s != ticked_s:
            self._stuck_since_s, self._told_long = ticked_s, False
            self._where = describe(sys._current_frames().get(self._loop_thread))
        elif stands_s >= LONG_STALL_S and not self._told_long:
            self._told_long = True
            logger.error("the event loop stands still, %.0f s so far, at %s", stands_s, self._where)

    def _look_at_myself(self, now: float, cpu_s: float) -> None:
        """Whether the whole process stood still since the last look."""
        before_s, slept_s = self._looked_s, now - self._looked_s
        worked_s = cpu_s - self._looked_cpu_s
        self._looked_s, self._looked_cpu_s = now, cpu_s
        # Whoever holds the GIL keeps this thread waiting too, but then the process has worked.
        if slept_s < 2 * EVERY_S or worked_s >= slept_s / 2:
            return
        self._pause = (before_s, now)
        if slept_s >= EVERY_S + STALL_S:
            self.pauses += 1
        if slept_s >= PAUSE_TOLD_S:
            logger.warning("the process stood still for %.1f s: stopped, or starved", slept_s)

    def _stood_s(self, from_s: float, to_s: float) -> float:
        """How long the loop stood still between these, the process's own pause left out."""
        paused_s = min(to_s, self._pause[1]) - max(from_s, self._pause[0])
        return to_s - from_s - max(0.0, paused_s)

    def _tell(self, from_s: float, to_s: float) -> None:
        """The loop turns again, after a while that may have been too long."""
        stood_ms = self._stood_s(from_s, to_s) * 1000
        if stood_ms < STALL_S * 1000:
            return
        self.stalls += 1
        self.worst_ms = max(self.worst_ms, stood_ms)
        seen = self._stuck_since_s == from_s
        where = self._where if seen else "a place that let no other thread look"
        logger.warning("the event loop stood still for %.0f ms at %s", stood_ms, where)

    def _look_at_the_clock(self, now: float) -> None:
        """Tickets and signatures are judged by the wall clock, and somebody may set it."""
        offset_s = self._wall_clock() - now
        leapt_s = offset_s - self._offset_s
        if abs(leapt_s) >= LEAP_S:
            self.clock_leaps += 1
            logger.warning("the wall clock leapt by %+.1f s: webhooks may be refused", leapt_s)
        # What a clock is slewed by is no leap.
        self._offset_s = offset_s


def describe(frame: FrameType | None) -> str:
    """`file:line in function (called by a < b)`, innermost first, without reading any file."""
    if frame is None:
        return "an unknown place"
    chain: list[str] = []
    outer = frame.f_back
    while outer is not None and len(chain) < CHAIN_MOST:
        ours = _ours(outer.f_code.co_filename)
        chain.append(_place(outer) if ours else outer.f_code.co_qualname)
        outer = outer.f_back
    return _place(frame) + (f" (called by {' < '.join(chain)})" if chain else "")


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{_short(code.co_filename)}:{frame.f_lineno} in {code.co_qualname}"


def _ours(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(_ROOT) and ".venv" not in path.relative_to(_ROOT).parts


def _short(filename: str) -> str:
    """The file from this project's root, or from where Python looks for packages."""
    path = Path(filename)
    if _ours(filename):
        return str(path.relative_to(_ROOT))
    for root in map(Path, filter(None, sys.path)):
        if root != _ROOT and path.is_relative_to(root):
            return str(path.relative_to(root))
    return path.name
