"""A simulated phone call: what Vonage does around one caller, from the first webhook to the last.

Made by `FakeVonage.call(...)`; see `tests.fakes.vonage` for an example. It asks for the answer,
reads the NCCO strictly and runs it, opens the media socket, keeps the playback clock, sends events
(out of order, with unknown fields), obeys REST, and completes both legs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Literal, TypeVar

from tests.fakes.call_events import Leg, Payload
from tests.fakes.flow import Ncco, perform
from tests.fakes.media_leg import Faults, LegEnd, MediaLeg
from tests.fakes.ncco import complaints
from tests.fakes.playback import Playback
from tests.fakes.signing import Credentials
from tests.fakes.sockets import Refused, connect
from tests.fakes.waiting import eventually
from tests.fakes.webhooks import Addresses, Delivery, WebhookSender

T = TypeVar("T")
Person = Literal["answers", "busy", "unanswered", "rejected"]


class PhoneCall:
    """One caller. Everything it has noticed is in plain attributes."""

    def __init__(
        self,
        caller: Leg,
        tone: int,
        addresses: Addresses,
        sender: WebhookSender,
        credentials: Credentials,
        faults: Faults,
        person: Person,
        answer_extra: Mapping[str, Any],
        legs: dict[str, PhoneCall],
    ) -> None:
        self.caller = caller
        self.tone = tone
        self.violations: list[str] = []
        #: Texts that `talk` actions, the REST API or a person's whisper have spoken.
        self.talked: list[str] = []
        self.whispered: list[str] = []
        self.streamed: list[str] = []
        #: Numbers, users and addresses of people the call was connected to.
        self.connected_to: list[str] = []
        #: Media legs in the order they were dialled; the last one is `media`.
        self.media_legs: list[MediaLeg] = []
        #: How refused handshakes of this call were answered (0: not at all).
        self.refusals: list[int] = []
        self.nccos: list[Ncco] = []
        self.started_s = time.monotonic()
        self.answer_ms: float | None = None
        self.hung_up_s: float | None = None
        #: Set when the call is over and every webhook about it has been delivered.
        self.ended = asyncio.Event()
        #: Who ended it: "user", "platform", or "dropped" when nobody gave an NCCO.
        self.ended_by = ""
        self.faults = faults
        self.person = person
        self._answer_extra = answer_extra
        self._addresses = addresses
        self.sender = sender
        self._credentials = credentials
        self.legs = legs
        #: Media legs by their uuid, also those that never opened.
        self.sockets: dict[str, tuple[Leg, MediaLeg]] = {}
        self.person_legs: list[Leg] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._performing: asyncio.Task[Ncco | None] | None = None
        self._next: Ncco | None = None
        self.over = asyncio.Event()
        self.digits: asyncio.Queue[str] = asyncio.Queue()
        self.person_left = asyncio.Event()

    # ------------------------------------------------------------ what a test asks

    @property
    def uuid(self) -> str:
        """The caller leg's uuid, the call's name everywhere in the product."""
        return self.caller.uuid

    @property
    def media(self) -> MediaLeg:
        """The newest media leg; there must be one."""
        assert self.media_legs, "no media leg was dialled"
        return self.media_legs[-1]

    @property
    def media_uuid(self) -> str:
        return next(reversed(self.sockets))

    @property
    def playback(self) -> Playback:
        """What the caller heard of the newest media leg."""
        return self.media.playback

    @property
    def deliveries(self) -> list[Delivery]:
        """Every attempt of a webhook of this call."""
        return self.sender.deliveries

    def events(self, status: str) -> list[Delivery]:
        """Deliveries of events with this status."""
        return [each for each in self.deliveries if each.payload.get("status") == status]

    async def wait_connected(self, timeout_s: float = 5.0) -> MediaLeg:
        """The media socket is open."""
        await eventually(
            f"the media socket of {self.uuid}",
            lambda: bool(self.media_legs) and self.media.open,
            timeout_s,
        )
        return self.media

    async def wait_for_voice(self, timeout_s: float = 5.0, since_s: float = 0.0) -> float:
        """When (monotonic) audible audio first sounded at or after a moment."""

        def probe() -> float | None:
            if not self.media_legs:
                return None
            self.playback.advance(time.monotonic())
            return self.playback.first_audible_s(since_s)

        found = await eventually(f"a voice on {self.uuid}", probe, timeout_s, every_s=0.02)
        assert found is not None
        return found

    async def wait_for_talk(self, part: str = "", timeout_s: float = 5.0) -> str:
        """The first spoken `talk` text that contains this."""

        def probe() -> str | None:
            return next((text for text in self.talked if part in text), None)

        return str(await eventually(f"a talk with {part!r}", probe, timeout_s))

    async def wait_ended(self, timeout_s: float = 10.0) -> None:
        """The call is over and its last webhook delivered."""
        async with asyncio.timeout(timeout_s):
            await self.ended.wait()

    # ------------------------------------------------------------ what the caller does

    async def hang_up(self, timeout_s: float = 10.0) -> None:
        """Hangs up: the socket is closed, both legs complete. Returns when that is delivered."""
        self._end("user")
        await self.wait_ended(timeout_s)

    async def abort(self, timeout_s: float = 10.0) -> None:
        """The media socket is cut without a close frame, and the call is over."""
        for leg in self.media_legs:
            leg.cut(LegEnd.HUNG_UP)
        self._end("platform")
        await self.wait_ended(timeout_s)

    def cut_media(self) -> None:
        """Only the media connection breaks: Vonage reports `disconnected` and asks what to do."""
        self.media.cut()

    async def press(self, digit: str) -> None:
        """A key of the phone, told on the media socket or to an `input` action."""
        self.digits.put_nowait(digit)
        if self.media_legs and self.media.open:
            await self.media.press(digit)

    def person_hangs_up(self) -> None:
        """The person the call was connected to leaves."""
        self.person_left.set()

    async def ask_again(self) -> Delivery:
        """The answer webhook once more, as a retry of Vonage's would do."""
        return await self.sender.attempt(
            self._addresses.answer, self.answer_payload(), self._addresses.answer_method
        )

    async def redial(self) -> None:
        """Asks for the answer again while the call is live and follows the new NCCO."""
        ncco = self.read(await self.ask_again())
        if ncco is not None:
            self.replace_flow(ncco)

    async def knock(
        self, uri: str | None = None, authorization: Mapping[str, str] | None = None
    ) -> int:
        """Tries a handshake: 101 if the server lets it in, the HTTP status if it does not.

        Without arguments: a second socket with this call's ticket, properly signed.
        """
        token = self._credentials.authorization() if authorization is None else authorization
        try:
            socket = await connect(uri or self.media.uri, token)
        except Refused as refused:
            return refused.status
        await socket.close()
        return 101

    # ------------------------------------------------------------ what REST does to it

    def replace_flow(self, ncco: Ncco) -> None:
        """Runs another NCCO from now on; an open media leg stays where it is."""
        self.violations += (f"NCCO: {text}" for text in complaints(ncco))
        self.nccos.append(ncco)
        self._next = ncco
        if self._performing:
            self._performing.cancel()

    async def rest_hangup(self, uuid: str) -> None:
        """Hangs up one leg: the caller's ends the call, a media leg's ends without an event."""
        if uuid == self.uuid:
            self._end("platform")
        elif uuid in self.sockets:
            await self.sockets[uuid][1].hang_up()
        else:
            self.person_left.set()

    def leg(self, uuid: str) -> Leg | None:
        """The leg with this uuid, living or over."""
        if uuid == self.uuid:
            return self.caller
        if uuid in self.sockets:
            return self.sockets[uuid][0]
        return next((leg for leg in self.person_legs if leg.uuid == uuid), None)

    # ------------------------------------------------------------ the call's own life

    def answer_payload(self) -> Payload:
        """The parameters of the answer webhook."""
        payload: Payload = {
            "to": self.caller.to,
            "uuid": self.uuid,
            "conversation_uuid": self.caller.conversation_uuid,
            "endpoint_type": "phone",
            **self._answer_extra,
        }
        if self.caller.from_ is not None:
            payload["from"] = self.caller.from_
        return payload

    async def live(self) -> None:
        """Runs the whole call; returns when everything about it is delivered and closed."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                ncco = await self._answered()
                if ncco is None:
                    self._end("dropped")
                else:
                    self.deliver(self.caller.event("answered"))
                while ncco is not None and not self.over.is_set():
                    ncco = await self._run(ncco)
                self._end("platform")
                await self._complete()
        finally:
            self.ended.set()

    def _end(self, by: str) -> None:
        if self.over.is_set():
            return
        self.over.set()
        self.ended_by = by
        self.hung_up_s = time.monotonic()
        self._next = None
        if self._performing:
            self._performing.cancel()

    async def _answered(self) -> Ncco | None:
        # Seen in the documentation's own log: ringing before started, with the same timestamp.
        ringing = self.caller.event("ringing")
        started = {**self.caller.event("started"), "timestamp": ringing["timestamp"]}
        for payload in (ringing, started):
            self.deliver(payload)
        asked = self._addresses
        first = self.sender.deliver(
            asked.answer,
            self.answer_payload(),
            asked.answer_method,
            fallback=asked.fallback,
            timeout_s=self.sender.answer_timeout_s,
        )
        if not self.faults.duplicate_answer:
            delivery = await first
        else:
            delivery, again = await asyncio.gather(first, self.ask_again())
            if delivery.good and again.good and delivery.ncco() != again.ncco():
                self.violations.append("two answers for one uuid are different")
        self.answer_ms = delivery.elapsed_ms
        return self.read(delivery)

    def read(self, delivery: Delivery) -> Ncco | None:
        """The NCCO of a reply that must have one."""
        if not delivery.good:
            self.violations.append(f"no NCCO: the answer was {delivery.status}")
            return None
        try:
            ncco = delivery.ncco()
        except ValueError as error:
            self.violations.append(f"no NCCO: {error}")
            return None
        if ncco is None or "json" not in delivery.content_type:
            self.violations.append("the answer's reply is no JSON")
            return None
        self.violations += (f"NCCO: {text}" for text in complaints(ncco))
        self.nccos.append(ncco)
        return ncco

    async def _run(self, ncco: Ncco) -> Ncco | None:
        """Runs one NCCO; another one if it was replaced, None when the flow is over."""
        assert self._tasks is not None
        self._performing = self._tasks.create_task(perform(self, ncco))
        await asyncio.wait([self._performing])
        following, self._next = self._next, None
        if following is not None or self._performing.cancelled():
            return following
        return self._performing.result()

    async def _complete(self) -> None:
        """Closes what is open and tells the end of every leg, in any order."""
        for _, media in self.sockets.values():
            await media.hang_up()
        living = [self.caller, *(leg for leg, _ in self.sockets.values()), *self.person_legs]
        living = [leg for leg in living if not leg.over]
        random.shuffle(living)
        by = "user" if self.ended_by == "user" else "platform"
        for leg in living:
            self.deliver(leg.completed(by))

    # ------------------------------------------------------------ events

    def handshake_headers(self, endpoint: Mapping[str, Any]) -> Mapping[str, str]:
        """The `Authorization` that the NCCO asked Vonage to bring to the media socket."""
        wanted = endpoint.get("authorization") or {}
        if self.faults.no_handshake_token:
            return {}
        if wanted.get("type") == "vonage":
            return self._credentials.authorization()
        return {"Authorization": wanted["value"]} if wanted.get("type") == "custom" else {}

    def deliver(self, payload: Payload, action: Mapping[str, Any] | None = None) -> None:
        """Sends an event beside everything else; its reply must be empty."""
        for _ in range(2 if self.faults.duplicate_events else 1):
            self.spawn(self.ask(payload, action, may_replace=False))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs something beside the call, at most as long as it lives."""
        assert self._tasks is not None
        return self._tasks.create_task(work)

    async def ask(
        self, payload: Payload, action: Mapping[str, Any] | None, *, may_replace: bool
    ) -> Ncco | None:
        """Delivers an event, to the action's address if it has one; the NCCO of the reply."""
        own = action if action and "eventUrl" in action else None
        delivery = await self.sender.deliver(
            own["eventUrl"][0] if own else self._addresses.event,
            payload,
            own.get("eventMethod", "POST") if own else self._addresses.event_method,
            timeout_s=self.sender.event_timeout_s,
            fallback=self._addresses.fallback if may_replace else "",
        )
        what = payload.get("status", "an event")
        if not delivery.good:
            if not delivery.worth_another_try:
                self.violations.append(f"{what} was answered with {delivery.status}")
            return None
        if not delivery.body.strip():
            return None
        ncco = self.read(delivery)
        if ncco is not None and not may_replace:
            self.violations.append(f"an NCCO in reply to {what}, which nobody runs")
            return None
        return ncco
