"""Vonage's side of one simulated call: it plays the NCCO, dials legs, obeys REST, tells events."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Any, Final

import numpy as np

from sessions_app.sandbox import ncco
from sessions_app.sandbox.call_events import CallEvents, Identity, Leg, dialled_leg, own_leg
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.hearing import FRAME_S
from sessions_app.sandbox.leg_control import LegControl
from sessions_app.sandbox.media_leg import LegEnd, LegRefusedError, MediaLeg
from sessions_app.sandbox.phone import Phone
from sessions_app.sandbox.voice import TALK, VoiceError, synthesise
from sessions_app.sandbox.vonage_webhooks import Account, WebhookError, Webhooks

_END_S: Final = 20.0
# A tick that comes later than this is not made up for: the machine slept, the call did not.
_LATE_S: Final = 1.0
# How long a leg that nobody told of is held open: longer than any service may need to notice.
_LINGER_S: Final = 60.0
_LUMP_FRAMES: Final = 25
_GONE: Final = frozenset(
    {Fault.PHONE_GONE_BY_EVENT, Fault.PHONE_GONE_BY_SOCKET, Fault.PHONE_GONE_UNTOLD}
)
_KEPT: Final = 100
_TONE_S: Final = 2.0
_TAGS: Final = re.compile(r"<[^>]*>")

Flow = list[ncco.Action]


class Outcome(StrEnum):
    """How a call ended."""

    UNDECIDED = "undecided"
    CALLER_HUNG_UP = "caller hung up"
    HUNG_UP_BY_SERVICE = "hung up by the service"
    FLOW_ENDED = "the NCCO ran out"
    DROPPED = "the media socket closed and nothing followed"
    NOT_ANSWERED = "no usable answer to the webhook"
    BROKEN = "the service broke the media protocol"
    FAILED = "the simulated call itself failed"
    ABORTED = "aborted by the caller's network"


class VonageCall:
    """One call from the answer webhook to the last ``completed``. Its tasks belong to ``group``."""

    def __init__(
        self,
        who: Identity,
        phone: Phone,
        group: asyncio.TaskGroup,
        webhooks: Webhooks,
        account: Account,
        *,
        base_url: str,
        control_url: str | None,
        person_answers: bool,
        fault: Fault | None = None,
        errors: deque[str],
        clock: Callable[[], float],
    ) -> None:
        self.outcome = Outcome.UNDECIDED
        self.settled = asyncio.Event()
        """Set when the caller hears something or could: media is up, words are played, or it is
        over.
        """
        self.over = asyncio.Event()
        self.ended = asyncio.Event()
        """Set when, besides, everything is closed and told."""
        self.media: MediaLeg | None = None
        self.media_legs: list[MediaLeg] = []
        self.talked: deque[str] = deque(maxlen=_KEPT)
        self.digits: deque[str] = deque(maxlen=_KEPT)
        self.connected_to: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.released_s: float | None = None
        """How long the service held on to a caller who had gone without a proper goodbye."""
        self._fault = fault
        self._who = who
        self._phone = phone
        self._group = group
        self._webhooks = webhooks
        self._account = account
        self._base_url = base_url
        self._control_url = control_url
        self._control: LegControl | None = None
        self._person_answers = person_answers
        self._errors = errors
        self._clock = clock
        shuffled = fault is Fault.PHONE_EVENTS_SHUFFLED
        self._events = CallEvents(webhooks, base_url, who, errors, shuffled=shuffled)
        self._own = own_leg(who)
        self._open: dict[str, tuple[Leg, MediaLeg | None]] = {}
        """The legs that were dialled and are still up, those left behind by a transfer included."""
        self._flow: asyncio.Task[None] | None = None
        self._is_held = False

    def finish(self, outcome: Outcome) -> None:
        """Ends the call; the first reason is the one that counts."""
        if not self.over.is_set():
            self.outcome = outcome
            self._phone.hearing.ended(self._clock())
            self.over.set()

    async def wait(self, condition: Callable[[], bool], timeout_s: float = 7200.0) -> bool:
        """Waits until ``condition`` holds, the call is over or the time is up; whether it holds."""
        until = self._clock() + timeout_s
        while not condition():
            if self.over.is_set() or self._clock() >= until:
                return condition()
            await asyncio.sleep(FRAME_S)
        return True

    async def strike(self, method: str, params: dict[str, str]) -> None:
        """The fault of the phone's side happens now, if it is one that happens at a moment."""
        match self._fault:
            case Fault.PHONE_ABORTS if self.media is not None:
                self.media.lose()
            case Fault.PHONE_FREEZES if self.media is not None:
                self.media.freeze()
            case Fault.PHONE_HALF_DEAD if self.media is not None:
                self.media.swallows = True
            case Fault.PHONE_SECOND_SOCKET if not self.over.is_set():
                await self._ask_again(method, params)
            case _:
                pass

    # --- life ---

    async def live(self, method: str, params: dict[str, str]) -> None:
        """The whole call; returns when everything of it is closed and told."""
        ticker = self._group.create_task(self._tick())
        teller = self._group.create_task(self._events.tell_all())
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._register(stack)
                    await self._begin(method, params)
                    await self.over.wait()
                except Exception as error:
                    # Whatever it is, it is this call's alone, and the others of a load go on.
                    self._failed(error)
                finally:
                    ticker.cancel()
                    self.settled.set()
                    await self._bounded(self._end(teller))
        finally:
            teller.cancel()
            self.ended.set()

    async def _register(self, stack: AsyncExitStack) -> None:
        if self._control_url is None:
            return
        self._control = await stack.enter_async_context(LegControl(self._control_url))
        listener = self._group.create_task(self._obey(self._control))
        stack.callback(listener.cancel)
        await self._make_known(self._own)

    async def _make_known(self, leg: Leg) -> None:
        if self._control is not None:
            await self._control.register(
                leg.uuid, self._who.conversation_uuid, leg.from_number, leg.to, leg.direction
            )

    async def _begin(self, method: str, params: dict[str, str]) -> None:
        try:
            flow = ncco.read(await self._webhooks.answer(self._base_url, method, params))
        except (WebhookError, ncco.NccoError) as error:
            self._errors.append(str(error))
            self.finish(Outcome.NOT_ANSWERED)
            return
        self._phone.hearing.answered(self._clock())
        self._events.begun(self._own)
        self._events.answered(self._own)
        self._play(flow)

    async def _end(self, teller: asyncio.Task[None]) -> None:
        if self._flow is not None:
            self._flow.cancel()
        if self.outcome is Outcome.ABORTED:
            return
        by_user = self.outcome is Outcome.CALLER_HUNG_UP
        if by_user and self._fault in _GONE:
            await self._vanish(teller)
            return
        for leg, media in self._open.values():
            if media is not None:
                await media.close()
            self._events.completed(leg, by_user=by_user)
        if self._own.answered_at is not None:
            self._events.completed(self._own, by_user=by_user)
        await self._events.finish()
        await teller

    async def _vanish(self, teller: asyncio.Task[None]) -> None:
        """The caller is gone, and the service learns of it in one way or in none."""
        gone_at = self._clock()
        if self._control is not None:
            await self._control.completed(self._who.uuid)
        legs = [media for _, media in self._open.values() if media is not None]
        for media in legs:
            if self._fault is Fault.PHONE_GONE_BY_SOCKET:
                await media.close()
            media.is_sending = False
        if self._fault is Fault.PHONE_GONE_BY_EVENT:
            self._events.completed(self._own, by_user=True)
        await self._events.finish()
        await teller
        try:
            async with asyncio.timeout(_LINGER_S):
                for media in legs:
                    await media.ended.wait()
            self.released_s = self._clock() - gone_at
        except TimeoutError:
            self._errors.append(f"the media socket was still open after {_LINGER_S:.0f} s")
            for media in legs:
                media.abort()

    async def _ask_again(self, method: str, params: dict[str, str]) -> None:
        """The answer webhook is asked once more in mid-call; the caller goes where it leads."""
        try:
            flow = ncco.read(await self._webhooks.answer(self._base_url, method, params))
        except (WebhookError, ncco.NccoError) as error:
            self._errors.append(str(error))
            return
        self._leave_media()
        self._play(flow)

    def _leave_media(self) -> None:
        """The media leg stays behind, alone, until somebody ends it."""
        if self.media is not None:
            self.media.is_joined = False
            self.media = None
            self._phone.clear()

    async def _bounded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(_END_S + (_LINGER_S if self._fault in _GONE else 0.0)):
                await work
        except Exception as error:
            self._errors.append(f"{type(error).__name__}: {error}"[:300])

    def _failed(self, error: Exception) -> None:
        self._errors.append(f"{type(error).__name__}: {error}"[:300])
        self.finish(Outcome.FAILED)

    async def _tick(self) -> None:
        """Every 20 ms: plays and speaks. Late ticks are made up for, as a clock would."""
        start, count = self._clock(), 0
        while True:
            count += 1
            due = start + count * FRAME_S
            await asyncio.sleep(max(0.0, due - self._clock()))
            now = self._clock()
            if now - due > _LATE_S:
                start, count = now, 0
            tick = self._phone.tick(now)
            if self.media is None:
                continue
            try:
                await self.media.send_frame(tick.frame)
                for mark in tick.reached:
                    await self.media.reached(mark)
            except (TimeoutError, OSError) as error:
                self._errors.append(f"media socket: {type(error).__name__}")
                self.media.abort()

    # --- the flow ---

    def _play(self, flow: Flow) -> None:
        """Replaces what is left of the NCCO."""
        if self._flow is not None:
            self._flow.cancel()
        self._flow = self._group.create_task(self._perform_all(flow))

    async def _perform_all(self, flow: Flow) -> None:
        left = deque(flow)
        try:
            while left:
                replacement = await self._perform(left.popleft())
                if replacement is not None:
                    left = deque(replacement)
        except Exception as error:
            self._failed(error)
        self._flow = None
        self._check_over(Outcome.FLOW_ENDED)

    def _check_over(self, outcome: Outcome) -> None:
        """A call ends when its NCCO has run out and no other leg keeps it up."""
        if self._flow is None and self.media is None and not self._is_held:
            self.finish(outcome)

    async def _perform(self, action: ncco.Action) -> Flow | None:
        """Plays one action; the NCCO that replaces what follows, if there is one."""
        kind = action["action"]
        if kind == "connect":
            is_media = action["endpoint"][0]["type"] == "websocket"
            return await (self._connect_media(action) if is_media else self._connect_person(action))
        self.settled.set()
        match kind:
            case "talk":
                await self._talk(action["text"], action.get("language", "en-US"))
            case "stream":
                await self._tone()
            case "wait":
                await asyncio.sleep(action.get("timeout", 10))
            case "conversation":
                self._is_held = True
            case "record":
                pass  # runs beside the call; no recording is made here
            case "notify":
                asked = Leg(self._who.uuid, "", "", "inbound", action)
                return await self._events.notified(asked, action["payload"])
            case _:
                self._errors.append(f"the sandbox does not play {kind!r}")
        return None

    async def _talk(self, text: str, language: str) -> None:
        self.talked.append(text)
        plain = _TAGS.sub(" ", text)
        voice = TALK if language.lower().startswith("en") else language[:2].lower()
        try:
            pcm = await asyncio.to_thread(synthesise, plain, self._phone.rate_hz, voice=voice)
        except VoiceError:
            pcm = await asyncio.to_thread(synthesise, plain, self._phone.rate_hz, voice=TALK)
        await self._play_out(pcm)

    async def _tone(self) -> None:
        """Stands for a file that would be streamed."""
        moments = np.arange(int(_TONE_S * self._phone.rate_hz)) / self._phone.rate_hz
        wave = 4000 * np.sin(2 * np.pi * 440 * moments)
        await self._play_out(wave.astype("<i2").tobytes())

    async def _play_out(self, pcm: bytes) -> None:
        self._phone.queue_talk(pcm)
        await self.wait(lambda: not self._phone.is_talking)

    # --- legs ---

    async def _dial(self, action: ncco.Action) -> Leg:
        leg = dialled_leg(self._who, action)
        await self._make_known(leg)
        self._events.begun(leg)
        return leg

    async def _connect_media(self, action: ncco.Action) -> Flow | None:
        endpoint = action["endpoint"][0]
        leg = await self._dial(action)
        if self._fault is Fault.PHONE_NEVER_OPENS:
            self.settled.set()
            await self.over.wait()
            return None
        try:
            media = await MediaLeg.open(endpoint, self._account.token(), self._phone)
        except LegRefusedError as error:
            self._errors.append(f"media socket: {error}")
            return await self._events.failed(leg, error.status)
        self._events.answered(leg)
        media.loses_marks = self._fault is Fault.PHONE_MARKS_LOST
        media.lump_frames = _LUMP_FRAMES if self._fault is Fault.PHONE_LUMPS else 1
        self._open[leg.uuid] = (leg, media)
        self.media_legs.append(media)
        self.media = media
        self._group.create_task(self._run_media(media, leg))
        self.settled.set()
        return None

    async def _run_media(self, media: MediaLeg, leg: Leg) -> None:
        end = await media.run()
        flow = None
        if self.over.is_set():
            return
        if end is LegEnd.BROKEN:
            self._errors.append(f"media socket: {media.violation}")
            self.finish(Outcome.BROKEN)
            return
        if end is LegEnd.BY_SERVER:
            flow = await self._events.failed(leg, "disconnected")
        else:
            self._events.completed(leg, by_user=False)
        self._open.pop(leg.uuid, None)
        if self.media is not media:
            return  # left behind by a transfer: nothing of the caller's depends on it
        self.media = None
        if flow is not None:
            self._play(flow)
        else:
            by_server = end is LegEnd.BY_SERVER
            self._check_over(Outcome.DROPPED if by_server else Outcome.FLOW_ENDED)

    async def _connect_person(self, action: ncco.Action) -> Flow | None:
        leg = await self._dial(action)
        self.connected_to.append(action["endpoint"][0])
        if not self._person_answers:
            return await self._events.failed(leg, "unanswered")
        self._events.answered(leg)
        self._open[leg.uuid] = (leg, None)
        self._phone.hearing.person(self._clock())
        self._is_held = True
        self.settled.set()
        return None

    # --- REST orders ---

    async def _obey(self, control: LegControl) -> None:
        async for uuid, action, body in control.orders():
            if not self.over.is_set():
                await self._bounded(self._order(uuid, action, body))

    async def _order(self, uuid: str, action: str, body: dict[str, Any]) -> None:
        if uuid == self._who.uuid:
            await self._order_self(action, body)
            return
        leg, media = self._open.get(uuid, (None, None))
        if action != "hangup" or leg is None:
            self._errors.append(f"the sandbox does not do {action!r} on this leg")
        elif media is not None:
            await media.close()
        else:  # the person hung up: nobody is left to talk to
            del self._open[uuid]
            self._events.completed(leg, by_user=False)
            self._is_held = False
            self._check_over(Outcome.HUNG_UP_BY_SERVICE)

    async def _order_self(self, action: str, body: dict[str, Any]) -> None:
        match action:
            case "hangup":
                self.finish(Outcome.HUNG_UP_BY_SERVICE)
            case "transfer":
                await self._transfer(body["destination"])
            case "mute" | "unmute":
                if self.media is not None:
                    await self.media.set_active(action == "unmute")
            case "earmuff" | "unearmuff":
                self._phone.is_deaf = action == "earmuff"
            case "talk":
                self._group.create_task(self._talk(body["text"], body.get("language", "en-US")))
            case "stream":
                self._group.create_task(self._tone())
            case "dtmf":
                self.digits.append(body["digits"])
            case "stop_talk" | "stop_stream":
                self._phone.clear_talk()
            case _:
                self._errors.append(f"the sandbox does not do {action!r}")

    async def _transfer(self, destination: dict[str, Any]) -> None:
        """The caller gets a new NCCO."""
        try:
            if "ncco" in destination:
                flow = ncco.checked(destination["ncco"])
            else:
                flow = ncco.read(await self._webhooks.fetch(destination["url"][0]))
        except (WebhookError, ncco.NccoError) as error:
            self._errors.append(str(error))
            return
        self._leave_media()
        self._events.transferred(self._own)
        self._play(flow)
