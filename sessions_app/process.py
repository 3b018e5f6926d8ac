"""What this process uses of its machine, and how many descriptors are left for callers."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

#: What webhooks, the database, a page or a log file may need at any moment: never a call's.
RESERVED_FDS = 48
#: A call's own: the phone's socket, the model's, the voice's two, a hang-up by REST.
FDS_PER_CALL = 5
COUNTED_FOR_S = 1.0
#: Enough for thousands of calls.
FDS_WANTED = 65_536

_FDS = ("/proc/self/fd", "/dev/fd")


def open_fds() -> int | None:
    """Open descriptors; None where the system does not tell. Raises OSError when none is left to
    look with.
    """
    for directory in _FDS:
        try:
            # Without the one that the listing itself uses.
            return len(os.listdir(directory)) - 1
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


def fd_limit() -> float:
    """How many descriptors the process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)


def raise_fd_limit() -> None:
    """As many as the administrator allows, within reason; the usual soft limit is very low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FDS_WANTED if hard == resource.RLIM_INFINITY else min(hard, FDS_WANTED)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        # Some systems name a hard limit that they do not grant; the soft one stays.
        return


def spare_collector() -> None:
    """Keep Python's garbage collector from holding up the calls' audio.

    What there is now (modules, models, routes) lives as long as the process: it is not looked
    through again, while no audio moves. The rest is looked through a little less
    often than Python would by itself, since what is looked through is mostly the live calls; not
    much less, since servers and libraries leave cycles (a call of ours leaves none), which hold
    some memory until they are found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 5)


def give_back_memory() -> None:
    """Let the system have what calls have freed.

    The C library keeps it, in pieces between what is still used, so a process looks as if it held
    something of every call it ever had: 3 kB of each were measured, none of them in use. It takes a
    few milliseconds, in which memory can be had by nobody. Nothing where the library does not offer
    it (it is glibc's).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def rss_bytes() -> int | None:
    """Memory that is resident now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Descriptors:
    """Whether there are enough for one more call; counted at most once a second."""

    def __init__(
        self,
        *,
        count: Callable[[], int | None] = open_fds,
        limit: Callable[[], float] = fd_limit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count, self._limit, self._clock = count, limit, clock
        self._counted_s = -math.inf
        self._left = math.inf

    def left(self) -> float:
        """How many more may be opened; infinite where that is not known."""
        now = self._clock()
        if now - self._counted_s >= COUNTED_FOR_S:
            self._counted_s = now
            limit = self._limit()
            try:
                used = self._count()
            except OSError:
                self._left = 0.0
            else:
                self._left = math.inf if used is None else max(0.0, limit - used)
        return self._left

    def enough(self, beginning: int = 0) -> bool:
        """Whether another call can be taken in, beside so many whose sockets are still to open."""
        return self.left() - FDS_PER_CALL * (beginning + 1) >= RESERVED_FDS

    def figures(self) -> dict[str, object]:
        """For health, on the event loop."""
        left, limit = self.left(), self._limit()
        try:
            fds = self._count()
        except OSError:
            fds = None
        return {
            "rss_bytes": rss_bytes(),
            "fds": fds,
            "fds_left": None if math.isinf(left) else int(left),
            "fds_limit": None if math.isinf(limit) else int(limit),
            "fds_reserved": RESERVED_FDS,
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
        }
