"""The model's connection takes whole texts itself and leaves the rest to the library, without
either losing its place.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.uri import parse_uri
from websockets.utils import accept_key

from sessions_app.providers.openai.connection import DirectConnection, Message


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


def text(payload: bytes) -> tuple[bytes, list[bytes]]:
    return frame(Opcode.TEXT, payload), [payload]


def in_pieces(payload: bytes, cut: int) -> tuple[bytes, list[bytes]]:
    """With a ping between them, as RFC 6455 allows (5.4)."""
    first = frame(Opcode.TEXT, payload[:cut], fin=False)
    return first + PING + frame(Opcode.CONT, payload[cut:]), [payload]


PING = frame(Opcode.PING, b"are you there")
LONG = bytes(70_000)

#: What a service may send, with the messages that are in it.
SENT = st.one_of(
    st.binary(max_size=300).map(text),
    st.sampled_from([text(b"x" * 125), text(b"x" * 126), text(b"x" * 65_535), text(LONG)]),
    st.binary(max_size=300).map(lambda payload: (frame(Opcode.BINARY, payload), [payload])),
    st.builds(in_pieces, st.binary(max_size=300), st.integers(0, 300)),
    st.just((PING, [])),
)


def run(pieces_of: Any) -> tuple[list[bytes], DirectConnection]:
    """The messages taken from a service's stream behind its answer, in the pieces it comes in."""

    async def scenario() -> tuple[list[bytes], DirectConnection]:
        protocol = ClientProtocol(parse_uri("ws://model/"))
        connection = DirectConnection(protocol, ping_interval=None)
        connection.connection_made(Wire())
        taken: list[bytes] = []

        def take(message: Message) -> None:
            taken.append(bytes(message))

        connection.hand_to(take)
        shaking = asyncio.create_task(connection.handshake())
        await asyncio.sleep(0)
        for piece in pieces_of(answer(protocol)):
            connection.data_received(piece)
        await shaking
        return taken, connection

    return asyncio.run(scenario())


def answer(protocol: ClientProtocol) -> bytes:
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(protocol.key)}\r\n\r\n"
    ).encode()


@given(st.lists(SENT, max_size=6), st.data())
@settings(deadline=None)
def test_every_message_comes_once_and_in_order_however_the_bytes_come(
    sent: list[tuple[bytes, list[bytes]]], data: st.DataObject
) -> None:
    def pieces(head: bytes) -> list[bytes]:
        stream = head + b"".join(raw for raw, _ in sent)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
        edges = [0, *cuts, len(stream)]
        return [stream[a:b] for a, b in pairwise(edges) if a < b]

    taken, connection = run(pieces)
    assert taken == [message for _, messages in sent for message in messages]
    # The library has lost its place neither: it answers the next ping.
    assert isinstance(connection.transport, Wire)
    before = connection.transport.written
    connection.data_received(PING)
    pong = connection.transport.written[len(before) :]
    assert pong[0] == 0x80 | Opcode.PONG


@pytest.mark.parametrize("behind_the_answer", [True, False])
def test_what_looks_like_a_frame_inside_a_message_is_none(behind_the_answer: bool) -> None:
    inner = frame(Opcode.TEXT, b"never said")
    payload = b"x" * 130 + inner
    whole = frame(Opcode.TEXT, payload)

    def pieces(head: bytes) -> list[bytes]:
        first, second = whole[: -len(inner)], whole[-len(inner) :]
        return [head + first, second] if behind_the_answer else [head, first, second]

    taken, _ = run(pieces)
    assert taken == [payload]


def test_a_message_in_the_middle_of_another_ends_the_connection() -> None:
    """RFC 6455, 5.4."""

    def pieces(head: bytes) -> list[bytes]:
        return [head, frame(Opcode.TEXT, b"one", fin=False), frame(Opcode.TEXT, b"two")]

    taken, connection = run(pieces)
    assert taken == []
    sent = connection.protocol.close_sent
    assert sent is not None and sent.code == CloseCode.PROTOCOL_ERROR


@given(st.binary(min_size=1, max_size=300), st.integers(0, 299))
@example(b"x" * 126, 1)
@settings(deadline=None)
def test_after_a_close_nothing_is_taken(payload: bytes, cut: int) -> None:
    goodbye = frame(Opcode.CLOSE, b"\x03\xe8")

    def pieces(head: bytes) -> list[bytes]:
        behind = goodbye + frame(Opcode.TEXT, payload)
        return [head, behind[:cut] or goodbye, behind[cut:]]

    taken, _ = run(pieces)
    assert taken == []
