"""Runs a few programs together: one that dies ends all, a signal ends them one after another."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, sleep
from types import FrameType, TracebackType
from typing import Any, Final, Self

_POLL_S: Final = 0.1
_SAME_WISH_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, how to call it, and how long it may take to end when it is asked to."""

    name: str
    command: Sequence[str]
    patience_s: float


class Wishes:
    """Signals that ask for the end, from `__enter__` to `__exit__`, each counted once.

    One that follows within a second is the same wish: make passes on what the terminal has already
    sent to everybody.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last_s = float("-inf")
        self._former: dict[signal.Signals, Any] = {}

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if monotonic() - self._last_s > _SAME_WISH_S:
            self.count += 1
        self._last_s = monotonic()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._former[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)


def run_together(programs: Sequence[Program], cwd: str | os.PathLike[str]) -> int:
    """Runs them until a signal, or until one ends by itself; then ends all, the first one first.

    Returns 0 when it was told to end, and 1 when one ended by itself or had to be killed.
    """
    with Wishes() as wishes, ExitStack() as stack:
        running: list[tuple[Program, subprocess.Popen[bytes]]] = []
        for program in programs:
            child = _start(program, cwd)
            stack.callback(_kill, child)
            running.append((program, child))
        clean = _watch(running, wishes)
        for program, child in running:
            clean = _end(program, child, wishes) and clean
        return 0 if clean else 1


def _start(program: Program, cwd: str | os.PathLike[str]) -> subprocess.Popen[bytes]:
    # A process group of its own: Ctrl-C reaches only us, and we ask in the right order.
    return subprocess.Popen(
        program.command, cwd=cwd, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_outlive_not
    )


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _outlive_not() -> None:
    """In the child, where the system can: SIGTERM when its parent dies, however that happens."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(running: Sequence[tuple[Program, subprocess.Popen[bytes]]], wishes: Wishes) -> bool:
    """Until somebody wants the end (True) or one has ended by itself (False)."""
    while not wishes.count:
        for program, child in running:
            if child.poll() is not None:
                _say(f"The {program.name} ended by itself, with status {child.returncode}.")
                return False
        sleep(_POLL_S)
    return True


def _end(program: Program, child: subprocess.Popen[bytes], wishes: Wishes) -> bool:
    """Asks it to end, again whenever somebody insists; False if it had to be killed."""
    asked = wishes.count
    deadline_s = monotonic() + program.patience_s
    if child.poll() is None:
        child.terminate()
    while child.poll() is None:
        if monotonic() >= deadline_s:
            _say(f"The {program.name} did not end within {program.patience_s:g} s; killed.")
            _kill(child)
            return False
        if wishes.count > asked:
            asked = wishes.count
            child.terminate()
        sleep(_POLL_S)
    return True


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
