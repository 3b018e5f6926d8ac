"""The conversation with OpenAI over a real socket, against a server that does what it likes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import logging.config
import weakref
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from sessions_app.core.agent import AgentProfile, VoiceKind
from sessions_app.core.errors import ProviderError
from sessions_app.core.events import (
    AddCallerWords,
    AgentAudio,
    CreateResponse,
    Event,
    ProviderNotice,
    Purpose,
    SpeechStarted,
)
from sessions_app.providers.base import Capabilities, Provider, ProviderSetup
from sessions_app.providers.openai.client import OpenAIConf, OpenAIProvider, realtime_url
from sessions_app.providers.openai.sendqueue import SendQueue
from tests.unit.providers.realtime_server import Peer, RealtimeServer, Script, realtime, run_clean

KEY = "sk-test-secret"
SETUP = ProviderSetup("uuid-1", AgentProfile(), False, {"OpenAI-Safety-Identifier": "hash"})


class Waits:
    """Stands in for sleeping: remembers, and lets the loop turn once."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


def provider(server: RealtimeServer, setup: ProviderSetup = SETUP, **conf: Any) -> OpenAIProvider:
    it = OpenAIConf(KEY, server.url, "gpt-realtime-2.1", "gpt-transcribe", **conf)
    return OpenAIProvider(setup, it, sleep=Waits(), rand=lambda: 0.5)


