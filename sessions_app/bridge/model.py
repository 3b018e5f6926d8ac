"""The model's side of a call: one conversation with it, or several, one after the other.

When a conversation is lost, the call decides whether there is to be another (`reconnect`). Each is
a provider of its own; one that is given up is closed beside the next one's beginning, and whatever
is not closed yet is closed with the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from sessions_app.bridge.inbox import Inbox
from sessions_app.core.errors import ProviderError
from sessions_app.core.events import (
    Event,
    ProviderCommand,
    ProviderLost,
    ProviderReady,
    ResponseDone,
)
from sessions_app.providers.base import Capabilities, Provider

logger = logging.getLogger(__name__)

#: All tries to reach the model together.
OPEN_TIMEOUT_S = 9.0


class Model:
    """Owned by a call's session: `run` is one of its tasks, `close` a step of its release."""

    def __init__(
        self,
        make: Callable[[], Provider],
        emit: Callable[[Event], None],
        fares: Callable[[str], None],
    ) -> None:
        self._make = make
        self._emit = emit
        self._fares = fares
        self._provider = make()
        #: The one that is listened to; None: it has been given up, and the next is not there yet.
        self._live: Provider | None = None
        #: Given up, and not closed yet.
        self._former: list[Provider] = []
        self._again = asyncio.Event()
        self.opened = False

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def capabilities(self) -> Capabilities:
        return self._provider.capabilities

    def send(self, command: ProviderCommand) -> None:
        self._provider.send(command)

    def reconnect(self) -> None:
        """Give up the conversation there is, if any, and begin another. From here on it tells
        nothing any more, even if it is breaking in this moment.
        """
        self._live = None
        self._again.set()

    async def run(self, inbox: Inbox) -> None:
        """Converse until cancelled, anew whenever that is asked for."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                talk = tasks.create_task(self._converse(inbox), name="conversation")
                await self._again.wait()
                self._again.clear()
                talk.cancel()
                await asyncio.wait([talk])
                self._former.append(self._provider)
                self._provider = self._make()
                inbox.rewind()
                tasks.create_task(self._close_former(), name="close former conversation")

    async def _converse(self, inbox: Inbox) -> None:
        """One conversation, from handshake to end."""
        provider = self._live = self._provider
        tell = partial(self._tell, provider)
        opened = False
        try:
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await provider.open()
            except TimeoutError:
                raise ProviderError(f"not ready in {OPEN_TIMEOUT_S:g} s", retryable=True) from None
            opened = self.opened = True
            tell(ProviderReady(provider.life_s))
            async with asyncio.TaskGroup() as streams:
                streams.create_task(provider.write(), name="to provider")
                streams.create_task(inbox.run(provider.send_audio), name="inbox")
                await provider.read(tell)
        except* ProviderError as errors:
            error = errors.exceptions[0]
            assert isinstance(error, ProviderError)
            if not opened or not error.retryable:
                self._fares(str(error))
            logger.warning("the model's service is lost: %s", error)
            tell(ProviderLost(str(error), error.retryable))

    def _tell(self, provider: Provider, event: Event) -> None:
        # That it lets us in says little: one without money does, and then refuses every answer.
        if isinstance(event, ResponseDone) and event.status == "completed":
            self._fares("")
        elif isinstance(event, ResponseDone) and event.status == "failed" and not event.retryable:
            self._fares(event.reason)
        if provider is self._live:
            self._emit(event)

    async def _close_former(self) -> None:
        while self._former:
            provider = self._former[0]
            try:
                await provider.close()
            except Exception as error:
                logger.warning("a former conversation did not close well: %s", error)
            if provider in self._former:
                self._former.remove(provider)

    async def close(self) -> None:
        """Release everything, whatever is under way. Idempotent. One that cannot be closed keeps no
        other from it.
        """
        closing = [provider.close() for provider in (*self._former, self._provider)]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
