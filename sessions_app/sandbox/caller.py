"""A caller: one simulated call through Vonage, with what the caller does and what he goes through.

async with Caller("http://127.0.0.1:5004", signature_secret=…, api_key=…, …) as call:
    await call.agent_finished()
    await call.say("Could you tell me your opening hours for this week?")
    await call.agent_finished()
print(call.outcome, call.first_sound_s, call.longest_silence_s)
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
import uuid as uuids
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import httpx

from sessions_app.sandbox.call_events import Identity
from sessions_app.sandbox.faults import SIP_PARAMETER, Fault, Wish
from sessions_app.sandbox.hearing import Hearing
from sessions_app.sandbox.phone import Phone, PlayedHook
from sessions_app.sandbox.voice import CALLER, synthesise
from sessions_app.sandbox.vonage_call import Outcome, VonageCall
from sessions_app.sandbox.vonage_webhooks import Account, Webhooks

__all__ = ["Caller", "Outcome"]

_KEPT: Final = 100


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than a webhook."""
    return httpx.create_ssl_context(trust_env=False)


class Caller:
    """One call; an async context manager, entered when media flows, words are played, or it is
    over.

    ``on_played(frame, rate_hz)`` gets every 20 ms that the caller hears. REST orders reach the call
    only with a ``control_url`` (``Sandbox.control_url``). All lengths are seconds of ``clock``.
    """

    def __init__(
        self,
        base_url: str,
        *,
        signature_secret: str,
        api_key: str,
        application_id: str,
        caller: str = "447700900123",
        called: str = "442079460000",
        uuid: str | None = None,
        method: str = "GET",
        fault: Fault | Wish | None = None,
        answer_params: dict[str, str] | None = None,
        control_url: str | None = None,
        person_answers: bool = True,
        keep_heard_s: float = 30.0,
        on_played: PlayedHook | None = None,
        retry_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uuid = uuid or uuids.uuid4().hex
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self._who = Identity(caller, called, self.uuid, f"CON-{uuids.uuid4()}")
        self._base_url = base_url.rstrip("/")
        self._method = method
        self._params = {
            "to": called,
            "from": caller,
            "uuid": self.uuid,
            "conversation_uuid": self._who.conversation_uuid,
            "endpoint_type": "phone",
        } | dict(answer_params or {})
        wish = Wish(fault) if isinstance(fault, Fault) else fault
        self._phone_fault = wish.fault if wish is not None and wish.fault.is_of_phone else None
        if wish is not None and not wish.fault.is_of_phone:
            self._params[SIP_PARAMETER] = str(wish)
        self._control_url = control_url
        self._person_answers = person_answers
        self._clock = clock
        self._account = Account(signature_secret, api_key, application_id)
        self._retry_s = retry_s
        self._hearing = Hearing()
        self._phone = Phone(self._hearing, keep_heard_s=keep_heard_s, on_played=on_played)
        self._stack = AsyncExitStack()
        self._entered: VonageCall | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                httpx.AsyncClient(trust_env=False, verify=_tls())
            )
            group = await stack.enter_async_context(asyncio.TaskGroup())
            call = self._entered = VonageCall(
                self._who,
                self._phone,
                group,
                Webhooks(client, self._account, retry_s=self._retry_s),
                self._account,
                base_url=self._base_url,
                control_url=self._control_url,
                person_answers=self._person_answers,
                fault=self._phone_fault,
                errors=self.errors,
                clock=self._clock,
            )
            stack.callback(call.finish, Outcome.CALLER_HUNG_UP)
            group.create_task(call.live(self._method, self._params))
            await call.settled.wait()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call.finish(Outcome.CALLER_HUNG_UP)
        await self._stack.__aexit__(kind, error, trace)

    @property
    def _call(self) -> VonageCall:
        if self._entered is None:
            raise RuntimeError("the call was not begun: use the Caller as an async context manager")
        return self._entered

    # --- what the caller does ---

    async def say(self, text: str) -> None:
        """Speaks; returns when it has been said (or the call is over)."""
        pcm = await asyncio.to_thread(synthesise, text, self.rate_hz, voice=CALLER)
        self._phone.speak(pcm)
        await self._call.wait(lambda: not self._phone.is_speaking)

    def feed(self, pcm: bytes) -> None:
        """Takes live speech at ``rate_hz``, s16le mono, in pieces of any size."""
        self._phone.feed(pcm)

    async def dtmf(self, digit: str) -> None:
        """Presses a key: one of 0-9, * and #."""
        if len(digit) != 1 or digit not in "0123456789*#":
            raise ValueError(f"the key is {digit!r}, wanted one of 0-9, * and #")
        if self._call.media is not None:
            await self._call.media.dtmf(digit)

    async def mute(self, muted: bool = True) -> None:
        """Mutes the caller: the service is told, and gets no audio meanwhile."""
        if self._call.media is not None:
            await self._call.media.set_active(not muted)

    def freeze(self) -> None:
        """Stops sending audio and says nothing about it; the socket stays open."""
        if self._call.media is not None:
            self._call.media.is_sending = False

    async def strike(self) -> None:
        """The phone's fault happens now (one of the suppliers' is not the caller's to do)."""
        await self._call.strike(self._method, self._params)

    async def abort(self) -> None:
        """The network is gone: the media socket is reset, and no webhook comes any more."""
        self._call.finish(Outcome.ABORTED)
        if self._call.media is not None:
            self._call.media.abort()
        await self._call.ended.wait()

    async def hang_up(self) -> None:
        """Hangs up; returns when the legs are closed and their ``completed`` events told."""
        self._call.finish(Outcome.CALLER_HUNG_UP)
        await self._call.ended.wait()

    # --- what the caller waits for ---

    async def agent_starts(self, timeout_s: float = 15.0) -> bool:
        """Waits until the other side is audible from now on; whether it was, in time."""
        since = self._clock()
        return await self._call.wait(lambda: self._hearing.agent_heard_since(since), timeout_s)

    async def agent_finished(
        self, quiet_s: float = 0.8, timeout_s: float = 60.0, patience_s: float = 60.0
    ) -> bool:
        """Waits until the other side was audible from now on and then quiet for ``quiet_s``;
        whether it was, before ``patience_s`` of hearing nothing were over.
        """
        since = self._clock()

        def finished() -> bool:
            quiet = self._hearing.agent_quiet_s(self._clock())
            heard = self._hearing.agent_heard_since(since) and not self._phone.is_playing
            return heard and quiet is not None and quiet >= quiet_s

        def enough() -> bool:
            heard_s = self._hearing.agent_quiet_s(self._clock())
            waited_s = self._clock() - since
            return min(waited_s, waited_s if heard_s is None else heard_s) >= patience_s

        await self._call.wait(lambda: finished() or enough(), timeout_s)
        return finished()

    def my_turn(self) -> None:
        """The caller takes the agent to have said it all: since its last sound he does not wait."""
        self._hearing.finished()

    async def ended(self, timeout_s: float = 60.0) -> bool:
        """Waits until the call is over; whether it was, in time."""
        return await self._call.wait(lambda: self.is_over, timeout_s)

    # --- what the caller went through ---

    @property
    def rate_hz(self) -> int:
        """The rate of what is heard and fed, set by the NCCO."""
        return self._phone.rate_hz

    @property
    def heard(self) -> bytes:
        """What was played, s16le mono at ``rate_hz``, bounded by ``keep_heard_s``."""
        return bytes(self._phone.heard)

    @property
    def first_sound_s(self) -> float | None:
        """From the answer to the first audible sound; ``None`` if there was none."""
        return self._hearing.first_sound_s

    @property
    def longest_silence_s(self) -> float:
        """The longest time for which the caller waited and nobody was audible."""
        return self._hearing.longest_silence_s(self._clock())

    @property
    def agent_s(self) -> float:
        """How long the other side has been audible so far."""
        return self._hearing.agent_s

    @property
    def agent_quiet_s(self) -> float | None:
        """How long ago the other side was last audible; ``None`` if never."""
        return self._hearing.agent_quiet_s(self._clock())

    @property
    def released_s(self) -> float | None:
        """How long the service held on to a caller who had gone without a proper goodbye."""
        return self._call.released_s

    @property
    def frames_received(self) -> int:
        """Audio frames that came, over all media legs."""
        return sum(leg.frames_received for leg in self._call.media_legs)

    @property
    def clears(self) -> int:
        """How often the service cleared the queue."""
        return sum(leg.clears for leg in self._call.media_legs)

    @property
    def overflowed(self) -> int:
        """Frames lost because more was sent than Vonage queues."""
        return self._phone.overflowed

    @property
    def talked(self) -> list[str]:
        """The texts of every ``talk``, by NCCO or REST."""
        return list(self._call.talked)

    @property
    def digits(self) -> list[str]:
        """DTMF that the service played to the caller."""
        return list(self._call.digits)

    @property
    def connected_to(self) -> list[dict[str, Any]]:
        """The endpoints, other than websockets, that the call was connected to."""
        return list(self._call.connected_to)

    @property
    def outcome(self) -> Outcome:
        """How the call ended; ``UNDECIDED`` while it lives."""
        return self._call.outcome

    @property
    def is_over(self) -> bool:
        """Whether the call has ended, for whatever reason."""
        return self._call.over.is_set()
