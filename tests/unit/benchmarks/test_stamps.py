"""Which frame of the caller has come to the model, whatever happened to its sound on the way."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import sockets, stamps
from benchmarks.churn import slope
from benchmarks.figures import percentile
from sessions_app.core.resampler import Resampler


def at_the_models_rate(pcm: bytes) -> bytes:
    resampler = Resampler(stamps.PHONE_HZ, stamps.MODEL_HZ)
    return resampler.feed(pcm) + resampler.flush()


@pytest.mark.parametrize("phone", range(stamps.PHONES_MOST))
def test_a_phone_is_known_by_its_frames(phone: int) -> None:
    sound = at_the_models_rate(stamps.of_phone(phone) * 4)
    reader = stamps.Reader()
    for at in range(0, len(sound), 960):
        assert reader.numbers(sound[at : at + 960]) == []
    assert reader.phone == phone


def test_there_are_only_so_many_phones() -> None:
    with pytest.raises(ValueError, match="at most 100"):
        stamps.of_phone(100)


@given(st.lists(st.integers(1, 480), max_size=60))
@settings(deadline=None, max_examples=30)
def test_each_frame_comes_once_and_in_its_order_however_its_sound_is_cut(sizes: list[int]) -> None:
    """`sizes`: samples of the first pieces; the rest comes in pieces of a frame."""
    sent = [number % stamps.NUMBERS for number in range(150)]
    sound = at_the_models_rate(b"".join(map(stamps.numbered, sent)))
    reader = stamps.Reader()
    reader.phone = 0
    got: list[int] = []
    at = 0
    for size in [*sizes, *[480] * 150]:
        got += reader.numbers(sound[at : at + 2 * size])
        at += 2 * size
    assert got == sent


def test_a_resampler_that_holds_back_is_seen_to_be_late() -> None:
    """One that keeps back 30 ms tells of most frames one or two frames later."""
    prompt = Resampler(stamps.PHONE_HZ, stamps.MODEL_HZ)
    slow = soxr.ResampleStream(stamps.PHONE_HZ, stamps.MODEL_HZ, 1, dtype="int16", quality="HQ")
    seen: dict[str, list[tuple[int, int]]] = {"prompt": [], "slow": []}
    readers = {name: stamps.Reader() for name in seen}
    for reader in readers.values():
        reader.phone = 0
    for number in range(40):
        frame = stamps.numbered(number)
        samples = np.frombuffer(frame, dtype="<i2")
        for name, sound in (
            ("prompt", prompt.feed(frame)),
            ("slow", slow.resample_chunk(samples).tobytes()),
        ):
            seen[name] += [(each, number) for each in readers[name].numbers(sound)]
    assert all(sent == heard for sent, heard in seen["prompt"])
    assert median(heard - sent for sent, heard in seen["slow"]) >= 1


@pytest.mark.parametrize("masked", [True, False])
@given(payload=st.binary(max_size=70_000), cut=st.integers(1, 80_000))
@settings(deadline=None, max_examples=40)
def test_a_frame_is_read_as_it_was_written(masked: bool, payload: bytes, cut: int) -> None:
    got: list[tuple[int, bytes]] = []
    socket = sockets.Socket(client=not masked, on_handshake=lambda socket, head: None)
    socket.on_message = lambda opcode, message: got.append((opcode, message))
    whole = b"GET / HTTP/1.1\r\n\r\n" + sockets.frame(sockets.BINARY, payload, masked=masked) * 2
    socket.data_received(whole[:cut])
    socket.data_received(whole[cut:])
    assert got == [(sockets.BINARY, payload)] * 2


def test_figures() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([], 0.5) != percentile([], 0.5), "not a number"
    assert slope([(0, 100), (10, 200), (20, 300)]) == 10
    assert slope([(0, 100), (10, 10_000), (20, 300), (30, 400)]) == pytest.approx(10, abs=5)
    assert slope([(5, 5)]) == 0
