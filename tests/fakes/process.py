"""A child process whose output is read line by line, with the moment of each line."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output and when it was read (monotonic)."""

    at_s: float
    text: str


class Process:
    """A running program; always `reap()` it. `lines` is its standard error."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
        self.lines: list[LogLine] = []
        self.output: list[LogLine] = []
        # A group of its own, so that a Ctrl-C in the terminal leaves the ending to us.
        self._popen = subprocess.Popen(
            list(command),
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdout and self._popen.stderr
        self._pipes = (self._popen.stdout, self._popen.stderr)
        self._readers = [
            threading.Thread(target=_read, args=(pipe, into), name="process output", daemon=True)
            for pipe, into in zip(self._pipes, (self.output, self.lines), strict=True)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._popen.poll()

    def tail(self, count: int = 40) -> str:
        """The last lines of both outputs, for error messages."""
        both = sorted([*self.output, *self.lines], key=lambda line: line.at_s)
        return "\n".join(line.text for line in both[-count:])

    def fds(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def fd_targets(self) -> list[str]:
        """What the open file descriptors are, sorted: `socket:[…]`, files, pipes."""
        found: list[str] = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                found.append(os.readlink(f"/proc/{self.pid}/fd/{fd}"))
            except FileNotFoundError:
                continue  # closed since the listing
        return sorted(found)

    def rss_bytes(self) -> int:
        """Memory that is resident now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"process {self.pid} has ended")

    def cpu_s(self) -> float:
        """CPU time used so far, in user and kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM and the exit code; kills it and raises TimeoutError if that takes too long."""
        if self.exit_code is None:
            self._popen.terminate()
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"SIGTERM did not end it in {timeout_s} s\n{self.tail()}") from None
        self._close()
        return code

    def kill(self) -> None:
        """SIGKILL for it and its children."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(10)
        self._close()

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def reap(self) -> None:
        """Ends it if it still runs and releases everything; may be called again."""
        self.kill()

    def _close(self) -> None:
        for reader in self._readers:
            reader.join(5)
        for pipe in self._pipes:
            pipe.close()


def _read(pipe: IO[bytes], into: list[LogLine]) -> None:
    for raw in pipe:
        into.append(LogLine(time.monotonic(), raw.decode(errors="replace").rstrip("\n")))
