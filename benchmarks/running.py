"""The systems that are measured, each as a process of its own on a core of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx
import uvloop

from benchmarks.webhooks import request
from tests.fakes.call_events import Leg
from tests.fakes.process import Process
from tests.fakes.product import free_port
from tests.fakes.server import RunningServer, ServerKind
from tests.fakes.signing import Credentials
from tests.fakes.waiting import NeverHappenedError, eventually
from tests.fakes.web import Exchange, WebServer
from tests.fakes.webhooks import Addresses, WebhookSender

ROOT = Path(__file__).resolve().parents[1]
#: The product under the server that is its default, and under the one for dense hosts.
PRODUCTS = {"product-daphne": ServerKind.CALLCENTER, "product-dense": ServerKind.DENSE}
PIPECAT_PYTHON = ROOT / ".venv-pipecat/bin/python"
GREETING = "Hello, thank you for calling. How can I help you today?"
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the measured process has for itself, and which is left for the load."""

    system: int
    load: int

    @classmethod
    def found(cls) -> Self:
        """The last two there are; raises RuntimeError where there is only one."""
        mine = sorted(os.sched_getaffinity(0))
        if len(mine) < 2:
            raise RuntimeError(
                "one core: the load would be measured with the system; two are needed"
            )
        return cls(system=mine[-1], load=mine[-2])

    def take_load(self) -> None:
        """Every thread of this process stays with the load."""
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {self.load})

    def start_system(self, start: Callable[[], None]) -> None:
        """Start something whose processes have the system's core."""
        os.sched_setaffinity(0, {self.system})
        try:
            start()
        finally:
            self.take_load()


