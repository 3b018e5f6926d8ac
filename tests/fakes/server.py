"""The product as a real process of the operating system, between the stand-ins.

    with RunningServer(openai, speechmatics, vonage, env={"MAX_CONCURRENT_CALLS": "2"}) as server:
        server.manage("agent", "Receptionist", "--voice", "speechmatics:sarah")
        ...calls to Addresses.of(server.url)...
        assert server.health()["sessions"]["active_count"] == 0
        assert server.lines_of(phone.uuid)[-1].endswith("Active sessions: 0")
        before = server.fds()
        assert server.terminate() == 0

In an async test write `async with`: the stand-ins live in the test's own event loop, and a start
that blocks it would wait for itself. For the same reason use `await server.ahealth()` and
`await server.amanage(...)` there. `database=` may be the URL of a PostgreSQL (TEST_DATABASE_URL):
a new database is made there and dropped. `beside=other` shares another server's database. `kind=`
runs plain Daphne or Uvicorn instead of the product's own server. Leaving always ends the process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.fakes import product
from tests.fakes.openai import FakeOpenAI
from tests.fakes.process import LogLine, Process
from tests.fakes.speechmatics import FakeSpeechmatics
from tests.fakes.vonage import FakeVonage
from tests.fakes.waiting import eventually


class ServerKind(StrEnum):
    """Which program serves the product."""

    CALLCENTER = "callcenter.server"
    DENSE = "callcenter.dense"
    DAPHNE = "daphne"
    UVICORN = "uvicorn"

    def command(self, port: int) -> list[str]:
        """The command line that listens on 127.0.0.1 and this port."""
        python = [sys.executable, "-m", self.value]
        if self in (ServerKind.CALLCENTER, ServerKind.DENSE):
            return [*python, "-b", "127.0.0.1", "-p", str(port)]
        app = "callcenter.asgi:application"
        if self is ServerKind.DAPHNE:
            return [*python, "-b", "127.0.0.1", "-p", str(port), "-v", "0", app]
        quiet = ["--log-level", "warning", "--no-access-log"]
        return [*python, "--host", "127.0.0.1", "--port", str(port), *quiet, app]


class RunningServer:
    """Runs from entering to leaving."""

    def __init__(
        self,
        openai: FakeOpenAI | None = None,
        speechmatics: FakeSpeechmatics | None = None,
        vonage: FakeVonage | None = None,
        *,
        kind: ServerKind = ServerKind.CALLCENTER,
        database: str = "",
        redis_url: str = "",
        beside: RunningServer | None = None,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        start_timeout_s: float = 40.0,
    ) -> None:
        """Without a stand-in, its variables stay as `env` says, or empty."""
        self.kind = kind
        self.port = port or product.free_port()
        #: The whole environment of the process and of `manage`, complete once it has started.
        self.env: dict[str, str] = {}
        self._suppliers = _supplier_variables(openai, speechmatics, vonage)
        self._extra = dict(env or {})
        self._database = database
        self._redis_url = redis_url
        self._beside = beside
        self._start_timeout_s = start_timeout_s
        self._stack = ExitStack()
        self._process: Process | None = None
        self._past: list[LogLine] = []
        self._http = httpx.Client(base_url=self.url, timeout=10, trust_env=False, verify=False)

    # ------------------------------------------------------------ what a test asks

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> list[LogLine]:
        """Every line on its standard error so far, also from before a `restart`."""
        return [*self._past, *self.process.lines]

    def lines_of(self, call_uuid: str) -> list[str]:
        """The log's texts about one call, from its `[uuid]` on."""
        mark = f"[{call_uuid}]"
        return [line.text[line.text.index(mark) :] for line in self.log if mark in line.text]

    async def wait_for_log(self, text: str, timeout_s: float = 5.0) -> LogLine:
        """The first line that contains this."""

        def probe() -> LogLine | None:
            return next((line for line in self.log if text in line.text), None)

        found = await eventually(f"the log line {text!r}", probe, timeout_s, every_s=0.02)
        assert found is not None
        return found

    def health(self, path: str = "/api/health") -> dict[str, Any]:
        """The health report, whatever its status; raises httpx.TransportError without a server."""
        report = self._http.get(path).json()
        assert isinstance(report, dict)
        return report

    async def ahealth(self, path: str = "/api/health") -> dict[str, Any]:
        return await asyncio.to_thread(self.health, path)

    def active_count(self) -> int:
        """Live calls of this process, from memory."""
        return int(self.health("/api/health?node=self")["sessions"]["active_count"])

    def fds(self) -> int:
        """Open file descriptors of the process."""
        return self.process.fds()

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        return self.process.rss_bytes()

    # ------------------------------------------------------------ what a test does

    def manage(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs `manage.py` in the server's own environment."""
        return product.manage(self.env, *arguments, timeout_s=timeout_s)

    async def amanage(
        self, *arguments: str, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.manage, *arguments, timeout_s=timeout_s)

    @contextmanager
    def worker(self) -> Iterator[Process]:
        """A job worker (`manage.py db_worker`) beside the server."""
        command = [sys.executable, "manage.py", "db_worker"]
        worker = Process(command, self.env, product.ROOT)
        try:
            yield worker
        finally:
            worker.reap()

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        return self.process.terminate(timeout_s)

    async def aterminate(self, timeout_s: float = 30.0) -> int:
        return await asyncio.to_thread(self.terminate, timeout_s)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        self.process.kill()

    def restart(self) -> None:
        """Starts it again, after `terminate` or `kill`, on the same port and database."""
        self._launch()

    # ------------------------------------------------------------ its life

    def start(self) -> None:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory("", "callcenter-")))
        try:
            self.env = self._environment(directory)
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process if it still runs and takes away everything that was made for it."""
        if self._process:
            self._process.reap()
        self._http.close()
        self._stack.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._process:
            error.add_note(f"the server's last words:\n{self._process.tail()}")
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _environment(self, directory: Path) -> dict[str, str]:
        values = {
            "PUBLIC_URL": self.url,
            "STATIC_ROOT": str(product.template() / "static"),
            "REDIS_URL": self._redis_url,
            "DRAIN_SECONDS": "5",
            **self._suppliers,
            **self._extra,
        }
        if key := values.get("VONAGE_PRIVATE_KEY"):
            path = directory / "vonage.pem"
            path.write_text(key)
            values["VONAGE_PRIVATE_KEY"] = str(path)
        env = product.clean_environment(directory, values)
        if "DATABASE_URL" not in self._extra:
            env["DATABASE_URL"] = self._database_url(directory, env)
        return env

    def _database_url(self, directory: Path, env: Mapping[str, str]) -> str:
        if self._beside:
            return self._beside.env["DATABASE_URL"]
        if not self._database:
            return product.copy_of_template(directory)
        url = self._stack.enter_context(product.postgres_database(self._database))
        product.must_manage({**env, "DATABASE_URL": url}, "migrate", "--no-input", "-v", "0")
        return url

    def _launch(self) -> None:
        if self._process:
            assert self._process.exit_code is not None, "it still runs"
            self._past += self._process.lines
        self._process = Process(self.kind.command(self.port), self.env, product.ROOT)
        deadline_s = time.monotonic() + self._start_timeout_s
        while not self._answers():
            code = self._process.exit_code
            if code is not None:
                raise RuntimeError(f"the server ended with {code}\n{self._process.tail()}")
            if time.monotonic() > deadline_s:
                limit = f"no health after {self._start_timeout_s} s"
                raise TimeoutError(f"{limit}\n{self.process.tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self._http.get("/api/health").status_code == 200
        except httpx.TransportError:
            return False


def _supplier_variables(
    openai: FakeOpenAI | None, speechmatics: FakeSpeechmatics | None, vonage: FakeVonage | None
) -> dict[str, str]:
    """The variables that lead the product to the stand-ins."""
    values: dict[str, str] = {}
    if openai:
        values |= {
            "AI_PROVIDER": "openai",
            "OPENAI_API_KEY": openai.api_key,
            "OPENAI_BASE_URL": openai.base_url,
        }
    if speechmatics:
        values |= {
            "SPEECHMATICS_API_KEY": speechmatics.api_key,
            "SPEECHMATICS_TTS_URL": speechmatics.url,
        }
    if vonage:
        values |= vonage.environment()
    return values
