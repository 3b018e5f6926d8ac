"""The smallest call centre there can be: enough to prove the simulated phones, nothing more."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from tests.fakes.sockets import Closed, WebSocket
from tests.fakes.vonage import Addresses
from tests.fakes.web import Exchange, Request, Upgrade, WebServer

Talk = Callable[[WebSocket], Awaitable[None]]
FRAME = b"\1\1" * 320


async def nothing(socket: WebSocket) -> None:
    """Says nothing; what comes in is read all the same."""


class TinyProduct:
    """Answers every call with a media socket and does there what `talk` says."""

    def __init__(self, talk: Talk = nothing) -> None:
        self.talk = talk
        #: Replies to the next answer webhooks (status, body); then a good NCCO.
        self.answers: list[tuple[int, object]] = []
        self.answer_delay_s = 0.0
        #: NCCOs in reply to events with a status.
        self.replies: dict[str, object] = {}
        self.rate = 16_000
        self.endpoint: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.events: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.audio_frames = 0
        self.close_codes: list[int] = []
        self.authorizations: list[str] = []
        self._tickets: dict[str, str] = {}
        self._used: set[str] = set()
        self._web = WebServer(self._answer, self._media)

    @property
    def url(self) -> str:
        return self._web.url

    @property
    def addresses(self) -> Addresses:
        return Addresses.of(self.url)

    @property
    def statuses(self) -> list[str]:
        return [event.get("status", "") for event in self.events]

    async def __aenter__(self) -> Self:
        await self._web.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._web.__aexit__(kind, error, trace)

    def ncco(self, call: str) -> list[dict[str, Any]]:
        ticket = self._tickets.setdefault(call, secrets.token_urlsafe(16))
        endpoint = {
            "type": "websocket",
            "uri": f"{self.url.replace('http', 'ws')}/media/{ticket}",
            "content-type": f"audio/l16;rate={self.rate}",
            "headers": {"call": call},
            "authorization": {"type": "vonage"},
            **self.endpoint,
        }
        return [
            {
                "action": "connect",
                "eventType": "synchronous",
                "eventUrl": [self.addresses.event],
                "endpoint": [endpoint],
            }
        ]

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        self.requests.append(request)
        if request.path.endswith("/event"):
            event: Any = request.json()
            self.events.append(event)
            reply = self.replies.get(event.get("status", ""))
            await exchange.reply(200 if reply else 204, reply or b"")
            return
        if request.path.endswith("/fallback"):
            await exchange.reply(200, [{"action": "talk", "text": "We are sorry."}])
            return
        await asyncio.sleep(self.answer_delay_s)
        call = request.query.get("uuid") or json.loads(request.body)["uuid"]
        status, body = self.answers.pop(0) if self.answers else (200, self.ncco(call))
        await exchange.reply(status, body)

    async def _media(self, upgrade: Upgrade) -> None:
        ticket = upgrade.request.path.rpartition("/")[2]
        if ticket in self._used or ticket not in self._tickets.values():
            await upgrade.refuse(403)
            return
        self._used.add(ticket)
        self.authorizations.append(upgrade.request.bearer)
        socket = await upgrade.accept()
        listening = asyncio.create_task(self._listen(socket))
        try:
            await self.talk(socket)
            await listening
        except Closed:
            pass
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            self.close_codes.append(socket.close_code or 0)
            socket.abort()

    async def _listen(self, socket: WebSocket) -> None:
        while True:
            message = await socket.receive()
            if isinstance(message, str):
                self.text.append(message)
            else:
                self.audio_frames += 1
