"""Everything at once: the three stand-ins and the product between them.

    async def scenario() -> None:
        async with stage() as s:
            async with s.call() as phone:
                await phone.wait_for_voice()
                conn = await s.connection_of(phone)
                await conn.caller_said("Goodbye.")
            assert s.violations() == []

    asyncio.run(scenario())

A test that must not be async (Playwright's) runs the stage in a thread of its own:

    with BackgroundLoop() as loop:
        s = loop.enter(stage())
        phone = loop.enter(s.call())
        loop.run(phone.wait_for_voice())
        page.goto(s.server.url)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.fakes.openai import FakeOpenAI, RealtimeConnection
from tests.fakes.server import RunningServer, ServerKind
from tests.fakes.speechmatics import FakeSpeechmatics
from tests.fakes.vonage import Addresses, FakeVonage, PhoneCall
from tests.fakes.webhooks import Method

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """The stand-ins and the running product."""

    openai: FakeOpenAI
    speechmatics: FakeSpeechmatics
    vonage: FakeVonage
    server: RunningServer

    def call(
        self,
        *,
        answer_method: Method = "GET",
        server: RunningServer | None = None,
        **more: Any,
    ) -> AbstractAsyncContextManager[PhoneCall]:
        """A call to the product; `more` goes to `FakeVonage.call`."""
        where = (server or self.server).url
        return self.vonage.call(Addresses.of(where, answer_method), **more)

    async def connection_of(self, phone: PhoneCall, timeout_s: float = 5.0) -> RealtimeConnection:
        """The Realtime connection that hears this phone's tone."""
        return await self.openai.connection_of(phone.tone, timeout_s)

    def violations(self) -> list[str]:
        """Everything any stand-in has to complain about."""
        of_phones = [
            f"phone {phone.uuid}: {text}"
            for phone in self.vonage.phones
            for text in phone.violations
        ]
        return [
            *(f"openai: {text}" for text in self.openai.violations),
            *(f"speechmatics: {text}" for text in self.speechmatics.violations),
            *(f"vonage: {text}" for text in self.vonage.violations),
            *of_phones,
        ]


@asynccontextmanager
async def stage(
    *,
    kind: ServerKind = ServerKind.CALLCENTER,
    database: str = "",
    redis_url: str = "",
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """Starts the stand-ins and the product; ends them all."""
    async with AsyncExitStack() as stack:
        openai = await stack.enter_async_context(FakeOpenAI())
        speechmatics = await stack.enter_async_context(FakeSpeechmatics())
        vonage = await stack.enter_async_context(FakeVonage())
        server = RunningServer(
            openai,
            speechmatics,
            vonage,
            kind=kind,
            database=database,
            redis_url=redis_url,
            env=env,
        )
        await stack.enter_async_context(server)
        yield Stage(openai, speechmatics, vonage, server)


class BackgroundLoop:
    """An event loop in a thread, for tests that cannot be async themselves."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-ins")
        self._stack = AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        """Runs a coroutine over there and returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enters a context that is left when the loop is."""
        return self.run(self._stack.enter_async_context(manager))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.run(self._stack.aclose(), timeout_s=120)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
