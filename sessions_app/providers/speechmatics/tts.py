"""Speech synthesis by Speechmatics: one HTTP request for each piece of text.

The service is a preview that speaks English only and stores what it is sent. Its errors come as
JSON or text, which must never reach a phone, where it would be loud noise.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from sessions_app.core.errors import SpeechError
from sessions_app.providers.tls import tls_context

#: English, all of them.
VOICES = ("sarah", "theo", "megan", "jack")

RATE_HZ = 16_000

_RETRYABLE_STATUS = frozenset({429, 500, 502, 503, 504})
_NOT_AUDIO = ("text/", "json", "html", "xml")
_WAV = b"RIFF"
#: No sound begins with so many bytes that are letters; a page or an error does.
_TEXT_BYTES = 32
_TEXT = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))
_BACKOFF_S = 0.25
_CLOSE_TIMEOUT_S = 0.8

#: A response, the rest of its body, and the first bytes of it.
_Begun = tuple[httpx.Response, AsyncIterator[bytes], bytes]


@dataclass(frozen=True, slots=True)
class SpeechmaticsConf:
    """Where and how to reach Speechmatics; the voice's name is appended to `url`.

    `begin_timeout_s` bounds all tries together, up to the first byte of audio.
    """

    api_key: str = field(repr=False)
    url: str
    connect_timeout_s: float = 2.0
    first_byte_timeout_s: float = 1.5
    stall_timeout_s: float = 2.0
    begin_timeout_s: float = 3.2
    attempts: int = 3


class SpeechmaticsVoice:
    """Implements `Voice`, for one call; it owns the call's HTTP client."""

    def __init__(
        self,
        conf: SpeechmaticsConf,
        voice: str,
        headers: Mapping[str, str] | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._conf = conf
        self._url = f"{conf.url.rstrip('/')}/{voice}"
        self._sleep = sleep
        self._rand = rand
        self._client = httpx.AsyncClient(
            headers={
                **(headers or {}),
                "Accept-Encoding": "identity",
                "Authorization": f"Bearer {conf.api_key}",
            },
            # Reads are bounded below, where the first byte and the next ones differ.
            timeout=httpx.Timeout(conf.first_byte_timeout_s, connect=conf.connect_timeout_s),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
            trust_env=False,
            verify=tls_context(),
            transport=transport,
        )

    @property
    def rate_hz(self) -> int:
        return RATE_HZ

    async def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """Stream `text` as s16le mono PCM in even-sized pieces; see `Voice.speak`."""
        response, chunks, piece = await self._begin(text)
        try:
            odd = b""
            while piece:
                pcm = odd + piece
                whole = len(pcm) & ~1
                odd = pcm[whole:]
                if whole:
                    yield pcm[:whole]
                piece = await self._next(chunks)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the client and what is still being spoken. Idempotent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._client.aclose()

    async def _begin(self, text: str) -> _Begun:
        """The answer from its first bytes on; only until there may a request be repeated."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._conf.begin_timeout_s
        attempt = 1
        while True:
            try:
                return await self._try(text, deadline)
            except SpeechError as exc:
                delay_s = _BACKOFF_S * 2 ** (attempt - 1) * (0.5 + 0.5 * self._rand())
                last = attempt >= self._conf.attempts or clock() + delay_s >= deadline
                if last or not exc.retryable:
                    raise
            await self._sleep(delay_s)
            attempt += 1

    async def _try(self, text: str, deadline: float) -> _Begun:
        timeout_at = asyncio.get_running_loop().time() + self._conf.first_byte_timeout_s
        if self._client.is_closed:
            raise SpeechError("the client is closed", retryable=False, code="closed")
        try:
            async with asyncio.timeout_at(min(timeout_at, deadline)):
                request = self._client.build_request(
                    "POST", self._url, params={"output_format": "pcm_16000"}, json={"text": text}
                )
                response = await self._client.send(request, stream=True)
                try:
                    _check(response)
                    chunks = response.aiter_bytes()
                    return response, chunks, await _head(chunks)
                except BaseException:
                    await response.aclose()
                    raise
        except TimeoutError:
            raise SpeechError("no audio in time", retryable=True, code="timeout") from None
        except httpx.InvalidURL as exc:
            raise SpeechError(f"bad address: {exc}", retryable=False, code="address") from None
        except httpx.HTTPError as exc:
            raise _transport_error(exc) from exc

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next bytes, empty at the end."""
        try:
            async with asyncio.timeout(self._conf.stall_timeout_s):
                return await anext(chunks, b"")
        except TimeoutError:
            raise SpeechError("the audio stopped coming", retryable=True, code="stalled") from None
        except httpx.HTTPError as exc:
            raise _transport_error(exc) from exc


def _check(response: httpx.Response) -> None:
    """Only audio may be read as audio."""
    status = response.status_code
    if status != httpx.codes.OK:
        raise SpeechError(f"HTTP {status}", retryable=status in _RETRYABLE_STATUS, code=str(status))
    content_type = response.headers.get("content-type", "").lower()
    if any(word in content_type for word in _NOT_AUDIO):
        raise SpeechError(f"not audio: {content_type[:60]}", retryable=False, code="not_audio")


async def _head(chunks: AsyncIterator[bytes]) -> bytes:
    """The first bytes, enough of them to tell PCM from a WAV header."""
    head = b""
    while len(head) < len(_WAV) and (chunk := await anext(chunks, b"")):
        head += chunk
    if head.startswith(_WAV):
        raise SpeechError("WAV instead of bare PCM", retryable=False, code="not_pcm")
    if len(head) < 2:
        raise SpeechError("no audio came", retryable=False, code="empty")
    if len(head) >= _TEXT_BYTES and all(byte in _TEXT for byte in head[:_TEXT_BYTES]):
        raise SpeechError("text instead of audio", retryable=False, code="not_audio")
    return head


def _transport_error(exc: httpx.HTTPError) -> SpeechError:
    return SpeechError(f"{type(exc).__name__}: {str(exc)[:100]}", retryable=True, code="transport")
