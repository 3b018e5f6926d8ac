from __future__ import annotations

import numpy as np
import pytest
import soxr  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.pattern import (
    CALLERS,
    VOICES,
    audible,
    caller_frame,
    caller_of,
    decode,
    silence,
    voice_pcm,
)


@given(
    voice=st.integers(0, VOICES - 1),
    start_ms=st.integers(0, 10_400),
    rate=st.sampled_from([8000, 16_000, 24_000]),
)
def test_any_20_ms_of_a_voice_tell_who_speaks_and_where(
    voice: int, start_ms: int, rate: int
) -> None:
    heard = decode(voice_pcm(voice, start_ms, 20, rate), rate)

    assert heard is not None
    assert heard.voice == voice
    assert heard.position_ms == pytest.approx(start_ms + 10, abs=5)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_a_voice_is_still_known_after_resampling(rate: int) -> None:
    spoken = np.frombuffer(voice_pcm(7, 0, 3000, 24_000), dtype="<i2")
    phone = soxr.resample(spoken, 24_000, rate).tobytes()
    at = len(phone) // 2 & ~1

    heard = decode(phone[at : at + rate // 25], rate)

    assert heard is not None
    assert (heard.voice, round(heard.position_ms, -1)) == (7, 1510)


def test_chunks_of_a_voice_join_without_a_seam() -> None:
    whole = voice_pcm(3, 0, 500, 24_000)
    parts = b"".join(voice_pcm(3, at, 100, 24_000) for at in range(0, 500, 100))
    assert parts == whole


@pytest.mark.parametrize("caller", range(0, CALLERS, 7))
def test_a_callers_tone_names_the_caller(caller: int) -> None:
    assert caller_of(caller_frame(caller, 16_000) * 5, 16_000) == caller


def test_a_tone_taken_for_another_rate_names_nobody_else_silently() -> None:
    assert caller_of(caller_frame(10, 16_000) * 8, 24_000) != 10


def test_silence_is_not_audible_and_names_nobody() -> None:
    assert not audible(silence(20, 16_000))
    assert decode(silence(20, 16_000), 16_000) is None
    assert caller_of(silence(100, 16_000), 16_000) is None
