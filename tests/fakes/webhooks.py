"""Vonage's side of the webhooks: signed, retried as documented, every delivery kept.

Sources disagree about retries; the strict reading is: two attempts at the address, a second apart,
when the connection fails, the answer takes longer than five seconds (ten for events) or is 429, 503
or 504; then two attempts at the fallback address; then the platform gives up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

import httpx

from tests.fakes.signing import Credentials, Forgery

Method = Literal["GET", "POST"]
_RETRIED = (429, 503, 504)
_GOOD = range(200, 206)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the application's webhooks go, and how they are asked."""

    answer: str
    event: str
    fallback: str
    answer_method: Method = "GET"
    event_method: Method = "POST"

    @classmethod
    def of(
        cls, base_url: str, answer_method: Method = "GET", event_method: Method = "POST"
    ) -> Addresses:
        """The addresses of the contract under this server."""
        base = f"{base_url.rstrip('/')}/webhooks/vonage"
        return cls(
            f"{base}/answer", f"{base}/event", f"{base}/fallback", answer_method, event_method
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt: what was sent, and what came back (status 0: nothing)."""

    url: str
    method: Method
    payload: Mapping[str, Any]
    at_s: float
    elapsed_ms: float
    status: int
    body: bytes
    content_type: str = ""

    @property
    def good(self) -> bool:
        return self.status in _GOOD

    @property
    def worth_another_try(self) -> bool:
        return self.status == 0 or self.status in _RETRIED

    def ncco(self) -> list[Mapping[str, Any]] | None:
        """The NCCO in the body; None for an empty body. Raises ValueError for anything else."""
        if not self.good or not self.body.strip():
            return None
        found = json.loads(self.body)
        if not isinstance(found, list):
            raise ValueError("the body is JSON but no NCCO")
        return found


@dataclass
class WebhookSender:
    """Sends the webhooks of an application. `deliveries` has every attempt there was."""

    credentials: Credentials
    client: httpx.AsyncClient
    #: The pause before a second attempt.
    retry_pause_s: float = 1.0
    answer_timeout_s: float = 5.0
    event_timeout_s: float = 10.0
    deliveries: list[Delivery] = field(default_factory=list)

    async def attempt(
        self,
        url: str,
        payload: Mapping[str, Any],
        method: Method = "POST",
        *,
        timeout_s: float = 10.0,
        forgery: Forgery | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """One attempt, with this account's signature or a forged one. Never raises."""
        content = b"" if method == "GET" else json.dumps(payload).encode()
        target = url
        if method == "GET":
            target = f"{url}?{urlencode({k: _plain(v) for k, v in payload.items()})}"
        sent = {**self.credentials.authorization(content, forgery), **(headers or {})}
        if content:
            sent["Content-Type"] = "application/json"
        at_s = time.monotonic()
        status, body, kind = 0, b"", ""
        try:
            # The whole exchange is bounded, as the platform's socket timeout is.
            async with asyncio.timeout(timeout_s):
                reply = await self.client.request(method, target, content=content, headers=sent)
            status, body = reply.status_code, reply.content
            kind = reply.headers.get("content-type", "")
        except (httpx.TransportError, TimeoutError):
            pass
        elapsed_ms = (time.monotonic() - at_s) * 1000
        delivery = Delivery(url, method, payload, at_s, elapsed_ms, status, body, kind)
        self.deliveries.append(delivery)
        return delivery

    async def deliver(
        self,
        url: str,
        payload: Mapping[str, Any],
        method: Method,
        *,
        fallback: str = "",
        timeout_s: float = 10.0,
    ) -> Delivery:
        """Two attempts, then two at the fallback; the last delivery, good or not."""
        first = await self._twice(url, payload, method, timeout_s)
        if first.good or not fallback:
            return first
        original = {"url": url, "type": "event" if "status" in payload else "answer"}
        more = {**payload, "reason": "Connection closed.", "original_request": original}
        return await self._twice(fallback, more, method, timeout_s)

    async def _twice(
        self, url: str, payload: Mapping[str, Any], method: Method, timeout_s: float
    ) -> Delivery:
        delivery = await self.attempt(url, payload, method, timeout_s=timeout_s)
        if delivery.worth_another_try:
            await asyncio.sleep(self.retry_pause_s)
            delivery = await self.attempt(url, payload, method, timeout_s=timeout_s)
        return delivery


def _plain(value: object) -> str:
    """A value as it stands in a query string."""
    return value if isinstance(value, str) else json.dumps(value)
