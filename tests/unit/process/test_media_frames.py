"""The short way for a phone's audio takes one kind of frame, and leaves every other alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from callcenter.media_frames import Boundaries, frame_of, payload_of


def written(opcode: Opcode, payload: bytes, *, masked: bool = True, fin: bool = True) -> bytes:
    """As the library writes it, which is the oracle here."""
    return Frame(opcode, payload, fin).serialize(mask=masked)


def read(data: bytes) -> bytes:
    """The payload of a server's binary frame, as the library reads it."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False, max_size=1 << 20)
    try:
        next(parser)
    except StopIteration as done:
        frame = done.value
        assert frame.opcode is Opcode.BINARY and frame.fin
        return bytes(frame.data)
    raise AssertionError("the frame is not whole")


@given(st.binary(min_size=126, max_size=2000))
@settings(deadline=None)
def test_a_whole_binary_frame_is_read_as_the_library_would(payload: bytes) -> None:
    assert payload_of(written(Opcode.BINARY, payload)) == payload


@given(st.binary(max_size=70_000))
@settings(deadline=None)
def test_a_frame_is_written_as_the_library_would(payload: bytes) -> None:
    frame = frame_of(payload)
    if len(payload) > 65_535:
        assert frame is None
    else:
        assert frame is not None and read(frame) == payload


AUDIO = bytes(range(256)) * 2 + bytes(128)
WHOLE = written(Opcode.BINARY, AUDIO)


OTHERS = {
    "nothing": b"",
    "too little to tell": WHOLE[:7],
    "a part": WHOLE[:-1],
    "more than one": WHOLE + WHOLE,
    "one and a little": WHOLE + b"\x82",
    "text": written(Opcode.TEXT, AUDIO),
    "a first fragment": written(Opcode.BINARY, AUDIO, fin=False),
    "a later fragment": written(Opcode.CONT, AUDIO),
    "not masked": written(Opcode.BINARY, AUDIO, masked=False),
    "with a reserved bit": bytes([WHOLE[0] | 0x40]) + WHOLE[1:],
    "short": written(Opcode.BINARY, b"x" * 125),
    "long": written(Opcode.BINARY, bytes(65_536)),
    "short, said at length": b"\x82\xfe\x00\x10" + bytes(20),
}


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_is_left_to_the_server(what: str) -> None:
    assert payload_of(OTHERS[what]) is None


FRAMES = st.builds(
    written,
    st.sampled_from([Opcode.BINARY, Opcode.TEXT, Opcode.CONT]),
    st.one_of(st.binary(max_size=140), st.sampled_from([bytes(65_535), bytes(65_537)])),
)


@given(st.lists(FRAMES, min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_where_frames_begin_is_known_however_they_come(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frames)
    ends = {sum(map(len, frames[: count + 1])) for count in range(len(frames))}
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    boundaries, at = Boundaries(), 0
    for cut in [*cuts, len(stream)]:
        boundaries.follow(stream[at:cut])
        at = cut
        assert boundaries.between_frames is (at in ends or at == 0)
    assert boundaries.between_frames
