from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.fakes.pattern import decode
from tests.fakes.speechmatics import FakeSpeechmatics, Outcome, TtsReply
from tests.fakes.waiting import eventually

Scene = Callable[[FakeSpeechmatics, httpx.AsyncClient], Awaitable[None]]


def play(scene: Scene) -> None:
    async def scenario() -> None:
        async with FakeSpeechmatics() as tts, httpx.AsyncClient() as client:
            client.headers["Authorization"] = f"Bearer {tts.api_key}"
            await scene(tts, client)

    asyncio.run(scenario())


def good(tts: FakeSpeechmatics, text: str = "Good morning.") -> dict[str, Any]:
    return {
        "method": "POST",
        "url": f"{tts.url}/sarah",
        "params": {"output_format": "pcm_16000"},
        "json": {"text": text},
    }


def test_a_text_becomes_audio_of_its_length() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        reply = await client.request(**good(tts, "0123456789"))
        assert len(reply.content) == 600 * 32
        heard = decode(reply.content[9600:10_240], 16_000)
        assert heard is not None
        assert (heard.voice, round(heard.position_ms, -1)) == (0, 310)
        (request,) = tts.requests
        assert (request.text, request.voice_name, request.outcome) == (
            "0123456789",
            "sarah",
            Outcome.COMPLETE,
        )
        assert tts.violations == []

    play(scene)


def test_chunks_have_the_odd_sizes_that_were_asked_for() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        tts.otherwise = TtsReply(audio_ms=20, chunk_bytes=(333, 1))
        async with client.stream(**good(tts)) as reply:
            sizes = [len(chunk) async for chunk in reply.aiter_raw()]
        assert sizes == [333, 1, 306]

    play(scene)


def test_a_client_that_stops_listening_is_counted() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        tts.otherwise = TtsReply(audio_ms=10_000, speed=2.0)
        async with client.stream(**good(tts)) as reply:
            async for _ in reply.aiter_raw():
                break
        await eventually("the cancel", lambda: tts.cancelled == 1)
        assert tts.requests[0].sent_ms < 10_000
        await eventually("the connection's end", lambda: tts.open_connections == 0)

    play(scene)


def test_it_can_stall_and_cut() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        tts.replies += [TtsReply(cut_after_ms=100), TtsReply(stall_after_ms=100)]
        with pytest.raises(httpx.RemoteProtocolError):
            await client.request(**good(tts))
        with pytest.raises(httpx.ReadTimeout):
            await client.request(**good(tts), timeout=httpx.Timeout(5, read=0.2))
        await eventually("the cancel", lambda: tts.cancelled == 1)
        assert [request.outcome for request in tts.requests] == [Outcome.CUT, Outcome.CANCELLED]

    play(scene)


def test_it_can_answer_with_an_error_or_with_a_page() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        tts.replies += [
            TtsReply(status=503),
            TtsReply(body=b"<html>", content_type="text/html"),
        ]
        assert (await client.request(**good(tts))).status_code == 503
        page = await client.request(**good(tts))
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html")
        assert tts.violations == []

    play(scene)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"params": {"output_format": "wav_16000"}},
        {"params": {}},
        {"params": {"output_format": "pcm_16000", "speed": "2"}},
        {"json": {"text": "x", "voice": "sarah"}},
        {"json": {"text": " "}},
        {"json": {"text": "<speak>x</speak>"}},
        {"json": None},
        {"headers": {"Authorization": "Bearer other"}},
    ],
)
def test_whatever_the_documentation_does_not_allow_is_refused(change: dict[str, Any]) -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        reply = await client.request(**{**good(tts), **change})
        assert reply.status_code >= 400
        assert len(tts.violations) == 1
        assert tts.requests == []

    play(scene)


def test_an_unknown_voice_is_refused() -> None:
    async def scene(tts: FakeSpeechmatics, client: httpx.AsyncClient) -> None:
        reply = await client.request(**{**good(tts), "url": f"{tts.url}/marin"})
        assert reply.status_code == 404
        assert tts.violations == ["voice 'marin' does not exist"]

    play(scene)
