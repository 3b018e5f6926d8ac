"""Sees to it that every agent's clips exist, as long as the process lives.

It looks for agents that were saved, takes in what the disk has, and has one agent's missing clips
made at a time: politely, since the same suppliers serve live calls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass

from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.core.errors import CallError
from sessions_app.prepared.maker import Batch, make
from sessions_app.prepared.mouths import Say
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.turn import turn
from sessions_app.prepared.wording import Wanted, wanted

logger = logging.getLogger(__name__)

#: The first wait after a failure; each further one is twice as long.
RETRY_S, RETRY_MOST_S = 5.0, 900.0
#: Between two agents.
PAUSE_S = 1.0
SWEEP_EVERY_S = 3600.0

Agents = Callable[[], Awaitable[list[AgentProfile] | None]]


@dataclass(frozen=True, slots=True)
class Help:
    """What the keeper needs of others."""

    #: All agents, or None while nothing has changed since the last time it was asked.
    agents: Agents
    #: Opens an agent's voice.
    mouth: Callable[[AgentProfile], AbstractAsyncContextManager[Say]]
    #: Whether something may be made now, rather than later.
    may_make: Callable[[], bool]


@dataclass(slots=True)
class _Wait:
    """A phrase that failed, and when it may be tried again."""

    tries: int
    until_s: float


class Keeper:
    """One for each process."""

    def __init__(
        self, shelf: Shelf, help: Help, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shelf = shelf
        self._help = help
        self._clock = clock
        self._agents: list[tuple[AgentProfile, tuple[Wanted, ...]]] = []
        self._waits: dict[Wanted, _Wait] = {}
        #: Troubles that were told; again once it has gone well in between.
        self._told: set[tuple[VoiceKind, str]] = set()
        self._swept_s = -math.inf

    async def run(self, every_s: float) -> None:
        """Until cancelled. A round that fails is told, and the next one comes all the same."""
        while True:
            busy = False
            try:
                busy = await self.round()
            except Exception:
                logger.exception("a round of preparing audio failed")
            await asyncio.sleep(PAUSE_S if busy else every_s)

    async def round(self) -> bool:
        """Look, and make at most one agent's clips; True if something was made or tried."""
        await self._look()
        await asyncio.to_thread(self._tend)
        for agent, phrases in self._agents:
            if self._due(phrases) and self._help.may_make():
                return await self._make(agent, phrases)
        return False

    async def _look(self) -> None:
        agents = await self._help.agents()
        if agents is not None:
            await asyncio.to_thread(self._know, agents)

    def _know(self, agents: list[AgentProfile]) -> None:
        """In a thread, since there may be a thousand of them."""
        self._agents = [(agent, wanted(agent)) for agent in agents]
        known = set(self._all())
        self._waits = {each: wait for each, wait in self._waits.items() if each in known}
        self._shelf.retain(known)

    def _all(self) -> Iterable[Wanted]:
        return (each for _, phrases in self._agents for each in phrases)

    def _tend(self) -> None:
        """In a thread: everything that asks the disk."""
        self._shelf.load(self._all())
        self._shelf.write()
        now = self._clock()
        # Without agents we would take every file for an old one.
        if self._agents and now - self._swept_s >= SWEEP_EVERY_S:
            self._swept_s = now
            self._shelf.sweep(self._all())

    def _due(self, phrases: Iterable[Wanted]) -> list[Wanted]:
        now = self._clock()
        return [
            each
            for each in phrases
            if not self._shelf.has(each)
            and (each not in self._waits or self._waits[each].until_s <= now)
        ]

    async def _make(self, agent: AgentProfile, phrases: tuple[Wanted, ...]) -> bool:
        with ExitStack() as stack:
            ours = await asyncio.to_thread(stack.enter_context, turn(self._shelf.directory))
            if not ours:
                return False
            # Whoever had the turn before may have made them.
            await asyncio.to_thread(self._shelf.load, phrases)
            due = self._due(phrases)
            if not due:
                return True
            batch = await make(lambda: self._help.mouth(agent), due)
            await asyncio.to_thread(self._keep, batch)
            self._settle(agent, due, batch)
            return True

    def _keep(self, batch: Batch) -> None:
        for each, clip in batch.clips:
            self._shelf.keep(each, clip)

    def _settle(self, agent: AgentProfile, due: list[Wanted], batch: Batch) -> None:
        for each, _ in batch.clips:
            self._waits.pop(each, None)
        for each in batch.left:
            self._waits[each] = _Wait(0, math.inf)
        if batch.clips:
            made = ", ".join(clip.phrase.value for _, clip in batch.clips)
            logger.info("made audio for agent %r in its own voice: %s", agent.name, made)
        if batch.trouble is None:
            self._told = {told for told in self._told if told[0] is not agent.voice_kind}
            return
        self._tell_once(agent, batch.trouble)
        held: Iterable[Wanted] = due
        if batch.trouble.retryable:
            # A supplier that is away is away for all its voices, and not asked for each anew.
            held = (each for each in self._all() if each.voice_kind is agent.voice_kind)
        for each in held:
            self._postpone(each)

    def _postpone(self, each: Wanted) -> None:
        now, wait = self._clock(), self._waits.get(each)
        if self._shelf.has(each) or (wait is not None and wait.until_s > now):
            return
        tries = wait.tries + 1 if wait else 1
        delay_s = min(RETRY_MOST_S, RETRY_S * 2.0 ** min(tries - 1, 20))
        self._waits[each] = _Wait(tries, now + delay_s)

    def _tell_once(self, agent: AgentProfile, trouble: CallError) -> None:
        told = (agent.voice_kind, str(trouble))
        if told not in self._told:
            self._told.add(told)
            logger.warning(
                "audio for agent %r cannot be made now, it is tried again later: %s",
                agent.name,
                trouble,
            )
