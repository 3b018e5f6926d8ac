"""Vonage's REST API for live calls (`/v1/calls/{uuid}`), over the owner's httpx client.

The SDK's own client blocks, and repeats a request on a dropped connection as often as its pool is
large.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import jwt
import stamina
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

DEFAULT_API_URL: Final = "https://api.nexmo.com"
#: Statuses of a leg that is over.
TERMINAL: Final = frozenset(
    {"completed", "failed", "rejected", "busy", "cancelled", "unanswered", "timeout"}
)
JWT_LIFETIME_S: Final = 15 * 60

_REGION: Final = re.compile(r"(https://(?:[a-z0-9-]{1,63}\.)*(?:vonage|nexmo)\.com)/?")
_MAX_REGION_CHARS: Final = 255
_MAX_UUID_CHARS: Final = 256
_MAX_BODY_BYTES: Final = 64 * 1024
_MAX_WORDS_CHARS: Final = 200
_MIN_KEY_BITS: Final = 2048
_KEY_WANTED: Final = "wanted the application's RSA private key: PEM text, or the path of a PEM file"


class Outcome(StrEnum):
    """How a command to a leg ended, when it ended well."""

    DONE = "done"
    LEG_GONE = "leg_gone"
    """Vonage knows no such leg (404): it is over, or lives in another region than the one asked."""


class VonageError(Exception):
    """Vonage did not carry out a request. `retryable` says whether trying again later can help.

    `status` is the HTTP status, None if there was no answer; `title` and `detail` are Vonage's own
    words, shortened, long numbers masked.
    """

    def __init__(
        self,
        what: str,
        *,
        retryable: bool,
        status: int | None = None,
        title: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(": ".join(part for part in (what, title, detail) if part))
        self.retryable = retryable
        self.status = status
        self.title = title
        self.detail = detail


@dataclass(frozen=True, slots=True)
class CallInfo:
    """A leg as Vonage sees it. Numbers are left out on purpose; absent texts are "".

    Times are ISO 8601, `rate` and `price` decimal strings in EUR; these and `duration_s` come when
    the leg is over.
    """

    uuid: str
    conversation_uuid: str
    status: str
    direction: str
    start_time: str
    end_time: str
    duration_s: int | None
    rate: str
    price: str

    @property
    def over(self) -> bool:
        return self.status in TERMINAL


class VonageCalls:
    """Commands to live legs. `http` belongs to the caller, who closes it.

    Every method tries again on 429, 5xx and failures of the network, with jittered backoff, ends
    within `total_timeout_s` whatever happens, and raises VonageError for whatever Vonage or the
    network did wrong. A try whose answer was lost may have been carried out: hanging up twice ends
    as LEG_GONE, a transfer started twice begins its new flow again.

    Where a method takes `region_url` (the one the call's webhook brought), it is used if it is
    Vonage's, otherwise `api_url`; `extra_headers` are added to the request.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        application_id: str,
        private_key: str,
        api_url: str = DEFAULT_API_URL,
        clock: Callable[[], float] = time.time,
        attempts: int = 4,
        attempt_timeout_s: float = 1.2,
        total_timeout_s: float = 2.5,
    ) -> None:
        """ValueError if `private_key` (PEM text) or `api_url` cannot be used."""
        self._http = http
        self._application_id = application_id
        # Kept parsed: reading the PEM anew for each request would hold up the event loop, and with
        # it every caller's audio, for some 30 ms.
        self._key = _rsa_key(private_key)
        self._api_url = _checked_api_url(api_url)
        self._clock = clock
        self._attempts = attempts
        self._attempt_timeout_s = attempt_timeout_s
        self._total_timeout_s = total_timeout_s

    async def hang_up(
        self,
        uuid: str,
        region_url: str | None = None,
        *,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Outcome:
        """End a leg. On the media leg this is the way that causes no `disconnected` event."""
        return await self._command(uuid, {"action": "hangup"}, region_url, extra_headers)

    async def transfer(
        self,
        uuid: str,
        ncco: Sequence[Mapping[str, Any]],
        region_url: str | None = None,
        *,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Replace what a leg is doing by `ncco`."""
        destination = {"type": "ncco", "ncco": list(ncco)}
        command = {"action": "transfer", "destination": destination}
        return await self._command(uuid, command, region_url, extra_headers)

    async def get_call(
        self,
        uuid: str,
        region_url: str | None = None,
        *,
        extra_headers: Mapping[str, str] | None = None,
    ) -> CallInfo | None:
        """What Vonage knows of a leg; None if it knows nothing (kept two days by default)."""
        body = await self._request("GET", uuid, None, region_url, extra_headers)
        return None if body is None else _call_info(body)

    async def _command(
        self,
        uuid: str,
        command: Mapping[str, Any],
        region_url: str | None,
        extra_headers: Mapping[str, str] | None,
    ) -> Outcome:
        content = json.dumps(command).encode()
        body = await self._request("PUT", uuid, content, region_url, extra_headers)
        return Outcome.LEG_GONE if body is None else Outcome.DONE

    async def _request(
        self,
        method: str,
        uuid: str,
        content: bytes | None,
        region_url: str | None,
        extra_headers: Mapping[str, str] | None,
    ) -> bytes | None:
        """The answer's body, None for 404; anything else that is no success raises VonageError."""
        url = f"{trusted_region(region_url) or self._api_url}/v1/calls/{_path_segment(uuid)}"
        headers = httpx.Headers(dict(extra_headers or {}))
        headers["Authorization"] = f"Bearer {self._application_jwt()}"
        headers["Accept"] = "application/json"
        # Nothing compressed, so that the bound on the body is a bound on memory.
        headers["Accept-Encoding"] = "identity"
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            method, url, headers=headers, content=content, timeout=self._attempt_timeout_s
        )
        return await self._persist(request)

    async def _persist(self, request: httpx.Request) -> bytes | None:
        last: VonageError | None = None
        try:
            # stamina's own timeout looks at the clock only between attempts.
            async with asyncio.timeout(self._total_timeout_s):
                async for attempt in stamina.retry_context(
                    on=_can_retry,
                    attempts=self._attempts,
                    timeout=None,
                    wait_initial=0.1,
                    wait_max=0.8,
                    wait_jitter=0.2,
                ):
                    with attempt:
                        try:
                            return await self._attempt(request)
                        except VonageError as error:
                            last = error
                            raise
        except TimeoutError:
            waited = f"given up after {self._total_timeout_s} s ({last or 'no answer'})"
            raise VonageError(
                f"Vonage {request.method} call: {waited}",
                retryable=True,
                status=last.status if last else None,
            ) from None
        raise AssertionError("the retry context ends by a return or an error")

    async def _attempt(self, request: httpx.Request) -> bytes | None:
        try:
            # No redirects: our JWT goes to Vonage only.
            response = await self._http.send(request, stream=True, follow_redirects=False)
            async with aclosing(response):
                body = await _bounded_body(response)
        except httpx.RequestError as error:
            what = f"Vonage {request.method} call: {type(error).__name__}"
            raise VonageError(what, retryable=True) from error
        if response.is_success:
            return body
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise _refusal(request.method, response.status_code, body)

    def _application_jwt(self) -> str:
        iat = int(self._clock())
        claims = {
            "application_id": self._application_id,
            "iat": iat,
            "exp": iat + JWT_LIFETIME_S,
            "jti": str(uuid4()),
        }
        return jwt.encode(claims, self._key, algorithm="RS256")


def trusted_region(url: str | None) -> str | None:
    """`url` as `https://host` if our JWT may be sent there, else None.

    That is: https, a plain host name that is or lies under vonage.com or nexmo.com, and nothing
    else, neither user, port, path nor query.
    """
    # isascii() first, since lower() turns some other letters (the Kelvin sign) into ASCII ones.
    if url is None or len(url) > _MAX_REGION_CHARS or not url.isascii():
        return None
    found = _REGION.fullmatch(url.lower())
    return found[1] if found else None


def load_private_key(text_or_path: str) -> str:
    r"""The PEM text of the application's private key, from that text or from the path of its file.

    Mends what environment variables do to PEM: literal `\n` instead of newlines, quotes around it.
    Raises ValueError, saying what was read and what is wanted, never echoing the value.
    """
    text = text_or_path.strip().strip("\"'")
    if not text:
        raise ValueError(f"read nothing, {_KEY_WANTED}")
    if "-----BEGIN" not in text:
        text = _read_key_file(text)
    pem = text.replace("\\r", "").replace("\\n", "\n").replace("\r\n", "\n").strip() + "\n"
    _rsa_key(pem)
    return pem


def _read_key_file(path: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="ascii") as file:
            return file.read(_MAX_BODY_BYTES)
    except (OSError, ValueError, RuntimeError) as error:
        # Not the value, which may be a mangled key; nor OSError's own text, which quotes it.
        why = getattr(error, "strerror", None) or type(error).__name__
        read = f"read neither PEM text nor a readable file ({why})"
        raise ValueError(f"{read}, {_KEY_WANTED}") from None


def _rsa_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ValueError(f"read a key locked by a password, {_KEY_WANTED} without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"read text that holds no whole private key, {_KEY_WANTED}") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"read a key that is not RSA, {_KEY_WANTED}")
    if key.key_size < _MIN_KEY_BITS:
        # RFC 7518, section 3.3.
        raise ValueError(f"read a key of {key.key_size} bits, wanted at least {_MIN_KEY_BITS}")
    return key


def _checked_api_url(api_url: str) -> str:
    parts = urlsplit(api_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"read an API address of scheme {parts.scheme!r} and host {parts.hostname!r}, "
            f"wanted one like {DEFAULT_API_URL}"
        )
    return api_url.rstrip("/")


def _path_segment(uuid: str) -> str:
    """A leg's uuid, opaque to us, as one path segment; empty or dots would name something else."""
    if not uuid.strip(". ") or len(uuid) > _MAX_UUID_CHARS:
        raise VonageError(f"read a leg's uuid of {len(uuid)} characters", retryable=False)
    return quote(uuid, safe="", errors="replace")


def _can_retry(error: Exception) -> bool:
    return isinstance(error, VonageError) and error.retryable


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            break
    return bytes(body[:_MAX_BODY_BYTES])


def _refusal(method: str, status: int, body: bytes) -> VonageError:
    problem = _json_object(body)
    return VonageError(
        f"Vonage {method} call: HTTP {status}",
        retryable=status == httpx.codes.TOO_MANY_REQUESTS or status >= 500,
        status=status,
        title=_words(problem.get("title") or problem.get("error_title")),
        detail=_words(problem.get("detail")),
    )


def _words(value: object) -> str:
    """A peer's words made fit for a log: one line, short, no phone number in full."""
    if not isinstance(value, str):
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return re.sub(r"[0-9]{5,}(?=[0-9]{2})", "…", line)[:_MAX_WORDS_CHARS]


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _call_info(body: bytes) -> CallInfo:
    fields = _json_object(body)
    if not isinstance(fields.get("uuid"), str) or not isinstance(fields.get("status"), str):
        raise VonageError("Vonage GET call: answered without a uuid and status", retryable=False)

    def text(name: str) -> str:
        value = fields.get(name)
        return value if isinstance(value, str) else ""

    # Vonage writes its figures as strings; a number would do as well.
    duration = re.fullmatch("[0-9]{1,9}", str(fields.get("duration")))
    return CallInfo(
        uuid=text("uuid"),
        conversation_uuid=text("conversation_uuid"),
        status=text("status"),
        direction=text("direction"),
        start_time=text("start_time"),
        end_time=text("end_time"),
        duration_s=int(duration[0]) if duration else None,
        rate=text("rate"),
        price=text("price"),
    )