@asynccontextmanager
async def talking(it: OpenAIProvider) -> AsyncIterator[asyncio.Queue[Event]]:
    """An opened provider that converses; what it emits is in the queue."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    await it.open()
    reading = asyncio.create_task(it.read(events.put_nowait))
    try:
        yield events
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await it.close()


async def fails_to_open(it: OpenAIProvider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await it.open()
    return caught.value


async def stay(peer: Peer) -> None:
    await peer.greet()
    await peer.until_closed()


async def bounded(awaitable: Any) -> Any:
    """A limit against hanging for ever, far above anything that is measured."""
    async with asyncio.timeout(30):
        return await awaitable


# --------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=m"),
        ("http://127.0.0.1:9/v1/", "ws://127.0.0.1:9/v1/realtime?model=m"),
        ("wss://x/v1", "wss://x/v1/realtime?model=m"),
    ],
)
def test_the_address_is_made_from_the_base(base: str, wanted: str) -> None:
    assert realtime_url(base, "m") == wanted


def test_a_models_name_cannot_change_the_address() -> None:
    assert realtime_url("https://h/v1", "a&b=c/d") == "wss://h/v1/realtime?model=a%26b%3Dc%2Fd"


def test_a_session_is_opened_with_the_agents_configuration() -> None:
    updates: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        updates.append(await peer.greet())
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            setup = replace(SETUP, agent=AgentProfile(voice="cedar", model="gpt-realtime-2"))
            it: Provider = provider(server, setup)
            await it.open()
            assert it.capabilities == Capabilities(speaks=True, rate_hz=24000)
            assert it.name == "OpenAI"
            await it.close()
            request = server.requests[0]
            assert request.path == "/v1/realtime?model=gpt-realtime-2"
            assert request.headers["Authorization"] == f"Bearer {KEY}"
            assert request.headers["OpenAI-Safety-Identifier"] == "hash"
            assert "OpenAI-Beta" not in request.headers
            assert "Sec-WebSocket-Extensions" not in request.headers
        assert updates[0]["session"]["audio"]["output"]["voice"] == "cedar"
        assert updates[0]["session"]["model"] == "gpt-realtime-2"

    run_clean(scenario)


def test_a_text_only_session_says_that_it_does_not_speak() -> None:
    async def scenario() -> None:
        async with realtime(stay) as server:
            agent = AgentProfile(voice_kind=VoiceKind.SPEECHMATICS, voice="sarah")
            it = provider(server, replace(SETUP, agent=agent, text_only=True))
            await it.open()
            assert not it.capabilities.speaks
            await it.close()

    run_clean(scenario)


FATAL_REFUSALS = [
    (401, "Unauthorized"),
    (403, {"error": {"code": "forbidden"}}),
    (404, {"error": {"code": "model_not_found"}}),
    (400, "no"),
    (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}),
    (429, {"error": {"type": "insufficient_quota", "code": None}}),
    (429, {"error": {"code": "credit_balance_exhausted"}}),
    (503, {"error": {"code": "billing_hard_limit_reached"}}),
]


@pytest.mark.parametrize("refusal", FATAL_REFUSALS, ids=str)
def test_a_refusal_that_will_not_change_is_not_asked_again(refusal: tuple[int, Any]) -> None:
    async def scenario() -> None:
        async with realtime(refusal) as server:
            error = await fails_to_open(provider(server))
            assert not error.retryable
            assert len(server.requests) == 1
            assert KEY not in str(error)

    run_clean(scenario)


@pytest.mark.parametrize(
    "refusal",
    [(429, {"error": {"code": "rate_limit_exceeded"}}), (500, "oops"), (503, "[]"), (408, "{")],
    ids=str,
)
def test_a_passing_refusal_is_asked_again_and_again_but_not_for_ever(
    refusal: tuple[int, Any],
) -> None:
    async def scenario() -> None:
        async with realtime(refusal) as server:
            waits = Waits()
            it = provider(server)
            it._sleep = waits
            error = await fails_to_open(it)
            assert error.retryable
            assert len(server.requests) == 3
            assert waits.asked == [0.125, 0.25]  # half of 0.25 s, half of 0.5 s
            assert it.counters["attempts"] == 3

    run_clean(scenario)


def test_a_second_try_can_succeed() -> None:
    async def scenario() -> None:
        async with realtime((503, "later"), stay) as server:
            it = provider(server)
            await it.open()
            await it.close()
            assert len(server.requests) == 2

    run_clean(scenario)


@pytest.mark.parametrize(
    "error",
    [
        {"type": "invalid_request_error", "code": "model_not_found", "message": "no"},
        {"type": "insufficient_quota", "message": "pay"},
        {"type": "invalid_request_error", "code": "beta_api_shape_disabled", "message": "old"},
    ],
)
def test_a_refusal_after_the_upgrade_is_final_too(error: dict[str, Any]) -> None:
    async def script(peer: Peer) -> None:
        await peer.send("error", error=error)
        await peer.ws.close(4000)

    async def scenario() -> None:
        async with realtime(script) as server:
            caught = await fails_to_open(provider(server))
            assert not caught.retryable
            assert caught.code == error.get("code", error["type"])
            assert len(server.requests) == 1

    run_clean(scenario)


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (4000, "", False),
        (3000, "invalid_request_error.invalid_api_key", False),
        (1008, "invalid_request_error.model_not_found", False),
        (1011, "internal error", True),
        (1001, "going away", True),
        (1000, "", True),
    ],
)
def test_a_close_after_the_upgrade_says_whether_to_come_back(
    code: int, reason: str, retryable: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.ws.close(code, reason)

    async def scenario() -> None:
        async with realtime(script) as server:
            caught = await fails_to_open(provider(server))
            assert caught.retryable is retryable
            assert len(server.requests) == (3 if retryable else 1)

    run_clean(scenario)


def test_a_refused_configuration_fails_the_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("session.created", session={"type": "realtime"})
        update = await peer.receive()
        error = {"type": "invalid_request_error", "code": "unknown_parameter", "message": "?"}
        await peer.send("error", error={**error, "event_id": update["event_id"]})
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            caught = await fails_to_open(provider(server))
            assert not caught.retryable
            assert caught.code == "unknown_parameter"
            assert len(server.requests) == 1

    run_clean(scenario)


def test_a_servers_own_error_while_configuring_is_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("session.created", session={"type": "realtime"})
        update = await peer.receive()
        error = {"type": "server_error", "message": "?", "event_id": update["event_id"]}
        await peer.send("error", error=error)
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script, stay) as server:
            it = provider(server)
            await it.open()
            await it.close()
            assert len(server.requests) == 2

    run_clean(scenario)


@pytest.mark.parametrize(
    "echo",
    [
        {"output_modalities": ["text"]},
        {"audio": {"output": {"voice": "alloy"}}},
        {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
        {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 8000}}}},
    ],
)
def test_a_server_that_configures_something_else_is_refused(echo: dict[str, Any]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(**echo)
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            caught = await fails_to_open(provider(server))
            assert caught.code == "session_mismatch"
            assert not caught.retryable

    run_clean(scenario)


def test_a_server_that_echoes_nothing_is_believed() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(audio=None, output_modalities=None)
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            await it.close()

    run_clean(scenario)


async def silent(peer: Peer) -> None:
    await peer.until_closed()


async def created_only(peer: Peer) -> None:
    await peer.send("session.created", session={"type": "realtime"})
    await peer.until_closed()


@pytest.mark.parametrize("script", [silent, created_only])
def test_a_server_that_never_gets_ready_is_left(script: Any) -> None:
    async def scenario() -> None:
        async with realtime(script) as server:
            caught = await fails_to_open(provider(server, ready_timeout_s=0.05))
            assert caught.retryable
            assert caught.code == "timeout"
            assert len(server.requests) == 3

    run_clean(scenario)


def test_a_server_that_never_answers_the_handshake_is_left() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with listener:
            server = RealtimeServer((500, ""))
            server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
            caught = await fails_to_open(provider(server, connect_timeout_s=0.05))
            assert caught.code == "timeout"
            assert caught.retryable

    run_clean(scenario)


@pytest.mark.parametrize(
    ("url", "retryable"), [("http://127.0.0.1:1/v1", True), ("ftp://x/v1", False)]
)
def test_an_address_that_leads_nowhere_is_an_error_of_ours(url: str, retryable: bool) -> None:
    async def scenario() -> None:
        server = RealtimeServer((500, ""))
        server.url = url
        caught = await fails_to_open(provider(server))
        assert caught.retryable is retryable

    run_clean(scenario)


@pytest.mark.parametrize("script", [silent, created_only])
def test_opening_can_be_cancelled_and_leaves_nothing(script: Any) -> None:
    async def scenario() -> None:
        reached = asyncio.Event()

        async def signalling(peer: Peer) -> None:
            reached.set()
            await script(peer)

        async with realtime(signalling) as server:
            opening = asyncio.create_task(provider(server).open())
            await bounded(reached.wait())
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await opening
            assert opening.cancelled()

    run_clean(scenario)


@pytest.mark.parametrize("key", ["sk-geheim\nX: y", "sk-geheim…", "sk-geheim\ud800"])
def test_a_key_that_no_header_can_hold_is_told_without_being_quoted(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with realtime(stay) as server:
            conf = OpenAIConf(key, server.url, "m", "t")
            caught = await fails_to_open(OpenAIProvider(SETUP, conf, sleep=Waits()))
            assert "geheim" not in str(caught)

    run_clean(scenario)
    assert "geheim" not in caplog.text


def test_the_key_is_not_in_the_configurations_text() -> None:
    assert KEY not in repr(OpenAIConf(KEY, "http://x/v1", "m", "t"))


def test_nothing_secret_is_logged_even_when_everything_is(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with realtime((401, "no")) as server:
            await fails_to_open(provider(server))

    with caplog.at_level(logging.DEBUG, "sessions_app"):
        # Applied anew, a configuration takes the levels of all loggers below those it names.
        everything = {"sessions_app": {"level": "DEBUG"}}
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "loggers": everything}
        )
        run_clean(scenario)

    assert KEY not in caplog.text


# --------------------------------------------------------------------------- reading


def test_what_came_before_reading_began_is_not_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("session.created", session={"type": "realtime"})
        update = await peer.receive()
        await peer.send("a.new.word")
        await peer.send("session.updated", session=update["session"])
        for number in range(40):  # more than the library buffers
            await peer.send("input_audio_buffer.speech_started", item_id=f"u{number}")
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server, talking(provider(server)) as events:
            first = await bounded(events.get())
            assert first == ProviderNotice("provider_unknown_event", "a.new.word")
            for number in range(40):
                assert await bounded(events.get()) == SpeechStarted(f"u{number}")

    run_clean(scenario)


def test_a_large_message_comes_through() -> None:
    pcm = bytes(3 * 2**20)

    async def script(peer: Peer) -> None:
        await peer.greet()
        delta = {"response_id": "r", "item_id": "a", "delta": b64encode(pcm).decode()}
        await peer.send("response.output_audio.delta", **delta)
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server, talking(provider(server)) as events:
            assert await bounded(events.get()) == AgentAudio("r", "a", pcm)

    run_clean(scenario)


def test_a_message_in_pieces_comes_whole() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        event = {"type": "input_audio_buffer.speech_started", "event_id": "e", "item_id": "u1"}
        text = json.dumps(event)
        await peer.ws.send([text[:10], text[10:11], "", text[11:]])
        await peer.send("input_audio_buffer.speech_started", item_id="u2")
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server, talking(provider(server)) as events:
            assert await bounded(events.get()) == SpeechStarted("u1")
            assert await bounded(events.get()) == SpeechStarted("u2")

    run_clean(scenario)


def test_a_fault_of_whoever_is_told_ends_reading_with_it() -> None:
    told: list[Event] = []

    def breaks(event: Event) -> None:
        told.append(event)
        raise KeyError("a bug")

    async def script(peer: Peer) -> None:
        await peer.greet()
        for number in range(3):
            await peer.send("input_audio_buffer.speech_started", item_id=f"u{number}")
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            with pytest.raises(KeyError):
                await bounded(it.read(breaks))
            await it.close()

    run_clean(scenario)
    assert told == [SpeechStarted("u0")], "and hears nothing after it"


def test_a_connection_that_broke_before_it_is_read_ends_reading_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send("input_audio_buffer.speech_started", item_id="u")
        await peer.ws.close(1011)

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            assert it._ws is not None
            await bounded(it._ws.wait_closed())
            events: list[Event] = []
            with pytest.raises(ProviderError) as caught:
                await bounded(it.read(events.append))
            assert events == [SpeechStarted("u")], "what came before is not lost"
            assert caught.value.retryable
            it.send_audio(b"\0\0")
            await it.close()

    run_clean(scenario)


def test_what_comes_once_reading_is_cancelled_is_told_to_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await go_on.wait()
        await peer.send("input_audio_buffer.speech_started", item_id="u")
        await peer.ws.close(1011)

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            events: list[Event] = []
            reading = asyncio.create_task(it.read(events.append))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            go_on.set()
            assert it._ws is not None
            await bounded(it._ws.wait_closed())
            await it.close()
            assert events == []

    with caplog.at_level(logging.ERROR, "asyncio"):
        run_clean(scenario)
    assert not caplog.records


@pytest.mark.parametrize(("code", "retryable"), [(1001, True), (1011, True), (4000, False)])
def test_the_end_of_the_connection_ends_reading(code: int, retryable: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send("input_audio_buffer.speech_started", item_id="u")
        await peer.ws.close(code)

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            events: list[Event] = []
            with pytest.raises(ProviderError) as caught:
                await bounded(it.read(events.append))
            assert caught.value.retryable is retryable
            assert events == [SpeechStarted("u")]
            await it.close()

    run_clean(scenario)


@pytest.mark.parametrize(
    ("code", "retryable"), [("session_expired", True), ("insufficient_quota", False)]
)
def test_a_fatal_error_ends_reading_although_the_connection_stays(
    code: str, retryable: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send("error", error={"type": "invalid_request_error", "code": code})
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            with pytest.raises(ProviderError) as caught:
                await bounded(it.read(lambda event: None))
            assert (caught.value.code, caught.value.retryable) == (code, retryable)
            await it.close()

    run_clean(scenario)


def test_a_connection_that_breaks_is_an_error_worth_another_try() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.ws.transport.abort()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            with pytest.raises(ProviderError) as caught:
                await bounded(it.read(lambda event: None))
            assert caught.value.retryable
            await it.close()

    run_clean(scenario)


# --------------------------------------------------------------------------- sending


def test_commands_come_in_order_and_before_audio() -> None:
    got: list[dict[str, Any]] = []
    all_there = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        while len(got) < 4:
            got.append(await peer.receive())
        all_there.set()
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            it.send_audio(b"\1\0" * 240)
            it.send_audio(b"\2\0" * 240)
            it.send(AddCallerWords("one"))
            it.send(AddCallerWords("two"))
            it.send(CreateResponse("q1", Purpose.GREETING, "Greet.", tools=False))
            async with talking(it):
                await bounded(all_there.wait())

    run_clean(scenario)
    assert [event["type"] for event in got] == [
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
        "input_audio_buffer.append",
    ]
    assert b64decode(got[3]["audio"]) == b"\1\0" * 240 + b"\2\0" * 240


def test_what_is_to_be_sent_is_sent_at_once() -> None:
    got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            got.put_nowait(await peer.receive())

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            async with talking(it):
                for number in range(3):
                    it.send_audio(bytes([number, 0]) * 480)
                    event = await bounded(got.get())
                    assert b64decode(event["audio"])[0] == number
            assert it.counters["sent"] == 3
            assert it.audio_dropped == 0

    run_clean(scenario)


def test_a_server_that_takes_nothing_costs_old_audio_and_then_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessions_app.providers.openai.client._SEND_TIMEOUT_S", 0.2)

    let_go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.ws.transport.pause_reading()
        await let_go.wait()
        peer.ws.transport.abort()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()

            async def shout() -> None:
                while True:
                    for _ in range(200):
                        it.send_audio(bytes(4800))
                    await asyncio.sleep(0)

            shouting = asyncio.create_task(shout())
            with pytest.raises(ProviderError) as caught:
                await bounded(it.read(lambda event: None))
            assert caught.value.retryable
            shouting.cancel()
            await asyncio.gather(shouting, return_exceptions=True)
            assert it.audio_dropped > 0
            await it.close()
            let_go.set()

    run_clean(scenario)


@pytest.mark.parametrize("size", [1, 125, 126, 1000, 65_535, 65_536, 200_000])
def test_a_message_of_any_length_is_framed_as_the_server_reads_it(size: int) -> None:
    got: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        got.append(str(await peer.ws.recv()))

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            assert it._ws is not None
            it._ws.write(b"x" * size)
            await bounded(it._ws.wait_closed())
            it._ws.write(b"after the end, which is nothing")
            await it.close()

    run_clean(scenario)
    assert got == ["x" * size]


def test_what_has_no_room_is_sent_in_its_order_once_there_is() -> None:
    got: list[dict[str, Any]] = []
    read_on, all_there = asyncio.Event(), asyncio.Event()
    numbers = itertools.count()

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.ws.transport.pause_reading()
        await read_on.wait()
        peer.ws.transport.resume_reading()
        while not got or got[-1]["type"] != "input_audio_buffer.append":
            got.append(await peer.receive())
        all_there.set()
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            async with talking(it):
                assert it._ws is not None
                await asyncio.sleep(0)
                while not it._ws.full:
                    it.send(AddCallerWords(f"{next(numbers)} {'x' * 50_000}"))
                it.send(AddCallerWords("behind"))
                it.send_audio(b"\1\0" * 480)
                it.send(CreateResponse("q1", Purpose.GREETING, "Greet.", tools=False))
                # Commands are never behind audio that waits.
                read_on.set()
                await bounded(all_there.wait())
            assert it.audio_dropped == 0

    run_clean(scenario)
    said = [event["item"]["content"][0]["text"] for event in got if "item" in event]
    count = next(numbers)
    assert said == [f"{number} {'x' * 50_000}" for number in range(count)] + ["behind"]
    assert [event["type"] for event in got[-2:]] == ["response.create", "input_audio_buffer.append"]


def test_the_oldest_audio_is_dropped_and_its_length_counted() -> None:
    queue = SendQueue()
    for number in range(150):  # three seconds of 20 ms
        queue.put_audio(bytes([number, 0]) * 480)
    queue.put(b"command")

    assert queue.audio_dropped_ms == 1000
    assert queue.take() == b"command"
    pieces = []
    while (message := queue.take()) is not None:
        pieces.append(b64decode(json.loads(message)["audio"]))
    assert all(len(piece) == 4800 for piece in pieces)  # 100 ms each
    assert pieces[0][0] == 50
    assert sum(map(len, pieces)) == 2000 * 48


def test_what_a_new_session_is_given_at_once_is_not_dropped_for_what_comes_behind_it() -> None:
    queue = SendQueue()
    queue.put_audio(b"\1\0" * 24 * 6000)  # six seconds
    for _ in range(100):
        queue.put_audio(b"\2\0" * 480)
    assert queue.audio_dropped_ms == 0
    assert queue.take() is not None
    for _ in range(10):
        queue.put_audio(b"\3\0" * 480)
    assert queue.audio_dropped_ms == 200, "from here on two seconds, as ever"


def test_audio_that_was_sent_counts_no_more() -> None:
    queue = SendQueue()
    for _ in range(250):
        queue.put_audio(bytes(960))
        queue.put_audio(bytes(960))
        queue.take()

    assert queue.audio_dropped_ms == 0


def test_a_closed_queue_keeps_nothing() -> None:
    queue = SendQueue()
    queue.put(b"a")
    queue.close()
    queue.put(b"b")
    queue.put_audio(b"\0\0")

    assert queue.take() is None


# --------------------------------------------------------------------------- closing


def test_closing_is_polite_and_may_be_repeated() -> None:
    codes: list[int | None] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.until_closed()
        codes.append(peer.ws.close_code)

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            await asyncio.gather(it.close(), it.close())
            await it.close()

    run_clean(scenario)
    assert codes == [1000]


def test_closing_while_the_server_is_still_talking_is_polite() -> None:
    talked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(200):  # more than the library buffers before it stops reading
            await peer.send("rate_limits.updated", padding="x" * 500)
        talked.set()
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            await bounded(talked.wait())
            await it.close()
            assert it._ws is not None
            assert it._ws.close_code == 1000  # the server's goodbye was read, behind all that

    run_clean(scenario)


def test_a_server_that_never_answers_the_goodbye_does_not_hold_us() -> None:
    let_go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.ws.transport.pause_reading()
        await let_go.wait()
        peer.ws.transport.resume_reading()
        await peer.until_closed()

    async def scenario() -> None:
        async with realtime(script) as server:
            it = provider(server)
            await it.open()
            assert it._ws is not None
            socket = it._ws.transport.get_extra_info("socket")
            loop = asyncio.get_running_loop()
            began = loop.time()
            await it.close()
            # It would be the library's 10 s, or for ever; the bound is 1 s.
            assert loop.time() - began < 5
            assert socket.fileno() == -1
            let_go.set()

    run_clean(scenario)


def test_closing_what_was_never_open_is_nothing() -> None:
    async def scenario() -> None:
        it = provider(RealtimeServer((500, "")))
        await it.close()
        it.send(AddCallerWords("late"))
        it.send_audio(b"\0\0")
        with pytest.raises(ProviderError):
            await it.read(lambda event: None)

    run_clean(scenario)


def test_what_reading_raises_when_closed_from_outside_is_an_ordinary_end() -> None:
    async def scenario() -> None:
        async with realtime(stay) as server:
            it = provider(server)
            await it.open()
            reading = asyncio.create_task(it.read(lambda event: None))
            await asyncio.sleep(0)
            await it.close()
            with pytest.raises(ProviderError):
                await bounded(reading)

    run_clean(scenario)


async def lost_to_the_server(peer: Peer) -> None:
    await peer.greet()
    await peer.ws.close(1011)


@pytest.mark.parametrize("script", [stay, lost_to_the_server])
def test_a_conversation_that_is_over_leaves_nothing_to_pythons_collector(script: Script) -> None:
    """It would hold up every call's audio while it looks for that."""

    async def converse(server: RealtimeServer) -> list[weakref.ref[Any]]:
        it = provider(server)
        await it.open()
        reading = asyncio.create_task(it.read(lambda event: None))
        await asyncio.sleep(0)
        if script is stay:
            reading.cancel()
        await bounded(asyncio.gather(reading, return_exceptions=True))
        await it.close()
        return [weakref.ref(it), weakref.ref(it._ws), weakref.ref(it._decoder)]

    async def scenario() -> None:
        async with realtime(script) as server:
            known = await converse(server)
            await server.deserted()
            assert [each for ref in known if (each := ref()) is not None] == []

    gc.collect()
    gc.disable()
    try:
        run_clean(scenario)
    finally:
        gc.enable()