def run(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of a benchmark. SIGTERM ends it as Ctrl-C does, so that no measured process
    stays behind.
    """

    async def told() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return uvloop.run(told())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130


class System(Protocol):
    """Something that answers calls."""

    @property
    def name(self) -> str: ...

    @property
    def process(self) -> Process: ...

    async def ring(self, number: int) -> str:
        """A call comes in; the URL of the media socket that it is led to."""
        ...

    async def hung_up(self, number: int) -> None:
        """The caller has gone."""
        ...

    def live_calls(self) -> int | None:
        """Calls it has now; None: it does not tell."""
        ...


class Relay:
    """A program that only has a media socket: the bare relay, or a peer."""

    def __init__(self, name: str, process: Process, port: int) -> None:
        self.name, self.process, self._port = name, process, port

    async def ring(self, number: int) -> str:
        return f"ws://127.0.0.1:{self._port}/media/{number}"

    async def hung_up(self, number: int) -> None:
        pass

    def live_calls(self) -> int | None:
        return None


@asynccontextmanager
async def relay(
    name: str, python: Path, program: str, openai_url: str, cores: Cores
) -> AsyncIterator[Relay]:
    """A relay from `benchmarks/systems`, listening."""
    port = free_port()
    command = [str(python), f"benchmarks/systems/{program}", "--port", str(port)]
    command += ["--openai-url", openai_url, "--greeting", GREETING]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    started: list[Process] = []

    def start() -> None:
        started.append(Process(command, environment, ROOT))

    await asyncio.to_thread(cores.start_system, start)
    (process,) = started
    try:
        await eventually(
            f"{name} to listen ({process.tail()})",
            lambda: any("ready" in line.text for line in process.output) or _ended(process),
            _READY_S,
            every_s=0.05,
        )
        yield Relay(name, process, port)
    finally:
        await asyncio.to_thread(process.reap)


def _ended(process: Process) -> bool:
    if process.exit_code is not None:
        raise RuntimeError(f"it ended with {process.exit_code}\n{process.tail()}")
    return False


@dataclass(frozen=True, slots=True)
class CallRequests:
    """The webhooks of one call, whole and signed."""

    leg: Leg
    answer: bytes
    answered: bytes
    completed: bytes


class Product:
    """This product, with everything switched on, called by signed webhooks."""

    def __init__(
        self, name: str, server: RunningServer, credentials: Credentials, http: httpx.AsyncClient
    ) -> None:
        self.name, self.server = name, server
        self._addresses = Addresses.of(server.url, "POST")
        self._sender = WebhookSender(credentials, http)
        self.legs: dict[int, Leg] = {}

    @property
    def process(self) -> Process:
        return self.server.process

    async def ring(self, number: int) -> str:
        leg, asked = self._leg(number)
        self.legs[number] = leg
        answer = await self._sender.attempt(self._addresses.answer, asked, "POST")
        ncco = answer.ncco()
        if not ncco or ncco[-1]["action"] != "connect":
            raise RuntimeError(f"call {number} was answered with {answer.status}: {answer.body!r}")
        await self._sender.attempt(self._addresses.event, leg.event("answered"))
        self._sender.deliveries.clear()
        return str(ncco[-1]["endpoint"][0]["uri"])

    async def hung_up(self, number: int) -> None:
        told = self.legs.pop(number).completed("user")
        await self._sender.attempt(self._addresses.event, told)
        self._sender.deliveries.clear()

    def live_calls(self) -> int | None:
        return self.server.active_count()

    def signed(self, number: int) -> CallRequests:
        """A call's webhooks, ready to be sent within five minutes."""
        leg, asked = self._leg(number)
        return CallRequests(
            leg=leg,
            answer=self._signed(self._addresses.answer, asked),
            answered=self._signed(self._addresses.event, leg.event("answered")),
            completed=self._signed(self._addresses.event, leg.completed("user")),
        )

    def _signed(self, url: str, payload: Mapping[str, Any]) -> bytes:
        body = json.dumps(payload).encode()
        headers = self._sender.credentials.authorization(body)
        return request("POST", url, {**headers, "Content-Type": "application/json"}, body)

    def _leg(self, number: int) -> tuple[Leg, dict[str, Any]]:
        """A caller's leg, and what the carrier asks when it comes in."""
        leg = Leg(f"CON-{uuid.uuid4()}", f"4477009{number:05d}", "442079460000")
        asked = {"from": leg.from_, "to": leg.to, "uuid": leg.uuid}
        return leg, {**asked, "conversation_uuid": leg.conversation_uuid}


@asynccontextmanager
async def product(
    name: str,
    kind: ServerKind,
    openai_url: str,
    cores: Cores,
    *,
    database: str = "",
    redis_url: str = "",
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Product]:
    """The product between the stand-ins, its greeting made."""
    credentials = Credentials.generate()
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx.AsyncClient(limits=limits, trust_env=False))
        carrier = _Carrier()
        await stack.enter_async_context(carrier.web)
        server = RunningServer(
            kind=kind,
            database=database,
            redis_url=redis_url,
            env={
                "AI_PROVIDER": "openai",
                "OPENAI_API_KEY": "bench",
                "OPENAI_BASE_URL": openai_url,
                "VONAGE_API_KEY": credentials.api_key,
                "VONAGE_APPLICATION_ID": credentials.application_id,
                "VONAGE_PRIVATE_KEY": credentials.private_key_pem,
                "VONAGE_SIGNATURE_SECRET": credentials.signature_secret,
                "VONAGE_API_URL": carrier.web.url,
                "MAX_CONCURRENT_CALLS": "200",
                "PREPARE_AUDIO": "1",
                **(env or {}),
            },
        )
        await asyncio.to_thread(cores.start_system, server.start)
        try:
            try:
                await server.wait_for_log("made audio for agent", _READY_S)
            except NeverHappenedError as never:
                raise RuntimeError(f"no greeting was made\n{server.process.tail()}") from never
            served = Product(name, server, credentials, http)
            carrier.legs = served.legs
            yield served
        finally:
            await asyncio.to_thread(server.stop)


class _Carrier:
    """Vonage's REST, as far as a reconciler asks it: each call there is has been answered."""

    def __init__(self) -> None:
        self.legs: dict[int, Leg] = {}
        self.web = WebServer(self._answer)

    async def _answer(self, exchange: Exchange) -> None:
        wanted = exchange.request.path.rpartition("/")[2]
        leg = next((each for each in self.legs.values() if each.uuid == wanted), None)
        if leg is None:
            await exchange.reply(404, b"{}")
        elif exchange.request.method == "GET":
            await exchange.reply(200, leg.rest())
        else:
            await exchange.reply(204)
