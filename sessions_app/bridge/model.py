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
from typing import Protocol

from sessions_app.bridge.inbox import Inbox
from sessions_app.core.errors import ProviderError
from sessions_app.core.events import (
    AgentAudio,
    AgentText,
    CreateResponse,
    Event,
    ProviderCommand,
    ProviderLost,
    ProviderReady,
    RequestRefused,
    ReserveFailed,
    ReserveOpened,
    ResponseDone,
)
from sessions_app.providers.base import Capabilities, Provider

logger = logging.getLogger(__name__)

#: All tries to reach the model together.
OPEN_TIMEOUT_S = 9.0


class Fares(Protocol):
    """Told what was wrong with the model's service, or "": it has let us in, or even answered."""

    def __call__(self, trouble: str, *, answered: bool = True) -> None: ...


class Model:
    """Owned by a call's session: `run` is one of its tasks, `close` a step of its release."""

    def __init__(
        self,
        make: Callable[[], Provider],
        emit: Callable[[Event], None],
        fares: Fares,
    ) -> None:
        self._make = make
        self._emit = emit
        self._fares = fares
        self._provider = make()
        #: The one that is listened to; None: it has been given up, and the next is not there yet.
        self._live: Provider | None = None
        #: Given up, and not closed yet.
        self._former: list[Provider] = []
        #: Opened beside the live one, to take its place; None: there is none, or not yet.
        self._reserve: Provider | None = None
        self._opening: Provider | None = None
        self._again = asyncio.Event()
        self._reserve_wanted = asyncio.Event()
        #: This conversation was asked for something, and nothing has come of that yet; and what
        #: was wrong with it, the last time.
        self._owes_answer = False
        self._answered = False
        self._trouble = ""
        self.opened = False

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def capabilities(self) -> Capabilities:
        return self._provider.capabilities

    def send(self, command: ProviderCommand) -> None:
        if isinstance(command, CreateResponse):
            self._owes_answer = True
        self._provider.send(command)

    def reconnect(self) -> None:
        """Give up the conversation there is, if any, and begin another. From here on it tells
        nothing any more, even if it is breaking in this moment.
        """
        if self._live is not None and self._owes_answer:
            # However it failed, and though each failure might have been a passing one.
            self._fares(self._trouble or "it began no answer")
        self._live = None
        self._again.set()

    def open_reserve(self) -> None:
        """Open another conversation while the one there is goes on; `reconnect` takes it."""
        self._reserve_wanted.set()

    async def run(self, inbox: Inbox, tasks: asyncio.TaskGroup) -> None:
        """Converse until cancelled, anew whenever that is asked for; each conversation is a task of
        that group.
        """
        tasks.create_task(self._keep_reserve(), name="conversation in reserve")
        opened = False
        while True:
            talk = tasks.create_task(self._converse(inbox, opened), name="conversation")
            await self._again.wait()
            self._again.clear()
            talk.cancel()
            await asyncio.wait([talk])
            self._give_up(self._provider)
            reserve, self._reserve = self._reserve, None
            self._provider, opened = reserve or self._make(), reserve is not None
            inbox.rewind()
            tasks.create_task(self._close_former(), name="close former conversation")

    async def _keep_reserve(self) -> None:
        while True:
            await self._reserve_wanted.wait()
            self._reserve_wanted.clear()
            self._give_up(self._reserve)
            self._reserve, self._opening = None, self._make()
            live = self._live
            try:
                await _open(self._opening)
            except ProviderError as error:
                self._give_up(self._opening)
                self._opening = None
                self._fares(str(error))
                self._emit(ReserveFailed(str(error)))
            else:
                opened, self._opening = self._opening, None
                if self._live is live:
                    self._reserve = opened
                    self._emit(ReserveOpened())
                else:
                    # The one that it was to follow is gone already.
                    self._give_up(opened)
            await self._close_former()

    def _give_up(self, provider: Provider | None) -> None:
        if provider is not None:
            self._former.append(provider)

    async def _converse(self, inbox: Inbox, opened: bool) -> None:
        """One conversation, from handshake, or from where it was opened in reserve, to end."""
        provider = self._live = self._provider
        self._owes_answer, self._answered, self._trouble = False, False, ""
        tell = partial(self._tell, provider)
        try:
            if not opened:
                await _open(provider)
            opened = self.opened = True
            self._fares("", answered=False)
            tell(ProviderReady(provider.life_s))
            with inbox.flowing(provider.send_audio):
                await provider.read(tell)
        except ProviderError as error:
            self._trouble = str(error)
            if not opened or not error.retryable:
                self._fares(self._trouble)
            logger.warning("the model's service is lost: %s", error)
            tell(ProviderLost(str(error), error.retryable))

    def _tell(self, provider: Provider, event: Event) -> None:
        if provider is not self._live:
            return
        # That it lets us in says little: one without money does, and then refuses every answer.
        match event:
            case AgentAudio() | AgentText():
                self._owes_answer = False
                if not self._answered:
                    # Later ones vouch for this session only, not for those still to be made.
                    self._answered = True
                    self._fares("")
            case RequestRefused():
                # It serves, and does not like what it was asked.
                self._owes_answer = False
            case ResponseDone(status="failed"):
                self._trouble = event.reason or "its responses fail"
                if not event.retryable:
                    self._fares(self._trouble)
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
        ours = (*self._former, self._opening, self._reserve, self._provider)
        closing = [provider.close() for provider in ours if provider is not None]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def _open(provider: Provider) -> None:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await provider.open()
    except TimeoutError:
        raise ProviderError(f"not ready in {OPEN_TIMEOUT_S:g} s", retryable=True) from None
