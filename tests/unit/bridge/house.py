"""A manager on fakes: suppliers that make fakes, no database, calls that come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from django.db import OperationalError

from sessions_app import conf, mirror
from sessions_app.bridge import directory, housekeeping, preparing
from sessions_app.bridge import manager as manager_module
from sessions_app.bridge.manager import SessionManager
from sessions_app.bridge.plan import IncomingCall
from sessions_app.core.agent import AgentProfile
from sessions_app.providers.base import Provider, Voice
from sessions_app.telephony.vonage.client import VonageError
from tests.unit.bridge.fakes import Act, FakeProvider, fine

Flow = list[dict[str, object]]


class StubSuppliers:
    """Makes fakes, and keeps them."""

    sandbox_control_url = ""

    def __init__(self) -> None:
        self.providers: list[FakeProvider] = []
        self.hung_up: list[str] = []
        #: What the carrier was told to do with callers' legs.
        self.transferred: list[Flow] = []
        self.closing: Act = fine
        self.broken = self.carrier_away = False

    def provider(
        self, uuid: str, caller: str, agent: AgentProfile, fault: str
    ) -> Callable[[], Provider]:
        def make() -> Provider:
            if self.broken:
                raise ValueError("no such voice")
            self.providers.append(FakeProvider(closing=self.closing))
            return self.providers[-1]  # type: ignore[return-value]

        return make

    async def look(self) -> None:
        """It answers."""

    def voice(self, uuid: str, agent: AgentProfile, fault: str) -> Callable[[], Voice] | None:
        return None

    def spare_voice(self, uuid: str, agent: AgentProfile, fault: str) -> Callable[[], Voice] | None:
        return None

    def hang_up(self, uuid: str, region_url: str, fault: str) -> Callable[[], Awaitable[None]]:
        async def hang_up() -> None:
            if self.carrier_away:
                raise VonageError("HTTP 503", retryable=True)
            self.hung_up.append(uuid)

        return hang_up

    def transfer(
        self, uuid: str, region_url: str, fault: str, make_flow: Callable[[], Awaitable[Flow]]
    ) -> Callable[[], Awaitable[None]]:
        async def transfer() -> None:
            if self.carrier_away:
                raise VonageError("HTTP 503", retryable=True)
            self.transferred.append(await make_flow())

        return transfer

    @property
    def open(self) -> int:
        """Conversations with the model that were opened and not closed."""
        return sum(p.opened and not p.closed for p in self.providers)


class House:
    """A manager with stub suppliers and no database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
        self.suppliers = StubSuppliers()
        self.released = False

        @asynccontextmanager
        async def open_suppliers(_: conf.Conf) -> AsyncIterator[StubSuppliers]:
            try:
                yield self.suppliers
            finally:
                self.released = True

        async def nothing(_: SessionManager) -> None:
            return None

        async def away(*_: object) -> None:
            raise OperationalError("there is no database in these tests")

        async def found(
            _: object, call: IncomingCall, issued_s: int, *, live: bool
        ) -> directory.Found:
            await asyncio.sleep(0.01)
            return directory.Found(None, AgentProfile(), base={})

        monkeypatch.setattr(manager_module, "open_suppliers", open_suppliers)
        for name in ("keep", "obey", "sign_off"):
            monkeypatch.setattr(housekeeping, name, nothing)
        monkeypatch.setattr(preparing, "keep", nothing)
        monkeypatch.setattr(directory.Directory, "find", found)
        monkeypatch.setattr(mirror, "_write", lambda changes, node, over_s: (len(changes), ""))
        monkeypatch.setattr(mirror.Mirror, "query", away)
        self.manager = SessionManager(replace(conf.load(), max_calls=capacity))

    async def __aenter__(self) -> SessionManager:
        await self.manager.start()
        return self.manager

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(30):
            await self.manager.shutdown()


Build = Callable[..., House]


def ticket_of(flow: list[dict[str, object]]) -> str:
    (connect,) = [action for action in flow if action["action"] == "connect"]
    (endpoint,) = connect["endpoint"]  # type: ignore[misc]
    return str(endpoint["uri"]).rpartition("/")[2]  # type: ignore[index]


def connects(flow: list[dict[str, object]]) -> bool:
    return any(action["action"] == "connect" for action in flow)
