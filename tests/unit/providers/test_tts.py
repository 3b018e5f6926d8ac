"""Speech synthesis: only audio comes out, in time, and nothing stays open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.errors import SpeechError
from sessions_app.providers.base import Voice
from sessions_app.providers.speechmatics.tts import SpeechmaticsConf, SpeechmaticsVoice
from tests.unit.providers.realtime_server import run_clean

KEY = "sm-secret"
URL = "https://tts.test/generate"
AUDIO = {"content-type": "audio/pcm"}

Answer = httpx.Response | Exception


class Chunks(httpx.AsyncByteStream):
    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.closings = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        self.closings += 1


class Service:
    """Gives one answer for each request, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def voice(self, **headers: str) -> SpeechmaticsVoice:
        return SpeechmaticsVoice(
            SpeechmaticsConf(KEY, URL),
            "sarah",
            headers,
            transport=httpx.MockTransport(self),
            sleep=self.sleep,
            rand=lambda: 1.0,
        )


def audio(*chunks: bytes | Exception, **headers: str) -> httpx.Response:
    return httpx.Response(200, headers={**AUDIO, **headers}, stream=Chunks(*chunks))


def spoken(service: Service, text: str = "Hello.") -> list[bytes]:
    async def scenario() -> list[bytes]:
        voice = service.voice()
        try:
            return [pcm async for pcm in voice.speak(text)]
        finally:
            await voice.close()

    return asyncio.run(scenario())


def refused(service: Service) -> SpeechError:
    with pytest.raises(SpeechError) as caught:
        spoken(service)
    assert KEY not in str(caught.value)
    return caught.value


# --------------------------------------------------------------------------- the request


def test_the_request_is_the_one_speechmatics_documents() -> None:
    service = Service(audio(b"\1\0\2\0"))

    async def scenario() -> None:
        voice: Voice = service.voice(**{"X-Fault": "none"})
        assert voice.rate_hz == 16000
        assert [pcm async for pcm in voice.speak('Say "hé".')] == [b"\1\0\2\0"]
        await voice.close()
        await voice.close()

    asyncio.run(scenario())
    [request] = service.requests
    assert request.method == "POST"
    assert str(request.url) == f"{URL}/sarah?output_format=pcm_16000"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-fault"] == "none"
    assert json.loads(request.content) == {"text": 'Say "hé".'}


def test_the_key_is_not_in_the_configurations_text() -> None:
    assert KEY not in repr(SpeechmaticsConf(KEY, URL))


# --------------------------------------------------------------------------- audio


@given(st.lists(st.binary(max_size=7), max_size=12))
def test_audio_comes_in_even_pieces_with_nothing_lost_but_half_a_sample(
    chunks: list[bytes],
) -> None:
    sent = b"".join(chunks)
    service = Service(audio(*chunks))
    if len(sent) < 2 or sent.startswith(b"RIFF"):
        refused(service)
        return

    pieces = spoken(service)

    assert all(piece and len(piece) % 2 == 0 for piece in pieces)
    assert b"".join(pieces) == sent[: len(sent) & ~1]


@pytest.mark.parametrize("chunks", [[b"RIFF$\0\0\0WAVE"], [b"RI", b"F", b"F....."]])
def test_a_wav_header_is_never_played(chunks: list[bytes]) -> None:
    error = refused(Service(audio(*chunks)))

    assert (error.code, error.retryable) == ("not_pcm", False)


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html>\n<html><body>Bad gateway</body></html>",
        b'{"error": {"code": 500, "message": "no voice"}}',
    ],
)
def test_a_text_that_calls_itself_audio_is_never_played(body: bytes) -> None:
    error = refused(Service(audio(body)))

    assert (error.code, error.retryable) == ("not_audio", False)


