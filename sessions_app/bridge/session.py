"""A live call in this process: its one task group, its one exit stack.

Everything a call opens belongs to `CallSession.run`, so that leaving it, for whatever reason,
releases everything. The rules of the conversation are `core.call.Call`; this is the shell that
carries its commands out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ParamSpec

from sessions_app.bridge.calltasks import CallTasks
from sessions_app.bridge.inbox import Inbox
from sessions_app.bridge.model import Fares, Model
from sessions_app.bridge.outbox import MediaSocket, Outbox
from sessions_app.bridge.release import Step, release
from sessions_app.bridge.ticker import Ticker
from sessions_app.bridge.tickets import Ticket
from sessions_app.bridge.voice import VoiceQueue
from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.call import Call
from sessions_app.core.ear import Ear
from sessions_app.core.limits import Limits
from sessions_app.core.past import Past
from sessions_app.core.phrases import Clips
from sessions_app.logcontext import call_context
from sessions_app.mirror import CallMirror
from sessions_app.providers.base import Provider, Voice

logger = logging.getLogger(__name__)
P = ParamSpec("P")

#: The REST hang-up of the caller's leg, with its retries.
HANG_UP_TIMEOUT_S = 1.5

#: What the phone sends at a time.
FRAME_MS = 20.0

#: A socket that brought a frame this lately is not lost, whatever a late report says.
MEDIA_FRESH_S = 1.0

#: The session whose task this is.
_owner: ContextVar[weakref.ref[CallSession] | None] = ContextVar("call_session", default=None)


def weakly(method: Callable[P, None]) -> Callable[P, None]:
    """The same for a part of the object whose method it is: such a part that outlives the object
    calls nothing, and keeps nothing alive. So a call's memory is free the moment it is over.
    """
    found = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if (alive := found()) is not None:
            alive(*args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class CallSetup:
    """What a session needs from outside, made by the manager when the call is answered."""

    agent: AgentProfile
    limits: Limits
    phone_rate_hz: int
    frame_bytes: int
    provider: Callable[[], Provider]
    #: The voice of another service; None when the model speaks itself.
    voice: Callable[[], Voice] | None
    #: Speaks for a model that writes and is not heard; None: nobody can.
    spare_voice: Callable[[], Voice] | None
    #: Ends the caller's leg at the carrier.
    hang_up: Callable[[], Awaitable[None]]
    #: Has the carrier say an apology to the caller and put him through to the agent's person.
    transfer: Callable[[], Awaitable[None]]
    #: Has the carrier connect the caller to another socket, whose session takes this one's place.
    connect_again: Callable[[CallSession], None]
    mirror: CallMirror
    provider_fares: Fares
    #: Told when everything is released, before anybody who waits for that goes on.
    removed: Callable[[CallSession], None]
    #: What can be said without any supplier.
    clips: Clips = field(default_factory=Clips)
    #: Of the session of the same call whose place this one takes.
    past: Past | None = None


class CallSession:
    """One call, from its answer to the release of everything it used.

    `close()` may be called any number of times, from anywhere, and returns when everything is
    released; from one of the session's own tasks it only asks for the end.
    """

    def __init__(
        self,
        call_uuid: str,
        caller: str = "",
        called: str = "",
        user_id: int | None = None,
        *,
        setup: CallSetup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.call_uuid = call_uuid
        self.caller = caller
        self.called = called
        self.user_id = user_id
        self.setup = setup
        self.end_reason: ev.EndReason | None = None
        #: The newest media ticket given out for this call, and the newest one spent.
        self.ticket: Ticket | None = None
        self.claimed = 0
        #: A socket has been let in for this session.
        self.taken = False
        #: The carrier has told that the caller is gone, however late for this session.
        self.caller_gone = False
        self._clock = clock
        self._began_s = clock()
        self._loop = asyncio.get_running_loop()
        handle = weakly(self.handle)
        self._model = Model(setup.provider, handle, setup.provider_fares)
        make_voice = setup.voice or setup.spare_voice
        self._voice = make_voice() if make_voice else None
        capabilities = self._model.capabilities
        voice_rate_hz = self._voice.rate_hz if self._voice else 0
        self._call = Call(
            setup.agent,
            setup.limits,
            speaks=setup.voice is None,
            spare_voice=setup.spare_voice is not None,
            provider_rate_hz=capabilities.rate_hz,
            voice_rate_hz=voice_rate_hz,
            clips=setup.clips,
            past=setup.past,
            now=clock(),
        )
        self._ticker = Ticker(self._call.next_deadline, weakly(self._tick), clock)
        self._ear = Ear()
        self._inbox = Inbox(setup.phone_rate_hz, capabilities.rate_hz)
        self._outbox = Outbox(
            self._call.playback,
            phone_rate_hz=setup.phone_rate_hz,
            frame_bytes=setup.frame_bytes,
            emit=handle,
            wrote=self._ticker.look_again,
            clock=clock,
        )
        self._speaker = (
            VoiceQueue(self._voice, handle, backlog_ms=self._outbox.ahead_ms)
            if self._voice
            else None
        )
        self._socket: MediaSocket | None = None
        self._socket_here = asyncio.Event()
        self._transfer_wanted = asyncio.Event()
        self._hang_up = False
        #: The carrier could not be told to end the caller's leg.
        self.hang_up_failed = False
        self._ending = asyncio.Event()
        self._released = asyncio.Event()
        self.bad_frames = 0

    # ------------------------------------------------------------------ life

    @property
    def over(self) -> bool:
        """Its release has begun; nothing can be attached to it any more."""
        return self._ending.is_set()

    @property
    def past(self) -> Past:
        """What was said and heard so far, for a session that takes this one's place."""
        return self._call.past(self._clock())

    @property
    def media_opened(self) -> bool:
        return self._socket is not None

    async def run(self) -> None:
        """The whole life of the call. Never raises but for its own cancellation."""
        _owner.set(weakref.ref(self))
        with call_context(self.call_uuid):
            try:
                async with AsyncExitStack() as stack:
                    self._own(stack)
                    await self._converse()
            finally:
                self._leave()

    def _leave(self) -> None:
        """The last words: on the row, in the log, and to whoever waits; none can be skipped."""
        self._finish(ev.EndReason.SHUTDOWN)
        try:
            with ExitStack() as steps:
                # Whoever still knows this session, a traceback perhaps, does not keep its sound.
                steps.callback(self._inbox.forget)
                steps.callback(self._outbox.forget)
                steps.callback(self._released.set)
                steps.callback(self.setup.removed, self)
                steps.callback(logger.info, "✅ Session cleanup completed - all resources released")
                steps.callback(self.setup.mirror.ended, self.end_reason or ev.EndReason.SHUTDOWN)
        except Exception:
            logger.exception("a fault of ours at the very end of a call")

    def _own(self, stack: AsyncExitStack) -> None:
        """What the call uses, pushed before it is opened."""
        model, voice = self._model, self._voice
        steps = [
            Step(f"Closed {model.name} WebSocket", model.close, lambda: model.opened),
            Step("Closed Vonage WebSocket", self._close_socket, lambda: self.media_opened),
        ]
        if voice is not None:
            steps.append(Step("Closed Speechmatics HTTP client", voice.close, self._voice_was_used))
        stack.push_async_callback(release, steps)
        stack.callback(logger.info, "🧹 Starting session cleanup...")

    def _voice_was_used(self) -> bool:
        spare = self.setup.voice is None
        return self._speaker is not None and (self._speaker.used or not spare)

    async def _converse(self) -> None:
        try:
            async with CallTasks() as tasks:
                work = {
                    "model": self._model.run(self._inbox, tasks),
                    "phone": self._run_phone(),
                    "transfer": self._run_transfer(),
                    "clock": self._ticker.run(),
                }
                if self._speaker is not None:
                    work["voice"] = self._speaker.run(tasks)
                for name, coro in work.items():
                    tasks.create_task(coro, name=name)
                await self._ending.wait()
                tasks.cancel()
        except* Exception as faults:
            for fault in faults.exceptions:
                logger.error("a fault of ours ended the call", exc_info=fault)
            self._finish(ev.EndReason.INTERNAL_ERROR)
        if self._hang_up:
            await self._end_leg()

    async def _end_leg(self) -> None:
        """End the caller's leg at the carrier; if that fails, closing the socket ends the call."""
        try:
            async with asyncio.timeout(HANG_UP_TIMEOUT_S):
                await self.setup.hang_up()
        except Exception as error:
            logger.warning("the caller's leg could not be hung up: %s", str(error) or "timed out")
            self.hang_up_failed = True
            self.setup.mirror.note("hang_up_failed", str(error) or "timed out")

    def _finish(self, reason: ev.EndReason, *, hang_up: bool = False) -> None:
        """The first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
            self._hang_up = hang_up
        self._ending.set()

    async def close(self, reason: ev.EndReason = ev.EndReason.SHUTDOWN) -> None:
        """Ask for the end and wait until everything is released; idempotent."""
        owner = _owner.get()
        if owner is not None and owner() is self:
            self._ask_for_end(reason)
            return
        if asyncio.get_running_loop() is not self._loop:
            elsewhere = asyncio.run_coroutine_threadsafe(self.close(reason), self._loop)
            await asyncio.wrap_future(elsewhere)
            return
        self._ask_for_end(reason)
        await self._released.wait()

    def _ask_for_end(self, reason: ev.EndReason) -> None:
        # The call is told first, so that what was heard so far is kept.
        self.handle(ev.EndRequested(reason, hang_up=False))
        self._finish(reason)

    async def wait_released(self) -> None:
        await self._released.wait()

    # ------------------------------------------------------------------ the phone

    def open_media(self, socket: MediaSocket) -> None:
        """The phone's socket is open; from now on the caller hears us.

        Not for a session that is over: its sockets have been released already.
        """
        if self.over:
            return
        self._socket = socket
        self._socket_here.set()
        self.setup.mirror.media_opened()
        self.handle(ev.MediaOpened())

    def take_frame(self, frame: bytes) -> None:
        """20 ms of the caller. A frame of another size is counted, told once, and left out."""
        if len(frame) != self.setup.frame_bytes:
            if not self.bad_frames:
                self.setup.mirror.note(
                    "bad_media_frame",
                    f"{len(frame)} bytes, wanted {self.setup.frame_bytes}",
                )
            self.bad_frames += 1
            return
        self._call.heard_caller_s = now = self._clock()
        self._inbox.put(frame)
        if (speaking := self._ear.hear(frame, now)) is not None:
            spoken_ms = self._ear.loud_frames * FRAME_MS
            self.handle(ev.CallerAudible(speaking, spoken_ms))

    @property
    def media_gone(self) -> bool:
        """A report that its media failed may be true: its socket broke or brings nothing, or none
        has come.
        """
        if not self.media_opened:
            return not self.taken
        return self._call.media_broke or self.media_age_s() > MEDIA_FRESH_S

    def has_left(self, generation: int) -> bool:
        """Whether the caller came back from the socket of that ticket (0: not known which)."""
        return 0 < generation < self.claimed

    @property
    def awaits_socket(self) -> bool:
        """The caller is, or may be, on his way to it with a ticket that has not been spent."""
        return self.ticket is not None and self.claimed < self.ticket.generation

    @property
    def may_be_connected_again(self) -> bool:
        """The conversation was under way, and is still to be gone on with."""
        return self._call.may_go_on

    def media_age_s(self) -> float:
        """How long ago the phone last sent anything."""
        return self._clock() - self._call.heard_caller_s if self.media_opened else math.inf

    def age_s(self) -> float:
        """How long ago the session began."""
        return self._clock() - self._began_s

    async def _run_phone(self) -> None:
        await self._socket_here.wait()
        assert self._socket is not None
        await self._outbox.run(self._socket)

    async def _close_socket(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    # ------------------------------------------------------------------ the model

    async def _run_transfer(self) -> None:
        while True:
            await self._transfer_wanted.wait()
            self._transfer_wanted.clear()
            try:
                await self.setup.transfer()
            except Exception as error:
                logger.warning("the caller could not be transferred: %s", error)
                self.handle(ev.TransferFailed(str(error)))
            else:
                self.handle(ev.Transferred())

    # ------------------------------------------------------------------ events and commands

    def handle(self, event: ev.Event) -> None:
        """Let the call decide, and do what it wants. Never blocks."""
        for command in self._call.handle(event, self._clock()):
            self._do(command)
        if not isinstance(event, ev.AgentAudio):
            # Sound that has come only puts off what was due; once it is written, that is told.
            self._ticker.look_again()

    def _tick(self, late_s: float) -> None:
        self.handle(ev.Tick(late_s))

    def _do(self, command: ev.Command) -> None:
        match command:
            case ev.Play():
                self._outbox.play(command.item_id, command.pcm, command.rate_hz)
            case ev.FinishItem():
                self._outbox.finish(command.item_id)
            case ev.ClearPhone():
                self._outbox.clear()
            case ev.SpeakClause():
                assert self._speaker is not None
                self._speaker.speak(command)
            case ev.StopSpeaking():
                assert self._speaker is not None
                self._speaker.stop()
            case ev.SaveTurn():
                self.setup.mirror.turn(command.turn)
            case ev.GreetingHeard():
                self.setup.mirror.greeting_heard()
            case ev.SaveUsage():
                self.setup.mirror.usage(command.usage)
            case ev.Note():
                self.setup.mirror.note(command.kind, command.detail)
            case ev.EndCall():
                self._finish(command.reason, hang_up=command.hang_up)
            case ev.RetainAudio():
                self._inbox.retain(command.retain)
            case ev.FeedSilence():
                for _ in range(round(command.audio_ms / FRAME_MS)):
                    self._inbox.put(bytes(self.setup.frame_bytes))
                if self._ear.fall_silent():
                    self.handle(ev.CallerAudible(False, self._ear.loud_frames * FRAME_MS))
            case ev.OpenReserve():
                self._model.open_reserve()
            case ev.Reconnect():
                self._model.reconnect()
            case ev.AskPhone():
                self._outbox.ask()
            case ev.TransferToPerson():
                self._transfer_wanted.set()
            case ev.ConnectAgain():
                self.setup.connect_again(self)
            case _:
                self._model.send(command)
