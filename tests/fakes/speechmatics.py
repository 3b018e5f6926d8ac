"""A stand-in for Speechmatics' text to speech: `POST /generate/{voice}?output_format=pcm_16000`.

    async with FakeSpeechmatics() as tts:
        tts.replies.append(TtsReply(status=503))          # the first request fails
        tts.otherwise = TtsReply(chunk_bytes=(333,))      # then odd chunks, splitting samples
        ...start the product with SPEECHMATICS_TTS_URL=tts.url...
        assert tts.requests[0].text == "Good morning."
        assert tts.cancelled == 0 and tts.open_connections == 0
        assert tts.violations == []                       # always assert this

The audio of the nth good request is `pattern.voice_pcm(n % 16)`, 60 ms a character unless told
otherwise, sent `speed` times faster than real time, so that a client which stops listening is seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from types import TracebackType
from typing import Self

from tests.fakes.pattern import VOICE_CYCLE_MS, VOICES, voice_pcm
from tests.fakes.waiting import eventually
from tests.fakes.web import ClientGone, Exchange, Request, WebServer

RATE = 16_000
KNOWN_VOICES = ("sarah", "theo", "megan", "jack")


class Outcome(StrEnum):
    """How a request went."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    CANCELLED = "cancelled"  # the client went away in the middle
    CUT = "cut"  # this side did, as scripted
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TtsReply:
    """How one request is answered.

    status, content_type, body: anything but 200 is answered whole; 200 with a `body` too (an HTML
        page where audio was expected, say).
    headers_delay_s, first_byte_delay_s: before the status line, and between it and the audio.
    chunk_bytes: sizes of the chunks, in turn; odd ones end in the middle of a sample.
    speed: how many times faster than real time.
    stall_after_ms: says nothing more after so much audio, and holds the connection.
    cut_after_ms: drops the connection after so much audio, without the end of the response.
    """

    status: int = 200
    content_type: str = "audio/pcm"
    body: bytes = b""
    headers_delay_s: float = 0.0
    first_byte_delay_s: float = 0.02
    ms_per_character: int = 60
    audio_ms: int | None = None
    chunk_bytes: tuple[int, ...] = (4096,)
    speed: float = 20.0
    stall_after_ms: int | None = None
    cut_after_ms: int | None = None


@dataclass(slots=True)
class TtsRequest:
    """One request: what was to be said, and what became of it."""

    at_s: float
    voice_name: str
    text: str
    #: Number of the pattern's voice, and how long it speaks in all and was sent so far.
    voice: int = 0
    audio_ms: int = 0
    sent_ms: float = 0.0
    first_byte_s: float | None = None
    over_s: float | None = None
    outcome: Outcome = Outcome.STREAMING