@pytest.mark.parametrize("chunks", [[], [b""], [b"\1"]])
def test_an_empty_body_is_an_error(chunks: list[bytes]) -> None:
    service = Service(audio(*chunks))

    assert refused(service).code == "empty"
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain; charset=utf-8", "text/html", "application/problem+json"],
)
def test_words_are_never_played(content_type: str) -> None:
    error = refused(
        Service(
            audio(
                b'{"error": {"code": 500, "message": "no voice"}}', **{"content-type": content_type}
            )
        )
    )

    assert error.code == "not_audio"


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 404, 422])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
    service = Service(httpx.Response(status, headers=AUDIO, content=b"\1\0" * 99))

    error = refused(service)

    assert (error.code, error.retryable) == (str(status), False)
    assert len(service.requests) == 1


# --------------------------------------------------------------------------- again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_service_is_asked_three_times_in_all(status: int) -> None:
    service = Service(httpx.Response(status, json={"error": "busy"}))

    error = refused(service)

    assert (error.code, error.retryable) == (str(status), True)
    assert len(service.requests) == 3
    assert service.waits == [0.25, 0.5]


@pytest.mark.parametrize(
    "first",
    [
        httpx.Response(503),
        httpx.ConnectError("no"),
        httpx.ReadTimeout("slow"),
        audio(httpx.ReadError("broke before the first byte")),
    ],
)
def test_before_the_first_byte_a_second_try_helps(first: Answer) -> None:
    service = Service(first, audio(b"\1\0\2\0"))

    assert spoken(service) == [b"\1\0\2\0"]
    assert len(service.requests) == 2


def test_after_the_first_byte_nothing_is_said_twice() -> None:
    service = Service(audio(b"\1\0\2\0", httpx.ReadError("broke")))
    heard = []

    async def scenario() -> None:
        voice = service.voice()
        with pytest.raises(SpeechError) as caught:
            async for pcm in voice.speak("Hello."):
                heard.append(pcm)
        assert caught.value.retryable
        await voice.close()

    asyncio.run(scenario())
    assert heard == [b"\1\0\2\0"]
    assert len(service.requests) == 1


def test_a_response_that_is_refused_is_closed() -> None:
    stream = Chunks(b"<html>")
    service = Service(httpx.Response(200, headers={"content-type": "text/html"}, stream=stream))

    refused(service)

    assert stream.closings


def test_a_listener_that_leaves_closes_the_response() -> None:
    stream = Chunks(b"\1\0\2\0", b"\3\0")

    async def scenario() -> None:
        voice = Service(httpx.Response(200, headers=AUDIO, stream=stream)).voice()
        async with aclosing(voice.speak("Hello.")) as speech:
            await anext(speech)
            assert stream.closings == 0
        assert stream.closings
        await voice.close()

    asyncio.run(scenario())


def test_a_closed_voice_does_not_speak() -> None:
    async def scenario() -> None:
        voice = Service(audio(b"\1\0")).voice()
        await voice.close()
        with pytest.raises(SpeechError) as caught:
            await anext(voice.speak("Hello."))
        assert not caught.value.retryable

    asyncio.run(scenario())


# --------------------------------------------------------------------------- a real socket


