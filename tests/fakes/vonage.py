"""A stand-in for Vonage, stricter than the original: the Calls REST API and simulated phones.

    async with FakeVonage() as vonage:
        ...start the product with vonage.environment()...
        async with vonage.call(Addresses.of(server.url)) as phone:
            await phone.wait_connected()
            await phone.wait_for_voice()                  # the greeting sounds
            phone.media.speak(pcm)                        # the caller says something
            await phone.press("5")
            heard_ms = phone.playback.voice_heard_ms(conn.spoken[0].voice)
            await phone.hang_up()                         # or leave the block
        assert phone.violations == [] and vonage.violations == []
        assert phone.talked == []                         # no apology was needed

Other things a phone does: `abort()` (gone without a close frame), `cut_media()` (only the socket
breaks), `phone.media.freeze()` (half-open), `phone.media.mute()`, `knock()` (a second socket with
the same ticket, or a forged one), `ask_again()` and `redial()` (the answer webhook once more).
`vonage.call(..., faults=Faults(duplicate_answer=True, lost_frames=0.1))` makes it a bad day.
`vonage.forge(...)` sends a webhook with a signature that is wrong in a chosen way. REST misbehaves
by `vonage.mode = RestMode.RATE_LIMITED` and the like. `vonage.rest` has every REST request.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import httpx

from tests.fakes.call_events import Leg
from tests.fakes.media_leg import Faults, LegEnd, MediaLeg
from tests.fakes.ncco import complaints
from tests.fakes.phone import Person, PhoneCall
from tests.fakes.signing import Credentials, Forgery
from tests.fakes.web import Exchange, WebServer
from tests.fakes.webhooks import Addresses, Delivery, Method, WebhookSender

__all__ = [
    "Addresses",
    "Credentials",
    "Delivery",
    "FakeVonage",
    "Faults",
    "Forgery",
    "LegEnd",
    "MediaLeg",
    "PhoneCall",
    "RestMode",
    "RestRequest",
]

_ACTIONS = ("hangup", "mute", "unmute", "earmuff", "unearmuff", "transfer")
_MEDIA = {
    "stream": ({"stream_url"}, {"stream_url", "loop", "level"}),
    "talk": ({"text"}, {"text", "language", "style", "premium", "loop", "level"}),
    "dtmf": ({"digits"}, {"digits"}),
}


class RestMode(StrEnum):
    """How the REST API is today."""

    GOOD = "good"
    RATE_LIMITED = "429"
    BROKEN = "500"
    SLOW = "slow"
    UNKNOWN_LEGS = "404"


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One request to the Calls API, and the status it got."""

    at_s: float
    method: str
    path: str
    body: Mapping[str, Any]
    status: int


