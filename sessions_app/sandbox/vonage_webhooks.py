"""Vonage's webhooks as it sends them: signed, retried, in an order that nobody should rely on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import jwt

_RETRIED: Final = frozenset({429, 503, 504})
_OK: Final = range(200, 206)
_ANSWER_S: Final = 5.0
_EVENT_S: Final = 10.0
_ATTEMPTS: Final = 2
_REPLY_LIMIT: Final = 256 * 1024


class WebhookError(Exception):
    """A webhook was not answered as it should be; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account's side of a webhook's signature."""

    signature_secret: str
    api_key: str
    application_id: str

    def token(self, body: bytes | None = None) -> str:
        """The JWT of one webhook; ``payload_hash`` only when there is a body."""
        claims: dict[str, Any] = {
            "iss": "Vonage",
            "iat": int(time.time()),
            "jti": str(uuid.uuid4()),
            "api_key": self.api_key,
            "application_id": self.application_id,
        }
        if body is not None:
            claims["payload_hash"] = hashlib.sha256(body).hexdigest()
        return jwt.encode(claims, self.signature_secret, algorithm="HS256")


def timestamp(moment: float | None = None) -> str:
    """``2026-11-23T10:36:31.604Z``."""
    at = datetime.fromtimestamp(time.time() if moment is None else moment, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Webhooks:
    """Sends one call's webhooks."""

    def __init__(self, client: httpx.AsyncClient, account: Account, *, retry_s: float) -> None:
        self._client = client
        self._account = account
        self._retry_s = retry_s

    async def answer(self, base_url: str, method: str, params: dict[str, str]) -> bytes:
        """Asks for the NCCO: the answer URL twice, then the fallback URL twice. Raises
        ``WebhookError``.
        """
        url = f"{base_url}/webhooks/vonage/answer"
        try:
            return await self._send(url, method, params, _ANSWER_S)
        except WebhookError as error:
            reason = str(error)
        original = {"url": url, "type": "event"}
        fallback: dict[str, Any] = params | {"reason": reason, "original_request": original}
        if method == "GET":
            fallback["original_request"] = json.dumps(original)
        return await self._send(f"{base_url}/webhooks/vonage/fallback", method, fallback, _ANSWER_S)

    async def event(self, url: str, method: str, payload: dict[str, Any]) -> bytes:
        """Tells an event; the reply's body (an NCCO, or nothing). Raises ``WebhookError``."""
        return await self._send(url, method, payload, _EVENT_S)

    async def fetch(self, url: str) -> bytes:
        """Fetches an NCCO by URL, as a transfer may ask for. Raises ``WebhookError``."""
        return await self._send(url, "GET", {}, _ANSWER_S)

    async def _send(
        self, url: str, method: str, payload: dict[str, Any], timeout_s: float
    ) -> bytes:
        is_get = method == "GET"
        body = None if is_get else json.dumps(payload).encode()
        # A retry carries the same token: the receiver has to take it as a retry, not as a replay.
        headers = {"Authorization": f"Bearer {self._account.token(body)}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        trouble = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._retry_s)
            try:
                async with asyncio.timeout(timeout_s):
                    response = await self._client.request(
                        method,
                        url,
                        params=payload if is_get else None,
                        content=body,
                        headers=headers,
                    )
            except (httpx.TransportError, TimeoutError) as error:
                trouble = f"{_path(url)}: {type(error).__name__}"
                continue
            if response.status_code in _OK:
                if len(response.content) > _REPLY_LIMIT:
                    raise WebhookError(f"{_path(url)}: the reply is too large")
                return response.content
            trouble = f"{_path(url)}: HTTP {response.status_code}"
            if response.status_code not in _RETRIED:
                break
        raise WebhookError(trouble)


def _path(url: str) -> str:
    return httpx.URL(url).path