class Peer:
    """A server's end of one HTTP request, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def begin(self, content_type: str = "audio/pcm") -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n"
        self.writer.write(head.encode() + b"\r\n")
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def until_left(self) -> None:
        await self.reader.read()


@asynccontextmanager
async def listening(
    script: Callable[[Peer], Awaitable[None]],
) -> AsyncIterator[tuple[str, list[Any]]]:
    requests: list[Any] = []
    finished: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        finished.append(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            requests.append(json.loads(await reader.readexactly(length)))
            await script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/generate", requests
        async with asyncio.timeout(30):
            await asyncio.gather(*finished)


def conf(url: str, **limits: float) -> SpeechmaticsConf:
    return SpeechmaticsConf(KEY, url, **limits)  # type: ignore[arg-type]


def test_leaving_a_real_stream_ends_it_at_the_server() -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.chunk(b"\1\0" * 320)
        await peer.until_left()
        left.set()

    async def scenario() -> None:
        async with listening(script) as (url, _):
            voice = SpeechmaticsVoice(conf(url), "theo")
            async with aclosing(voice.speak("Hello.")) as speech:
                assert await anext(speech) == b"\1\0" * 320
            async with asyncio.timeout(30):
                await left.wait()
            await voice.close()

    run_clean(scenario)


def test_cancelling_the_reader_ends_a_real_stream() -> None:
    left, begun = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.chunk(b"\1\0" * 320)
        await peer.until_left()
        left.set()

    async def scenario() -> None:
        async with listening(script) as (url, _):
            voice = SpeechmaticsVoice(conf(url), "theo")

            async def listen() -> None:
                async for _ in voice.speak("Hello."):
                    begun.set()

            listener = asyncio.create_task(listen())
            async with asyncio.timeout(30):
                await begun.wait()
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)
                await left.wait()
            await voice.close()

    run_clean(scenario)


async def mute(peer: Peer) -> None:
    await peer.until_left()


async def head_only(peer: Peer) -> None:
    await peer.begin()
    await peer.until_left()


@pytest.mark.parametrize("script", [mute, head_only])
def test_a_service_that_does_not_begin_is_given_up(script: Any) -> None:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    async def scenario() -> None:
        async with listening(script) as (url, _):
            limits = {"first_byte_timeout_s": 0.05, "begin_timeout_s": 30.0}
            voice = SpeechmaticsVoice(conf(url, **limits), "theo", sleep=no_sleep)
            with pytest.raises(SpeechError) as caught:
                await anext(voice.speak("Hello."))
            assert caught.value.code in ("timeout", "transport")
            assert caught.value.retryable
            await voice.close()

    run_clean(scenario)
    assert len(waits) == 2


def test_all_tries_together_are_bounded() -> None:
    waits: list[float] = []

    async def no_sleep(seconds: float) -> None:
        waits.append(seconds)

    async def scenario() -> None:
        async with listening(mute) as (url, _):
            limits = {"first_byte_timeout_s": 600.0, "begin_timeout_s": 0.1}
            voice = SpeechmaticsVoice(conf(url, **limits), "theo", sleep=no_sleep)
            with pytest.raises(SpeechError) as caught:
                async with asyncio.timeout(30):
                    await anext(voice.speak("Hello."))
            assert caught.value.code == "timeout"
            await voice.close()

    run_clean(scenario)
    assert waits == []


def test_a_stream_that_stops_coming_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.chunk(b"\1\0" * 320)
        await peer.until_left()

    async def scenario() -> None:
        async with listening(script) as (url, requests):
            voice = SpeechmaticsVoice(conf(url, stall_timeout_s=0.05), "theo")
            heard = []
            with pytest.raises(SpeechError) as caught:
                async for pcm in voice.speak("Hello."):
                    heard.append(pcm)
            assert caught.value.code == "stalled"
            assert b"".join(heard) == b"\1\0" * 320
            assert len(requests) == 1
            await voice.close()

    run_clean(scenario)


def test_a_stream_that_breaks_off_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.chunk(b"\1\0" * 320)

    async def scenario() -> None:
        async with listening(script) as (url, _):
            voice = SpeechmaticsVoice(conf(url), "theo")
            with pytest.raises(SpeechError) as caught:
                async for _ in voice.speak("Hello."):
                    pass
            assert caught.value.code == "transport"
            await voice.close()

    run_clean(scenario)


def test_closing_ends_what_is_being_spoken() -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.begin()
        await peer.chunk(b"\1\0" * 320)
        await peer.until_left()
        left.set()

    async def scenario() -> None:
        async with listening(script) as (url, _):
            voice = SpeechmaticsVoice(conf(url), "theo")
            speech = voice.speak("Hello.")
            await anext(speech)
            await voice.close()
            async with asyncio.timeout(30):
                await left.wait()
            await speech.aclose()

    run_clean(scenario)