class FakeVonage:
    """Listens from `__aenter__` to `__aexit__`; `stop()` and `start()` take REST away and back."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.credentials = credentials or Credentials.generate()
        self.mode = RestMode.GOOD
        self.slow_s = 5.0
        self.violations: list[str] = []
        self.rest: list[RestRequest] = []
        #: Every phone there ever was.
        self.phones: list[PhoneCall] = []
        #: leg uuid -> the call it belongs to
        self.legs: dict[str, PhoneCall] = {}
        self._client: httpx.AsyncClient | None = None
        self._web = WebServer(self._answer)

    @property
    def url(self) -> str:
        """What belongs into VONAGE_API_URL."""
        return self._web.url

    @property
    def open_connections(self) -> int:
        """TCP connections to the REST API that are open now, idle ones included."""
        return self._web.open_connections

    @property
    def open_sockets(self) -> int:
        """Media sockets of all phones that are open now."""
        return sum(media.open for phone in self.phones for media in phone.media_legs)

    def environment(self) -> dict[str, str]:
        """The variables that connect a product to this stand-in; the key as PEM text."""
        return {
            "VONAGE_API_KEY": self.credentials.api_key,
            "VONAGE_APPLICATION_ID": self.credentials.application_id,
            "VONAGE_PRIVATE_KEY": self.credentials.private_key_pem,
            "VONAGE_SIGNATURE_SECRET": self.credentials.signature_secret,
            "VONAGE_API_URL": self.url,
        }

    @asynccontextmanager
    async def call(
        self,
        addresses: Addresses,
        *,
        caller: str | None = "447700900123",
        called: str = "442079460000",
        tone: int | None = None,
        faults: Faults | None = None,
        person: Person = "answers",
        answer_extra: Mapping[str, Any] | None = None,
        call_uuid: str | None = None,
        retry_pause_s: float = 1.0,
    ) -> AsyncIterator[PhoneCall]:
        """A call that begins now and is hung up on leaving, if it is still there.

        caller: the number, None when it is hidden. tone: the caller's tone (0 to 59), by default a
        new one for each call. person: what a person does to whom the call is connected.
        answer_extra: more fields of the answer webhook, `region_url` say.
        """
        leg = Leg(f"CON-{uuid.uuid4()}", caller, called, uuid=call_uuid or uuid.uuid4().hex)
        assert self._client is not None, "the stand-in is not running"
        phone = PhoneCall(
            caller=leg,
            tone=len(self.phones) % 60 if tone is None else tone,
            addresses=addresses,
            sender=WebhookSender(self.credentials, self._client, retry_pause_s=retry_pause_s),
            credentials=self.credentials,
            faults=faults or Faults(),
            person=person,
            answer_extra={"region_url": self.url, **(answer_extra or {})},
            legs=self.legs,
        )
        self.phones.append(phone)
        self.legs[phone.uuid] = phone
        # Owned here and awaited below; a TaskGroup would wrap the test's own errors in a group.
        life = asyncio.create_task(phone.live())
        try:
            yield phone
        finally:
            try:
                await phone.hang_up(timeout_s=60)
            finally:
                life.cancel()  # does nothing to a call that is over
            await life

    async def forge(
        self,
        url: str,
        payload: Mapping[str, Any],
        method: Method = "POST",
        forgery: Forgery | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """One webhook outside any call: signed well, or wrong in the given way."""
        assert self._client is not None, "the stand-in is not running"
        sender = WebhookSender(self.credentials, self._client)
        return await sender.attempt(url, payload, method, forgery=forgery, headers=headers)

    async def start(self) -> None:
        await self._web.start()

    async def stop(self) -> None:
        """Cuts every REST connection and refuses new ones; phones go on."""
        await self._web.stop()

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx.Timeout(None, connect=3.0)
        self._client = httpx.AsyncClient(
            limits=limits, timeout=timeout, trust_env=False, verify=False
        )
        await self._web.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._client is not None
        await self._client.aclose()
        await self._web.__aexit__(kind, error, trace)

    # ------------------------------------------------------------ REST

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            body = request.json() if request.body else {}
        except ValueError:
            body = None
        if isinstance(body, dict):
            status, reply = await self._judge(exchange, body)
        else:
            status, reply = self._complain(400, "the body is no JSON object")
        kept = body if isinstance(body, dict) else {}
        self.rest.append(RestRequest(request.at_s, request.method, request.path, kept, status))
        headers = {"Retry-After": "1"} if status == 429 else None
        await exchange.reply(status, b"" if status == 204 else reply, headers=headers)

    async def _judge(self, exchange: Exchange, body: dict[str, Any]) -> tuple[int, Any]:
        request = exchange.request
        if wrong := self.credentials.rest_mistake(request.bearer):
            return self._complain(401, f"{request.method} {request.path}: token: {wrong}")
        if self.mode is RestMode.RATE_LIMITED:
            return 429, _problem("Rate limited")
        if self.mode is RestMode.BROKEN:
            return 500, _problem("Internal error")
        if self.mode is RestMode.SLOW:
            await exchange.pause(self.slow_s)
        parts = request.path.strip("/").split("/")
        if parts[:2] != ["v1", "calls"] or len(parts) > 4:
            return self._complain(404, f"{request.method} {request.path} does not exist")
        if len(parts) == 2:
            return self._collection(request.method)
        phone = self.legs.get(parts[2])
        leg = phone.leg(parts[2]) if phone else None
        if phone is None or leg is None or self.mode is RestMode.UNKNOWN_LEGS:
            return 404, _problem("Not found")
        if len(parts) == 4:
            return self._media(request.method, parts[3], phone, leg, body)
        if request.method == "GET":
            return 200, leg.rest()
        if request.method != "PUT":
            return self._complain(405, f"{request.method} on a call")
        return await self._modify(phone, leg, body)

    def _collection(self, method: str) -> tuple[int, Any]:
        if method != "GET":
            return self._complain(501, f"{method} /v1/calls: this stand-in does not dial out")
        legs = [leg for uuid_, phone in self.legs.items() if (leg := phone.leg(uuid_))]
        calls = {"calls": [leg.rest() for leg in legs[-10:]]}
        page = {"count": len(legs), "page_size": 10, "record_index": 0}
        return 200, {**page, "_links": {"self": {"href": "/v1/calls"}}, "_embedded": calls}

    async def _modify(self, phone: PhoneCall, leg: Leg, body: dict[str, Any]) -> tuple[int, Any]:
        action = body.get("action")
        wanted = {"action", "destination"} if action == "transfer" else {"action"}
        if action not in _ACTIONS or body.keys() != wanted:
            return self._complain(400, f"PUT of a call with action {action!r}, keys {sorted(body)}")
        if leg.over:
            return 400, _problem("The call is over")
        if action == "hangup":
            await phone.rest_hangup(leg.uuid)
        elif action == "transfer":
            return await self._transfer(phone, leg, body["destination"])
        return 204, None

    async def _transfer(self, phone: PhoneCall, leg: Leg, destination: Any) -> tuple[int, Any]:
        known = isinstance(destination, dict) and destination.get("type") == "ncco"
        if not known or destination.keys() not in ({"type", "ncco"}, {"type", "url"}):
            return self._complain(400, "transfer: destination is neither an NCCO nor its URL")
        if leg is not phone.caller:
            return self._complain(400, "transfer of a leg that is not the caller's")
        if "url" in destination:
            return self._complain(501, "transfer to a URL: this stand-in takes NCCOs only")
        if wrong := complaints(destination["ncco"]):
            return self._complain(400, f"transfer: {wrong[0]}")
        phone.replace_flow(destination["ncco"])
        return 204, None

    def _media(
        self, method: str, name: str, phone: PhoneCall, leg: Leg, body: dict[str, Any]
    ) -> tuple[int, Any]:
        """talk, stream and dtmf of a leg."""
        if name not in _MEDIA or method not in ("PUT", "DELETE"):
            return self._complain(404, f"{method} {name} of a call")
        if leg.over:
            return 404, _problem("Not found")
        needed, allowed = _MEDIA[name]
        if method == "DELETE":
            return 200, {"message": f"{name.capitalize()} stopped", "uuid": leg.uuid}
        if not needed <= body.keys() <= allowed:
            return self._complain(400, f"{name} with the keys {sorted(body)}")
        if name == "talk":
            if not 1 <= len(body["text"]) <= 1500:
                return self._complain(400, "talk of no or more than 1500 characters")
            phone.talked.append(body["text"])
        elif name == "stream":
            phone.streamed += body["stream_url"]
        return 200, {"message": f"{name.capitalize()} started", "uuid": leg.uuid}

    def _complain(self, status: int, text: str) -> tuple[int, Any]:
        self.violations.append(f"REST: {text}")
        return status, _problem(text)


def _problem(title: str) -> dict[str, str]:
    return {"type": "https://developer.vonage.com/api-errors", "title": title}
