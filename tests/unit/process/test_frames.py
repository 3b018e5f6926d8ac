"""The short way takes one kind of frame at each end, and leaves every other alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from sessions_app.frames import Boundaries, Masks, audio_at, audio_frame, text_at, text_frame


def written(opcode: Opcode, payload: bytes, *, masked: bool = True, fin: bool = True) -> bytes:
    """As the library writes it, which is the oracle here."""
    return Frame(opcode, payload, fin).serialize(mask=masked)


def read(data: bytes, opcode: Opcode, *, masked: bool) -> bytes:
    """The payload of one whole frame, as the library reads it."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=masked, max_size=1 << 20)
    try:
        next(parser)
    except StopIteration as done:
        frame = done.value
        assert frame.opcode is opcode and frame.fin
        return bytes(frame.data)
    raise AssertionError("the frame is not whole")


@given(st.binary(max_size=9), st.binary(min_size=126, max_size=2000), st.binary(max_size=9))
@settings(deadline=None)
def test_audio_is_read_as_the_library_would(before: bytes, payload: bytes, behind: bytes) -> None:
    whole = written(Opcode.BINARY, payload)
    found = audio_at(before + whole + behind, len(before))
    assert found == (payload, len(before + whole))


@given(st.binary(max_size=70_000))
@settings(deadline=None)
def test_audio_is_written_as_the_library_would(payload: bytes) -> None:
    frame = audio_frame(payload)
    if len(payload) > 65_535:
        assert frame is None
    else:
        assert frame is not None and read(frame, Opcode.BINARY, masked=False) == payload


LENGTHS = st.one_of(st.integers(0, 300), st.integers(65_530, 65_535))


@given(st.binary(max_size=9), LENGTHS, st.binary(max_size=9))
@settings(deadline=None)
def test_text_is_read_as_the_library_would(before: bytes, size: int, behind: bytes) -> None:
    whole = written(Opcode.TEXT, b"x" * size, masked=False)
    assert text_at(before + whole + behind, len(before)) == (b"x" * size, len(before + whole))


@given(st.one_of(LENGTHS, st.integers(65_536, 70_000)), st.binary(min_size=4, max_size=4))
@settings(deadline=None)
def test_text_is_written_as_the_library_would(size: int, mask: bytes) -> None:
    frame = text_frame(b"x" * size, mask)
    assert mask in frame[:14]
    assert read(frame, Opcode.TEXT, masked=True) == b"x" * size


def test_no_mask_is_used_twice() -> None:
    masks = Masks()
    given = [masks.next() for _ in range(1000)]
    assert {len(mask) for mask in given} == {4}
    # By chance two of a thousand are the same once in ten thousand runs, three never.
    assert len(set(given)) > 997


AUDIO = bytes(range(256)) * 2 + bytes(128)
WHOLE = written(Opcode.BINARY, AUDIO)


NO_AUDIO = {
    "nothing": b"",
    "too little to tell": WHOLE[:7],
    "a part": WHOLE[:-1],
    "text": written(Opcode.TEXT, AUDIO),
    "a first fragment": written(Opcode.BINARY, AUDIO, fin=False),
    "a later fragment": written(Opcode.CONT, AUDIO),
    "not masked": written(Opcode.BINARY, AUDIO, masked=False),
    "with a reserved bit": bytes([WHOLE[0] | 0x40]) + WHOLE[1:],
    "short": written(Opcode.BINARY, b"x" * 125),
    "long": written(Opcode.BINARY, bytes(65_536)),
    "short, said at length": b"\x82\xfe\x00\x10" + bytes(20),
    "close": written(Opcode.CLOSE, b"\x03\xe8"),
}


@pytest.mark.parametrize("what", NO_AUDIO)
def test_what_is_not_audio_is_left_to_the_server(what: str) -> None:
    assert audio_at(NO_AUDIO[what], 0) is None
    assert audio_at(WHOLE + NO_AUDIO[what], len(WHOLE)) is None


TEXT = b'{"type":"session.created"}' * 20
SAID = written(Opcode.TEXT, TEXT, masked=False)

NO_TEXT = {
    "nothing": b"",
    "too little to tell": SAID[:3],
    "a part": SAID[:-1],
    "a part of a short one": written(Opcode.TEXT, b"{}", masked=False)[:-1],
    "binary": written(Opcode.BINARY, TEXT, masked=False),
    "a first fragment": written(Opcode.TEXT, TEXT, masked=False, fin=False),
    "a later fragment": written(Opcode.CONT, TEXT, masked=False),
    "masked": written(Opcode.TEXT, TEXT),
    "masked and short": written(Opcode.TEXT, b"{}"),
    "with a reserved bit": bytes([SAID[0] | 0x40]) + SAID[1:],
    "long": written(Opcode.TEXT, bytes(65_536), masked=False),
    "short, said at length": b"\x81\x7e\x00\x10" + bytes(20),
    "ping": written(Opcode.PING, b"", masked=False),
    "close": written(Opcode.CLOSE, b"\x03\xe8", masked=False),
}


@pytest.mark.parametrize("what", NO_TEXT)
def test_what_is_not_text_is_left_to_the_client(what: str) -> None:
    assert text_at(NO_TEXT[what], 0) is None
    assert text_at(SAID + NO_TEXT[what], len(SAID)) is None


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
