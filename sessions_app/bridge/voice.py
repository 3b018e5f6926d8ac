"""Speaks an agent's clauses in another service's voice, in order, fetching the next meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from sessions_app.core.audio import audible, pcm_ms
from sessions_app.core.errors import SpeechError
from sessions_app.core.events import ClauseFailed, ClauseSpoken, Event, SpeakClause, SpokenAudio
from sessions_app.providers.base import Voice

#: Nobody pauses for longer in the middle of a clause.
PAUSE_MOST_MS = 1500.0


class VoiceQueue:
    """Clauses asked for, spoken one after the other by a `Voice`.

    A clause is fetched as soon as the one before it has been handed over completely, which is
    faster than real time: so while one plays, the next is fetched. It waits while more than
    `ahead_ms` of speech is on its way to the caller already.
    """

    def __init__(
        self,
        voice: Voice,
        emit: Callable[[Event], None],
        *,
        backlog_ms: Callable[[], float],
        ahead_ms: float = 6000.0,
    ) -> None:
        self._voice = voice
        self._emit = emit
        self._backlog_ms = backlog_ms
        self._ahead_ms = ahead_ms
        self._clauses: deque[SpeakClause] = deque()
        self._wake = asyncio.Event()
        self._current: asyncio.Task[None] | None = None
        #: It has been asked for something.
        self.used = False

    def speak(self, clause: SpeakClause) -> None:
        self.used = True
        self._clauses.append(clause)
        self._wake.set()

    def stop(self) -> None:
        """Nothing asked for so far is to be heard; a request under way is ended."""
        self._clauses.clear()
        if self._current is not None:
            self._current.cancel()

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Speak until cancelled; requests are tasks of that group."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._clauses:
                clause = self._clauses.popleft()
                # A task of its own, so that a barge-in ends the request and not this loop.
                self._current = tasks.create_task(self._fetch(clause), name="speak clause")
                try:
                    await asyncio.wait([self._current])
                finally:
                    self._current = None

    async def _fetch(self, clause: SpeakClause) -> None:
        # The phone's queue empties by the clock; there is no event to wait for.
        while (excess_ms := self._backlog_ms() - self._ahead_ms) > 0:  # noqa: ASYNC110
            await asyncio.sleep(excess_ms / 1000)
        try:
            async with aclosing(self._voice.speak(clause.text)) as stream:  # type: ignore[type-var]
                async for pcm in self._heard(stream):
                    self._emit(SpokenAudio(clause.item_id, clause.clause, pcm))
        except SpeechError as error:
            self._emit(ClauseFailed(clause.item_id, clause.clause, str(error)))
        else:
            self._emit(ClauseSpoken(clause.item_id, clause.clause))

    async def _heard(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What can be heard, and the pauses in it. Silence in place of speech is a failure, told
        before the phone's queue is full of it.
        """
        pause, sounded = bytearray(), False
        async for pcm in stream:
            if audible(pcm):
                yield bytes(pause) + pcm
                pause.clear()
                sounded = True
                continue
            pause += pcm
            if pcm_ms(len(pause), self._voice.rate_hz) > PAUSE_MOST_MS:
                raise SpeechError("silence instead of speech", retryable=False, code="silent")
        if not sounded:
            raise SpeechError("silence instead of speech", retryable=False, code="silent")
        if pause:
            yield bytes(pause)
