"""An agent's own voice, opened to say single phrases, through the interfaces that calls use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from sessions_app.core.audio import pcm_ms
from sessions_app.core.errors import CallError, ProviderError, SpeechError
from sessions_app.core.events import (
    AgentAudio,
    AgentText,
    CreateResponse,
    Event,
    Purpose,
    RequestRefused,
    ResponseDone,
    ResponseStarted,
)
from sessions_app.prepared.sound import Unfit, longest_ms
from sessions_app.prepared.wording import Wanted
from sessions_app.providers.base import Provider, Voice

#: All tries to reach the model together.
OPEN_TIMEOUT_S = 30.0
#: Until a phrase has been said; beyond that, it may take as long as it lasts.
SAY_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said: s16le mono, and its words if the voice tells them."""

    rate_hz: int
    pcm: bytes
    words: str | None = None


#: Says one phrase. Raises CallError, or Unfit if the phrase itself did not come out well.
Say = Callable[[Wanted], Awaitable[Spoken]]


def _patience_s(wanted: Wanted) -> float:
    return SAY_TIMEOUT_S + longest_ms(wanted.text) / 1000


@asynccontextmanager
async def of_voice(make: Callable[[], Voice]) -> AsyncIterator[Say]:
    """A speech synthesis service."""
    voice = make()

    async def say(wanted: Wanted) -> Spoken:
        pcm = bytearray()
        try:
            async with asyncio.timeout(_patience_s(wanted)):
                async with aclosing(voice.speak(wanted.text)) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        pcm += piece
                        _bounded(pcm, voice.rate_hz, wanted)
        except TimeoutError:
            raise SpeechError("not said in time", retryable=True, code="timeout") from None
        return Spoken(voice.rate_hz, bytes(pcm))

    try:
        yield say
    finally:
        await voice.close()


@asynccontextmanager
async def of_model(make: Callable[[], Provider]) -> AsyncIterator[Say]:
    """A model that speaks itself: one conversation, one response for each phrase."""
    provider = make()
    try:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await provider.open()
        except TimeoutError:
            raise ProviderError("not open in time", retryable=True, code="timeout") from None
        conversation = _Conversation(provider)
        failed: CallError | None = None
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(conversation.read())
            try:
                yield conversation.say
            except CallError as error:
                # Past the group, which would wrap it.
                failed = error
            finally:
                reading.cancel()
        if failed is not None:
            raise failed
    finally:
        await provider.close()


@dataclass(slots=True)
class _Take:
    """One response as it comes in."""

    request_id: str
    wanted: Wanted
    done: asyncio.Future[None]
    response_id: str = ""
    pcm: bytearray = field(default_factory=bytearray)
    words: list[str] = field(default_factory=list)
    item_id: str = ""

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Conversation:
    """Asks for one response at a time and collects it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._take: _Take | None = None
        self._asked = 0
        self._lost: ProviderError | None = None

    async def read(self) -> None:
        try:
            await self._provider.read(self._hear)
        except ProviderError as lost:
            self._lost = lost
            if self._take is not None:
                self._take.fail(lost)

    async def say(self, wanted: Wanted) -> Spoken:
        if self._lost is not None:
            raise self._lost
        self._asked += 1
        request_id = f"phrase_{self._asked}"
        self._take = take = _Take(request_id, wanted, asyncio.get_running_loop().create_future())
        self._provider.send(
            CreateResponse(request_id, Purpose.ANSWER, wanted.instructions, tools=False)
        )
        try:
            async with asyncio.timeout(_patience_s(wanted)):
                await take.done
        except TimeoutError:
            raise ProviderError("not said in time", retryable=True, code="timeout") from None
        finally:
            self._take = None
        rate_hz = self._provider.capabilities.rate_hz
        words = " ".join("".join(take.words).split())
        return Spoken(rate_hz, bytes(take.pcm), words)

    def _hear(self, event: Event) -> None:
        take = self._take
        if take is None or take.done.done():
            return
        match event:
            case ResponseStarted(response_id=response_id, request_id=take.request_id):
                take.response_id = response_id
            case RequestRefused(request_id=take.request_id, reason=reason):
                take.fail(ProviderError(reason, retryable=True, code="refused"))
            case AgentAudio(response_id=take.response_id, pcm=pcm):
                take.pcm += pcm
                try:
                    _bounded(take.pcm, self._provider.capabilities.rate_hz, take.wanted)
                except Unfit as endless:
                    take.fail(endless)
            case AgentText(response_id=take.response_id, item_id=item_id, text=text):
                if take.item_id not in ("", item_id):
                    take.words.append(" ")
                take.item_id = item_id
                take.words.append(text)
            case ResponseDone(response_id=take.response_id, status=status, reason=reason):
                if status == "completed":
                    take.done.set_result(None)
                elif status == "failed":
                    failed = f"the response failed: {reason}"
                    take.fail(ProviderError(failed, retryable=event.retryable, code=reason))
                else:
                    take.fail(Unfit(f"the response ended {status}: {reason}"))


def _bounded(pcm: bytearray, rate_hz: int, wanted: Wanted) -> None:
    """Whoever talks without end is stopped: memory has bounds."""
    if pcm_ms(len(pcm), rate_hz) > 2 * longest_ms(wanted.text):
        raise Unfit("it does not end")
