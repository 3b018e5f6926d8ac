"""Frames of an exact size, and rates changed without a click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.core.audio import SAMPLE_BYTES, Framer, pcm_ms
from sessions_app.core.resampler import Resampler

RATES = (8000, 16_000, 24_000)
WAYS = [(a, b) for a in RATES for b in RATES]


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 440.0) -> bytes:
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    return bytes((12_000 * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes())


def samples(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.frombuffer(pcm, dtype="<i2").astype(np.float64)


def pieces_of(pcm: bytes, sizes: list[int]) -> list[bytes]:
    out, at = [], 0
    for size in sizes:
        out.append(pcm[at : at + size * SAMPLE_BYTES])
        at += size * SAMPLE_BYTES
    return [*out, pcm[at:]]


@given(st.lists(st.binary(max_size=2000), max_size=20), st.sampled_from([320, 640, 960]))
def test_frames_are_exact_and_lose_nothing(pieces: list[bytes], size: int) -> None:
    framer = Framer(size)
    frames = [frame for piece in pieces for frame in framer.feed(piece)]
    whole = b"".join(pieces)
    assert all(len(frame) == size for frame in frames)
    assert framer.waiting_bytes == len(whole) - len(frames) * size < size
    last = framer.flush()
    if last is not None:
        assert len(last) == size
        frames.append(last)
    joined = b"".join(frames)
    assert joined[: len(whole)] == whole
    assert set(joined[len(whole) :]) <= {0}
    assert framer.waiting_bytes == 0
    assert framer.flush() is None


def test_what_waited_in_a_framer_is_forgotten_at_a_reset() -> None:
    framer = Framer(4)
    framer.feed(b"abc")
    framer.reset()
    assert framer.feed(b"wxyz") == [b"wxyz"]


@pytest.mark.parametrize(("from_hz", "to_hz"), WAYS)
@given(sizes=st.lists(st.integers(0, 700), max_size=40))
@settings(max_examples=20)
def test_a_stream_changed_in_pieces_is_the_stream_changed_at_once(
    from_hz: int, to_hz: int, sizes: list[int]
) -> None:
    pcm = tone(from_hz, 0.5)
    whole = Resampler(from_hz, to_hz)
    expected = samples(whole.feed(pcm) + whole.flush())
    stream = Resampler(from_hz, to_hz)
    got = samples(b"".join(stream.feed(piece) for piece in pieces_of(pcm, sizes)) + stream.flush())
    assert len(got) == len(expected)
    assert np.max(np.abs(got - expected), initial=0) <= 2


@pytest.mark.parametrize(("from_hz", "to_hz"), WAYS)
@given(seconds=st.floats(0.0, 2.0))
@settings(max_examples=20)
def test_what_comes_out_lasts_as_long_as_what_went_in(
    from_hz: int, to_hz: int, seconds: float
) -> None:
    pcm = tone(from_hz, seconds)
    stream = Resampler(from_hz, to_hz)
    out = stream.feed(pcm) + stream.flush()
    assert len(out) % SAMPLE_BYTES == 0
    assert abs(pcm_ms(len(out), to_hz) - pcm_ms(len(pcm), from_hz)) < 1


@pytest.mark.parametrize(("from_hz", "to_hz"), WAYS)
def test_there_is_no_click_where_two_pieces_meet(from_hz: int, to_hz: int) -> None:
    stream = Resampler(from_hz, to_hz)
    pcm = tone(from_hz, 1.0)
    frame = from_hz // 50 * SAMPLE_BYTES
    out = samples(b"".join(stream.feed(pcm[at : at + frame]) for at in range(0, len(pcm), frame)))
    steps = np.abs(np.diff(out[to_hz // 10 : -to_hz // 10]))
    steepest = 12_000 * 2 * np.pi * 440 / to_hz
    assert np.max(steps) < steepest * 1.25


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 8000), (24_000, 16_000), (16_000, 8000)])
def test_what_a_lower_rate_cannot_carry_does_not_fold_back_into_the_voice(
    from_hz: int, to_hz: int
) -> None:
    stream = Resampler(from_hz, to_hz)
    too_high = tone(from_hz, 1.0, hz=to_hz * 0.5 + 2500)
    out = samples(stream.feed(too_high) + stream.flush())
    assert np.sqrt(np.mean(out[to_hz // 10 : -to_hz // 10] ** 2)) < 12_000 * 0.05


@pytest.mark.parametrize(("from_hz", "to_hz"), WAYS)
def test_after_a_flush_or_a_reset_nothing_of_before_is_heard(from_hz: int, to_hz: int) -> None:
    fresh = Resampler(from_hz, to_hz)
    expected = fresh.feed(tone(from_hz)) + fresh.flush()
    for forget in (Resampler.flush, Resampler.reset):
        stream = Resampler(from_hz, to_hz)
        stream.feed(tone(from_hz, 0.3, hz=1000))
        forget(stream)
        assert stream.feed(tone(from_hz)) + stream.flush() == expected


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 24_000), (16_000, 24_000)])
def test_the_way_to_the_model_holds_next_to_nothing_back(from_hz: int, to_hz: int) -> None:
    stream = Resampler(from_hz, to_hz)
    frame = tone(from_hz, 0.02)
    assert pcm_ms(len(stream.feed(frame)), to_hz) == 18
    assert pcm_ms(len(stream.feed(frame)), to_hz) == 20


@pytest.mark.parametrize("to_hz", [8000, 16_000])
def test_the_way_to_the_ear_holds_next_to_nothing_back(to_hz: int) -> None:
    stream = Resampler(24_000, to_hz)
    assert pcm_ms(len(stream.feed(tone(24_000, 0.1))), to_hz) >= 96


@pytest.mark.parametrize(("from_hz", "to_hz"), [way for way in WAYS if way[0] != way[1]])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.7])
def test_a_voice_is_neither_louder_nor_later_nor_rougher(
    from_hz: int, to_hz: int, share: float
) -> None:
    """`share`: of what both rates can carry."""
    hz = share * min(from_hz, to_hz) / 2
    stream = Resampler(from_hz, to_hz)
    got = samples(stream.feed(tone(from_hz, hz=hz)) + stream.flush())
    wanted = samples(tone(to_hz, hz=hz))
    middle = slice(to_hz // 10, -to_hz // 10)
    noise = got[middle] - wanted[middle]
    # Rounding to whole numbers is all that is to be heard of it: 60 dB down.
    assert np.sqrt(np.mean(noise**2)) < 12_000 * 0.001


def test_a_constant_stays_what_it_is_and_the_loudest_is_not_folded_over() -> None:
    for level in (-32_768, -1, 0, 1, 32_767):
        stream = Resampler(16_000, 24_000)
        pcm = np.full(16_000, level, dtype="<i2").tobytes()
        got = samples(stream.feed(pcm) + stream.flush())
        assert np.all(got[1000:-1000] == level)
    square = np.where(np.arange(16_000) // 20 % 2, 32_767, -32_768).astype("<i2")
    got = samples(Resampler(16_000, 24_000).feed(square.tobytes()))
    for at in range(100, 500):  # far from each edge, the sign is that of the square
        assert got[at * 30 + 15] == pytest.approx(32_767 if at % 2 else -32_768, rel=0.2)


def test_an_equal_rate_is_left_alone() -> None:
    stream = Resampler(16_000, 16_000)
    assert stream.feed(b"ab") == b"ab"
    assert stream.flush() == b""


def test_half_a_sample_is_refused_and_the_stream_goes_on() -> None:
    stream, plain = Resampler(16_000, 24_000), Resampler(16_000, 24_000)
    with pytest.raises(ValueError, match="3 bytes"):
        stream.feed(b"abc")
    pcm = np.arange(640, dtype="<i2").tobytes()
    assert stream.feed(pcm) + stream.flush() == plain.feed(pcm) + plain.flush()