class FakeSpeechmatics:
    """Listens from `__aenter__` to `__aexit__`; `stop()` and `start()` take it away and back."""

    def __init__(self, api_key: str = "speechmatics-test-key") -> None:
        self.api_key = api_key
        #: Answers to the next requests; then `otherwise` for ever.
        self.replies: deque[TtsReply] = deque()
        self.otherwise = TtsReply()
        #: How a request is answered whose text contains this; for calls beside each other.
        self.by_text: dict[str, TtsReply] = {}
        self.requests: list[TtsRequest] = []
        self.violations: list[str] = []
        self._voices = 0
        self._web = WebServer(self._answer)

    @property
    def url(self) -> str:
        """What belongs into SPEECHMATICS_TTS_URL."""
        return f"{self._web.url}/generate"

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now, idle ones included."""
        return self._web.open_connections

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return self._web.in_flight

    @property
    def cancelled(self) -> int:
        """Requests whose client went away before the end of the audio."""
        return sum(request.outcome is Outcome.CANCELLED for request in self.requests)

    async def request(self, nth: int = 1, timeout_s: float = 5.0) -> TtsRequest:
        """The nth request (from 1); waits for it."""
        what = f"text-to-speech request number {nth}"
        return (await eventually(what, lambda: self.requests[nth - 1 : nth], timeout_s))[0]

    async def start(self) -> None:
        await self._web.start()

    async def stop(self) -> None:
        """Cuts every connection and refuses new ones, as a supplier's outage would."""
        await self._web.stop()

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

    async def _answer(self, exchange: Exchange) -> None:
        if refusal := self._refusal(exchange.request):
            status, complaint = refusal
            self.violations.append(complaint)
            await exchange.reply(status, {"error": complaint})
            return
        body = exchange.request.json()
        assert isinstance(body, dict)
        name = exchange.request.path.rpartition("/")[2]
        request = TtsRequest(exchange.request.at_s, name, body["text"])
        self.requests.append(request)
        reply = self._reply_to(request.text)
        try:
            await self._serve(exchange, request, reply)
        except ClientGone:
            request.outcome = Outcome.CANCELLED
            raise
        finally:
            request.over_s = time.monotonic()

    def _reply_to(self, text: str) -> TtsReply:
        for part, reply in self.by_text.items():
            if part in text:
                return reply
        return self.replies.popleft() if self.replies else self.otherwise

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Status and complaint about a request that the documentation does not allow."""
        if request.method != "POST" or request.path.rpartition("/")[0] != "/generate":
            return 404, f"{request.method} {request.path} does not exist"
        name = request.path.rpartition("/")[2]
        if name not in KNOWN_VOICES:
            return 404, f"voice {name!r} does not exist"
        if request.bearer != self.api_key:
            return 401, "the key is missing or wrong"
        query = request.query
        if query.get("output_format") != "pcm_16000" or query.keys() - {"output_format", "sm-app"}:
            return 400, f"query {sorted(query.items())} is not output_format=pcm_16000"
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return 415, "the body is not declared as JSON"
        try:
            body = request.json()
        except ValueError:
            return 400, "the body is no JSON"
        if not isinstance(body, dict) or body.keys() != {"text"}:
            return 422, "the body is not an object with only `text`"
        if not isinstance(body["text"], str) or not body["text"].strip():
            return 422, "text is empty"
        if "<speak" in body["text"]:
            return 422, "SSML is not understood and would be read out"
        return None

    async def _serve(self, exchange: Exchange, request: TtsRequest, reply: TtsReply) -> None:
        await exchange.pause(reply.headers_delay_s)
        if reply.status != 200 or reply.body:
            request.outcome = Outcome.REFUSED
            await exchange.reply(reply.status, reply.body or b"{}", reply.content_type)
            return
        request.voice = self._voices % VOICES
        self._voices += 1
        request.audio_ms = reply.audio_ms or reply.ms_per_character * len(request.text)
        await exchange.begin(200, reply.content_type)
        await exchange.pause(reply.first_byte_delay_s)
        request.first_byte_s = time.monotonic()
        await self._stream(exchange, request, reply)

    async def _stream(self, exchange: Exchange, request: TtsRequest, reply: TtsReply) -> None:
        began_s = time.monotonic()
        for chunk in _chunks(request.voice, request.audio_ms, reply.chunk_bytes):
            if _reached(reply.cut_after_ms, request.sent_ms):
                request.outcome = Outcome.CUT
                exchange.cut()
                return
            if _reached(reply.stall_after_ms, request.sent_ms):
                while True:
                    await exchange.pause(60)
            await exchange.send(chunk)
            request.sent_ms += 1000 * len(chunk) / (2 * RATE)
            due_s = began_s + request.sent_ms / 1000 / reply.speed
            await exchange.pause(due_s - time.monotonic())
        await exchange.end()
        request.outcome = Outcome.COMPLETE


def _reached(limit_ms: int | None, sent_ms: float) -> bool:
    return limit_ms is not None and sent_ms >= limit_ms


def _chunks(voice: int, audio_ms: int, sizes: tuple[int, ...]) -> Iterator[bytes]:
    """A voice's audio in chunks of these sizes, in turn; made second by second."""
    size = cycle(sizes)
    wanted, ready = next(size), bytearray()
    for start_ms in range(0, audio_ms, 1000):
        length_ms = min(1000, audio_ms - start_ms)
        ready += voice_pcm(voice, start_ms % VOICE_CYCLE_MS, length_ms, RATE)
        while len(ready) >= wanted:
            yield bytes(ready[:wanted])
            del ready[:wanted]
            wanted = next(size)
    if ready:
        yield bytes(ready)
