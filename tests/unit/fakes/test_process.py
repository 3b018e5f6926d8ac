from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.process import Process
from tests.fakes.product import VARIABLES, clean_environment, free_port
from tests.fakes.server import ServerKind

TALKS = "import sys; print('out'); print('err', file=sys.stderr)"
WAITS = "import sys, time; print('ready', file=sys.stderr, flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS


def run(program: str) -> Process:
    return Process([sys.executable, "-c", program], {"PATH": "/usr/bin"}, Path("/"))


def until_ready(process: Process) -> None:
    deadline_s = time.monotonic() + 10
    while not process.lines:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_both_outputs_are_kept_apart() -> None:
    process = run(TALKS)
    process._popen.wait(10)
    process.reap()
    assert [line.text for line in process.output] == ["out"]
    assert [line.text for line in process.lines] == ["err"]
    assert process.exit_code == 0


def test_it_tells_what_a_process_uses_and_ends_it() -> None:
    process = run(WAITS)
    try:
        until_ready(process)
        assert process.fds() >= 3
        assert len(process.fd_targets()) == process.fds()
        assert process.rss_bytes() > 1_000_000
        assert process.cpu_s() >= 0
        assert process.terminate() == -signal.SIGTERM
    finally:
        process.reap()


def test_a_process_that_ignores_sigterm_is_killed_and_told() -> None:
    process = run(DEAF)
    until_ready(process)
    with pytest.raises(TimeoutError, match="SIGTERM did not end it"):
        process.terminate(timeout_s=0.2)
    assert process.exit_code == -signal.SIGKILL


def test_nothing_of_the_developers_shell_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-developers-own")
    env = clean_environment(Path("/tmp"), {"PUBLIC_URL": "http://127.0.0.1:1"})
    assert env["OPENAI_API_KEY"] == ""
    assert set(VARIABLES) <= env.keys()
    assert env["PUBLIC_URL"] == "http://127.0.0.1:1"


def test_every_kind_of_server_listens_where_it_is_told() -> None:
    port = free_port()
    for kind in ServerKind:
        command = kind.command(port)
        assert str(port) in command
        assert "127.0.0.1" in command
