"""Whose turn it is to make clips, among the processes that share a disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = ".making"


@contextmanager
def turn(directory: Path) -> Iterator[bool]:
    """Whether it is ours until the end of the block; never waits.

    The kernel's lock on an open file (flock(2)) goes with its holder, however that ends. On a disk
    that takes no lock file nobody shares what is made, so everybody makes it for themselves.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield True
        return
    try:
        yield _taken(held)
    finally:
        os.close(held)


def _taken(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without such locks.
        return True
    return True
