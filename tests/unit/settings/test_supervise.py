from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from callcenter import supervise

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 30.0

#: Says its name when it is ready, writes down each SIGTERM, and ends after `count` of them.
PROGRAM = """
import pathlib, signal, sys, time
name, log, count = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
heard = 0
def on(number, frame):
    global heard
    heard += 1
    with log.open("a") as out:
        out.write(f"{name} heard {signal.Signals(number).name}\\n")
    if heard == count:
        sys.exit(0)
signal.signal(signal.SIGTERM, on)
signal.signal(signal.SIGINT, on)
print(name, "ready", flush=True)
while True:
    time.sleep(0.02)
"""


class Runner:
    """`run_together` in a process of its own, with small programs instead of the real ones."""

    def __init__(self, tmp_path: Path, programs: str) -> None:
        self.log = tmp_path / "log"
        (tmp_path / "program.py").write_text(PROGRAM)
        script = f"""
            import sys
            from callcenter.supervise import Program, run_together
            def program(name, count=1, patience_s={PATIENCE_S}):
                command = [sys.executable, "program.py", name, {str(self.log)!r}, str(count)]
                return Program(name, command, patience_s)
            def short(name, status):
                return Program(name, [sys.executable, "-c", f"raise SystemExit({{status}})"], 5)
            sys.exit(run_together([{programs}], {str(tmp_path)!r}))
        """
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            process_group=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self, programs: int) -> None:
        assert self.process.stdout is not None
        for _ in range(programs):
            assert "ready" in self.process.stdout.readline()

    def ended(self) -> tuple[int, str]:
        _, told = self.process.communicate(timeout=PATIENCE_S * 2)
        return self.process.returncode, told

    def heard(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_in_order_and_well(tmp_path: Path, number: signal.Signals) -> None:
    runner = Runner(tmp_path, "program('server'), program('worker')")
    runner.ready(2)

    runner.process.send_signal(number)

    assert runner.ended() == (0, "")
    assert runner.heard() == ["server heard SIGTERM", "worker heard SIGTERM"]


def test_ctrl_c_reaches_only_the_supervisor_which_asks_in_order(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "program('server'), program('worker')")
    runner.ready(2)

    os.killpg(runner.process.pid, signal.SIGINT)  # as a terminal does

    assert runner.ended() == (0, "")
    assert runner.heard() == ["server heard SIGTERM", "worker heard SIGTERM"]


def test_one_that_dies_ends_the_others_and_is_told(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "program('server'), short('worker', 3)")

    status, told = runner.ended()

    assert status == 1
    assert told == "The worker ended by itself, with status 3.\n"


def test_one_that_does_not_end_is_killed_and_told(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "program('server', count=99, patience_s=0.3), program('worker')")
    runner.ready(2)

    runner.process.terminate()

    assert runner.ended() == (1, "The server did not end within 0.3 s; killed.\n")
    assert runner.heard() == ["server heard SIGTERM", "worker heard SIGTERM"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children do not hear of it")
def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "program('server'), program('worker')")
    runner.ready(2)

    runner.process.kill()
    runner.ended()  # returns when both have closed the standard output that they share

    assert sorted(runner.heard()) == ["server heard SIGTERM", "worker heard SIGTERM"]


def test_signals_at_once_are_one_wish_and_a_later_one_insists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(supervise, "monotonic", lambda: now_s)
    former = signal.getsignal(signal.SIGINT)

    with supervise.Wishes() as wishes:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert wishes.count == 1
        now_s += 5
        signal.raise_signal(signal.SIGINT)
        assert wishes.count == 2

    assert signal.getsignal(signal.SIGINT) is former
