"""What can be seen of a running server from outside while calls are made to it: its health, and of
a server on this machine what the system tells.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.core.management.base import CommandError

from sessions_app.rehearsal import AWAY_S
from sessions_app.sandbox.faults import Wish
from sessions_app.sandbox.load import index_in
from sessions_app.sandbox.soak import Figures, MemoryLog
from sessions_app.sandbox.tally import CallResult

#: What has ended must be gone from memory and from the rows within this long.
RELEASE_S: Final = 2.0
_POLL_S: Final = 0.1
_LOOK_EVERY_S: Final = 2.0
#: Idle connections and threads may take this long to be given up.
SETTLE_S: Final = 15.0
_HTTP_TIMEOUT_S: Final = 5.0
_LISTENING: Final = "0A"


class Server:
    """One server process. Raises CommandError when it cannot be judged."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/health"
        self._port = urlsplit(url).port or 0
        self._is_local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        token = {"Authorization": f"Bearer {settings.HEALTH_TOKEN}"}
        self._headers = token if settings.HEALTH_TOKEN else {}
        self.node = ""

    async def look(self) -> None:
        """Whether it is there, takes calls and tells of them; which one it is."""
        async with self.client() as http:
            health = await self._health(http, "?node=self")
        if health["status"] in ("draining", "unavailable"):
            raise CommandError(f"{self._url}: it takes no calls, it is {health['status']}")
        self.node = health["node"]

    async def live(self, http: httpx.AsyncClient, run: str) -> tuple[set[int], Figures]:
        """The calls of that run which are live, in memory or as rows; the process's figures."""
        own = await self._health(http, "?node=self")
        fleet = await self._health(http, "")
        uuids = [*own["sessions"]["uuids"], *fleet["sessions"]["uuids"]]
        ours = {index for uuid in uuids if (index := index_in(run, uuid)) is not None}
        return ours, self._figures(own)

    async def left_behind(self, http: httpx.AsyncClient, run: str) -> set[int]:
        """The calls of that run which are still live when they must be gone."""
        deadline_s = monotonic() + RELEASE_S
        while True:
            left, _ = await self.live(http, run)
            if not left or monotonic() >= deadline_s:
                return left
            await asyncio.sleep(_POLL_S)

    async def settled(self, before: Figures | None = None) -> Figures:
        """Its figures with no call live, as soon as they are calm: no more than before, or, without
        any from before, no other than a moment ago.
        """
        deadline_s = monotonic() + SETTLE_S
        last: Figures | None = None
        async with self.client() as http:
            while True:
                now = self._figures(await self._health(http, "?node=self"))
                calm = now.is_like(last) if before is None else not now.above(before)
                if calm or monotonic() >= deadline_s:
                    return now
                last = now
                await asyncio.sleep(_LOOK_EVERY_S)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=self._headers, timeout=_HTTP_TIMEOUT_S)

    def _figures(self, health: dict[str, Any]) -> Figures:
        told = health.get("process")
        if isinstance(told, dict):
            return Figures.of(told)
        return _figures_of_system(self._port) if self._is_local else Figures()

    async def _health(self, http: httpx.AsyncClient, query: str) -> dict[str, Any]:
        try:
            health: dict[str, Any] = (await http.get(f"{self._url}{query}")).json()
            if "uuids" in health["sessions"]:
                return health
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{self._url}: no server of ours answers there ({type(error).__name__}); "
                "`make run` starts one, --url names another"
            ) from None
        raise CommandError(f"{self._url}: it does not tell its calls; wanted its HEALTH_TOKEN")


class Watch:
    """Looks at the server while calls are made. What is kept does not grow with their number."""

    def __init__(self, server: Server, run: str) -> None:
        self._server = server
        self._run = run
        self._ended: dict[int, tuple[float, str]] = {}
        self._late: set[int] = set()
        self._done = 0
        self.left: Counter[str] = Counter()
        """Calls that were live when they had to be gone, by fault."""
        self.memory = MemoryLog()

    def note(self, result: CallResult) -> None:
        """A call has ended, now."""
        self._done += 1
        wish = Wish.read(result.fault)
        # Rows catch up when what was away is back.
        late_s = AWAY_S if wish is not None and wish.fault.is_of_server else 0.0
        self._ended[result.index] = (monotonic() + late_s, result.fault)

    async def look_on(self) -> None:
        """Looks every few seconds, until cancelled."""
        async with self._server.client() as http:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                looked_s = monotonic()
                try:
                    live, figures = await self._server.live(http, self._run)
                except CommandError:
                    continue  # a full machine may be late once; at the end it has to answer
                self._judge(live, looked_s)
                if figures.rss_bytes is not None:
                    self.memory.add(self._done, figures.rss_bytes)

    def _judge(self, live: set[int], looked_s: float) -> None:
        overdue = {index for index, (at, _) in self._ended.items() if looked_s - at > RELEASE_S}
        # Seen twice in a row, since the first look may have met the very end of the release.
        for index in overdue & live & self._late:
            self._leak(index)
        self._late = overdue & live
        for index in overdue - live:
            self._ended.pop(index, None)

    async def finish(self) -> None:
        """The last look: nothing of the run may be live any more."""
        async with self._server.client() as http:
            for index in await self._server.left_behind(http, self._run):
                self._leak(index)

    def _leak(self, index: int) -> None:
        _, fault = self._ended.pop(index, (0.0, ""))
        if fault:
            self.left[fault] += 1


def _figures_of_system(port: int) -> Figures:
    """Those of the process of this machine that listens on the port, as far as we may look."""
    try:
        process = _listener(port)
        if process is None:
            return Figures()
        status = dict(
            line.split(":", 1)
            for line in (process / "status").read_text().splitlines()
            if ":" in line
        )
        return Figures(
            rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
            fds=len(os.listdir(process / "fd")),
            threads=int(status["Threads"]),
        )
    except (OSError, KeyError, ValueError):
        return Figures()


def _listener(port: int) -> Path | None:
    wanted = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").iterdir() if wanted else ():
        if not process.name.isdecimal():
            continue
        try:
            if any(os.readlink(fd) in wanted for fd in (process / "fd").iterdir()):
                return process
        except OSError:
            continue  # ended, or not ours to look into
    return None


def _listening(port: int) -> list[str]:
    inodes = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.append(columns[9])
    return inodes
