"""The dense server's short way for audio keeps every message, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from callcenter.dense import MediaSocketProtocol
from sessions_app.frames import HAND_AUDIO

AUDIO = bytes(range(256)) * 2 + bytes(128)
UPGRADE = (
    b"GET /media HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = {"type": "websocket.accept"}


class Wire(asyncio.Transport):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Scenario = Callable[[MediaSocketProtocol, Wire, Receive, Send], Awaitable[None]]


def in_a_call(scenario: Scenario) -> None:
    """With a phone's open socket and its application's ends of it."""

    async def run() -> None:
        opened: asyncio.Future[tuple[Receive, Send]] = asyncio.Future()
        over = asyncio.Event()

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "websocket.connect"
            assert set(scope["extensions"][HAND_AUDIO]) == {"hand_to"}
            await send(ACCEPT)
            opened.set_result((receive, send))
            await over.wait()

        config = Config(
            application,
            ws=MediaSocketProtocol,
            log_config=None,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
        )
        config.load()
        protocol = MediaSocketProtocol(config, ServerState(), {})
        wire = Wire()
        protocol.connection_made(wire)
        protocol.data_received(UPGRADE)
        try:
            receive, send = await opened
            wire.writes.clear()
            await scenario(protocol, wire, receive, send)
        finally:
            over.set()
            protocol.connection_lost(None)

    asyncio.run(run())


def from_phone(opcode: Opcode, payload: bytes) -> bytes:
    return Frame(opcode, payload, True).serialize(mask=True)


def read(stream: bytes) -> list[tuple[Opcode, bytes]]:
    """Whole frames of a server, as the library reads them."""
    reader = StreamReader()
    reader.feed_data(stream)
    frames = []
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=False, max_size=1 << 20)
        with pytest.raises(StopIteration) as done:
            next(parser)
        frames.append((done.value.value.opcode, bytes(done.value.value.data)))
    return frames


PIECES = [1, 7, 8, 300, 648, 649, 1000, 10_000]


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_what_a_phone_sends_comes_in_its_order_however_it_is_cut(piece_bytes: int) -> None:
    said = [AUDIO, AUDIO[::-1], b"{}", AUDIO[::2], b"short", AUDIO]
    stream = b"".join(
        from_phone(Opcode.TEXT if message == b"{}" else Opcode.BINARY, message) for message in said
    )

    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        for at in range(0, len(stream), piece_bytes):
            protocol.data_received(stream[at : at + piece_bytes])
        heard = []
        for _ in said:
            message = await receive()
            heard.append(message.get("bytes") or message["text"].encode())
        assert heard == said

    in_a_call(scenario)


def test_what_looks_like_a_frame_inside_a_message_is_none() -> None:
    inner = from_phone(Opcode.BINARY, AUDIO)
    # As a phone would mask it so that this stands on the wire.
    head, mask = from_phone(Opcode.BINARY, bytes(130) + inner)[:4], bytes(4)
    whole = head + mask + bytes(130) + inner

    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        protocol.data_received(whole[: -len(inner)])
        protocol.data_received(whole[-len(inner) :])
        assert (await receive())["bytes"] == bytes(130) + inner

    in_a_call(scenario)


def test_audio_is_handed_over_where_it_comes_in_and_overtakes_nothing() -> None:
    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        audio = [bytes([number]) * 640 for number in range(5)]
        heard: list[bytes] = []

        def say(number: int) -> None:
            protocol.data_received(from_phone(Opcode.BINARY, audio[number]))

        say(0)
        protocol._sink.hand_to(heard.append)
        say(1)
        assert heard == []
        assert [(await receive())["bytes"] for _ in range(2)] == audio[:2]
        say(2)
        assert heard == [audio[2]]
        protocol.data_received(from_phone(Opcode.TEXT, b"a key"))
        assert (await receive())["text"] == "a key"
        say(3)
        protocol._sink.hand_to(None)
        say(4)
        assert heard == audio[2:4]
        assert (await receive())["bytes"] == audio[4]

    in_a_call(scenario)


def test_a_dozen_frames_are_one_write_and_what_follows_them_stands_behind() -> None:
    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        for _ in range(12):
            await send({"type": "websocket.send", "bytes": AUDIO})
        await send({"type": "websocket.send", "text": "a mark"})
        await send({"type": "websocket.send", "bytes": AUDIO})
        await asyncio.sleep(0)
        assert len(wire.writes) == 3
        audio = (Opcode.BINARY, AUDIO)
        assert read(b"".join(wire.writes)) == [audio] * 12 + [(Opcode.TEXT, b"a mark"), audio]

    in_a_call(scenario)


def test_what_was_sent_before_the_close_goes_before_it() -> None:
    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        await send({"type": "websocket.send", "bytes": AUDIO})
        await send({"type": "websocket.close", "code": 1000})
        await asyncio.sleep(0)
        kinds = [kind for kind, _ in read(b"".join(wire.writes))]
        assert kinds == [Opcode.BINARY, Opcode.CLOSE]

    in_a_call(scenario)


@pytest.mark.parametrize("how", ["closed", "lost"])
def test_nothing_is_written_to_a_phone_that_went_in_the_same_step(how: str) -> None:
    async def scenario(
        protocol: MediaSocketProtocol, wire: Wire, receive: Receive, send: Send
    ) -> None:
        await send({"type": "websocket.send", "bytes": AUDIO})
        if how == "closed":
            protocol.data_received(from_phone(Opcode.CLOSE, b"\x03\xe8"))
        else:
            protocol.connection_lost(ConnectionResetError())
            protocol.connections.add(protocol)
        await asyncio.sleep(0)
        assert Opcode.BINARY not in [kind for kind, _ in read(b"".join(wire.writes))]

    in_a_call(scenario)
