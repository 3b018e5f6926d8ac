"""One conversation from the browser: the page is the handset, a simulated caller the network.

The caller acts as Vonage for one call (signed webhooks over HTTP to this very service, then the
media socket), so a call from the browser takes the same way as a call by phone. Here its sound is
carried to the page and back, and what is published of the call is told beside it:

    {"type": "phone.placed", "uuid": "…"}       the service has answered the webhook
    {"type": "phone.connected"}
    {"type": "phone.announced", "text": "…"}    what the platform itself says, an apology for one
    {"type": "phone.problem", "text": "…"}
    {"type": "phone.ended", "reason": "…", "failed": false}
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from channels.layers import get_channel_layer
from django.conf import settings

from sessions_app.bridge.manager import get_manager
from sessions_app.core.audio import Framer
from sessions_app.core.resampler import Resampler
from sessions_app.live.browser_page import (
    FRAME_BYTES,
    WIRE_HZ,
    HangUp,
    Message,
    Page,
    Say,
    Voice,
)
from sessions_app.live.endings import OUR_MISTAKE, YOU_HUNG_UP, Ending, ending
from sessions_app.logcontext import call_context, masked
from sessions_app.publish import call_group
from sessions_app.sandbox.caller import Caller, Outcome
from sessions_app.sandbox.voice import CALLER, VoiceError, synthesise

logger = logging.getLogger(__name__)

_LAYER_S: Final = 2.0
_LOOK_S: Final = 0.1
#: How long the reason of the end is waited for, which comes with the row's last writing.
_REASON_S: Final = 2.0
_SENTENCES_WAITING: Final = 4
_FRAMES_AT_ONCE: Final = 5
_FRAME_S: Final = 0.02
_PASSED_ON: Final = frozenset({"call.turn", "call.state", "call.note"})


@dataclass(frozen=True, slots=True)
class Dialled:
    """Who calls whom, and where the service listens."""

    username: str
    agent_name: str
    number: str
    base_url: str


class Conversation:
    """The call of one page, from its socket's opening to the end of the simulated leg."""

    def __init__(self, page: Page, dialled: Dialled) -> None:
        self._page = page
        self._dialled = dialled
        self._uuid = uuid4().hex
        self._caller: Caller | None = None
        self._leaving = asyncio.Event()
        self._end_reason = ""
        self._end_known = asyncio.Event()
        self._to_say: asyncio.Queue[str] = asyncio.Queue(_SENTENCES_WAITING)
        self._is_saying = False
        self._from_phone = Resampler(WIRE_HZ, WIRE_HZ)
        self._to_phone = Resampler(WIRE_HZ, WIRE_HZ)
        self._framer = Framer(FRAME_BYTES)

    async def run(self) -> None:
        """Every task of the call lives in here. Raises what made it impossible, in a group."""
        with call_context(self._uuid):
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._page.write())
                watching = asyncio.Event()
                helpers = [
                    group.create_task(self._listen()),
                    group.create_task(self._speak()),
                    group.create_task(self._watch(watching)),
                ]
                # Nothing of the conversation is to be missed, so the watch stands before it begins.
                await watching.wait()
                try:
                    await self._converse()
                except Exception:
                    logger.exception("a call from a browser failed")
                    await self._ended(OUR_MISTAKE)
                for helper in helpers:
                    helper.cancel()
                await self._page.finish()
                await writer

    async def _converse(self) -> None:
        manager = get_manager()
        await manager.start()
        dialled = self._dialled
        async with Caller(
            dialled.base_url,
            signature_secret=settings.VONAGE_SIGNATURE_SECRET,
            api_key=settings.VONAGE_API_KEY,
            application_id=settings.VONAGE_APPLICATION_ID,
            caller=dialled.username,
            called=dialled.number,
            uuid=self._uuid,
            answer_params={
                "endpoint_type": "app",
                "from_user": dialled.username,
                "SipHeader_X-Agent": dialled.agent_name,
            },
            control_url=manager.suppliers.sandbox_control_url or None,
            keep_heard_s=0.0,
            on_played=self._played,
        ) as caller:
            self._caller = caller
            if caller.outcome is not Outcome.NOT_ANSWERED:
                await self._page.tell({"type": "phone.placed", "uuid": self._uuid})
            if not caller.is_over:
                await self._page.tell({"type": "phone.connected"})
            await self._follow(caller)
            await self._tell_end(caller)

    async def _follow(self, caller: Caller) -> None:
        """Tell what the platform does itself, until somebody hangs up."""
        talked = passed = 0
        while True:
            over = caller.is_over or self._leaving.is_set()
            for text in list(caller.talked)[talked:]:
                await self._page.tell({"type": "phone.announced", "text": text})
            for endpoint in list(caller.connected_to)[passed:]:
                number = masked(str(endpoint.get("number", "")))
                text = f"The call was passed on to a person: {number or endpoint['type']}"
                await self._page.tell({"type": "phone.announced", "text": text})
            talked, passed = len(caller.talked), len(caller.connected_to)
            if over:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._leaving.wait()

    async def _tell_end(self, caller: Caller) -> None:
        leaving = self._leaving.is_set()
        if leaving:
            await caller.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REASON_S):
                await self._end_known.wait()
        if leaving:
            await self._ended(YOU_HUNG_UP)
            return
        how = ending(self._end_reason, caller.outcome)
        if how.failed and not self._end_reason and caller.errors:
            await self._page.tell({"type": "phone.problem", "text": caller.errors[-1]})
        await self._ended(how)

    async def _ended(self, how: Ending) -> None:
        ended = {"type": "phone.ended", "reason": how.words, "failed": how.failed}
        await self._page.tell(ended)

    # ------------------------------------------------------------------ sound

    def _played(self, frame: bytes, rate_hz: int) -> None:
        """20 ms that the caller hears, when they are heard."""
        if self._leaving.is_set():
            return
        if self._from_phone.from_hz != rate_hz:
            self._from_phone = Resampler(rate_hz, WIRE_HZ)
        for piece in self._framer.feed(self._from_phone.feed(frame)):
            self._page.play(Voice.AGENT, piece)

    async def _listen(self) -> None:
        async for heard in self._page.listen():
            match heard:
                case Say(text):
                    await self._take_sentence(text)
                case HangUp():
                    self._leaving.set()
                case bytes():
                    self._take_microphone(heard)
        self._leaving.set()

    def _take_microphone(self, frame: bytes) -> None:
        caller = self._caller
        # A sentence that is being spoken is the caller's one voice; both would be a jumble.
        if caller is None or self._is_saying:
            return
        if self._to_phone.to_hz != caller.rate_hz:
            self._to_phone = Resampler(WIRE_HZ, caller.rate_hz)
        caller.feed(self._to_phone.feed(frame))

    async def _take_sentence(self, text: str) -> None:
        try:
            self._to_say.put_nowait(text)
        except asyncio.QueueFull:
            problem = "That was too much at once: let the sentences before be spoken first."
            await self._page.tell({"type": "phone.problem", "text": problem})

    async def _speak(self) -> None:
        """One sentence after the other, spoken to the agent and softly to the page."""
        while True:
            text = await self._to_say.get()
            caller = self._caller
            if caller is None or caller.is_over:
                continue
            try:
                pcm = await asyncio.to_thread(synthesise, text, WIRE_HZ, voice=CALLER)
            except VoiceError as error:
                await self._page.tell({"type": "phone.problem", "text": str(error)})
                continue
            self._is_saying = True
            try:
                await asyncio.gather(caller.say(text), self._echo(caller, pcm))
            finally:
                self._is_saying = False

    async def _echo(self, caller: Caller, pcm: bytes) -> None:
        """What the caller says, as fast as it is said."""
        framer = Framer(FRAME_BYTES)
        frames = [*framer.feed(pcm), *filter(None, [framer.flush()])]
        for at in range(0, len(frames), _FRAMES_AT_ONCE):
            if caller.is_over:
                return
            for frame in frames[at : at + _FRAMES_AT_ONCE]:
                self._page.play(Voice.CALLER, frame)
            await asyncio.sleep(_FRAMES_AT_ONCE * _FRAME_S)

    # ------------------------------------------------------------------ words

    async def _watch(self, watching: asyncio.Event) -> None:
        """Pass on what is published of the call. Its failure costs the words, not the call."""
        layer, group = get_channel_layer(), call_group(self._uuid)
        channel = ""
        try:
            async with asyncio.timeout(_LAYER_S):
                channel = await layer.new_channel()
                await layer.group_add(group, channel)
            watching.set()
            while True:
                await self._pass_on(await layer.receive(channel))
        except Exception as away:  # any client library's error
            reason = str(away).strip() or type(away).__name__
            logger.warning("a browser's page gets no transcript: %s", reason)
            problem = "The words do not come just now; the call's page has them later."
            await self._page.tell({"type": "phone.problem", "text": problem})
        finally:
            watching.set()
            if channel:
                with suppress(Exception):
                    async with asyncio.timeout(_LAYER_S):
                        await layer.group_discard(group, channel)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] not in _PASSED_ON:
            return
        if message["type"] == "call.state" and message["state"] == "ended":
            self._end_reason = message["reason"]
            self._end_known.set()
        await self._page.tell(message)
