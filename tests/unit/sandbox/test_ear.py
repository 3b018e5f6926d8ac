from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.sandbox.ear import Detector, SpeechStarted, SpeechStopped, recognise
from sessions_app.sandbox.samples import SAMPLES
from sessions_app.sandbox.voice import CALLER, synthesise

RATE = 24000


def silence(ms: int) -> bytes:
    return bytes(RATE * ms // 1000 * 2)


def noise(ms: int, peak: int = 60) -> bytes:
    samples = np.random.default_rng(7).integers(-peak, peak, RATE * ms // 1000)
    return samples.astype("<i2").tobytes()


def tone(ms: int, amplitude: int = 4000) -> bytes:
    moments = np.arange(RATE * ms // 1000) / RATE
    return (amplitude * np.sin(2 * np.pi * 300 * moments)).astype("<i2").tobytes()


def test_speech_starts_before_its_onset_and_stops_after_the_silence_waited_for() -> None:
    detector = Detector(RATE, prefix_padding_ms=300, silence_duration_ms=500)
    started, stopped = detector.feed(noise(1000) + tone(800) + noise(1000))
    assert isinstance(started, SpeechStarted)
    assert started.audio_start_ms == pytest.approx(700, abs=40)
    assert isinstance(stopped, SpeechStopped)
    assert stopped.audio_end_ms == pytest.approx(1800 + 500, abs=40)
    assert stopped.audio_start_ms == started.audio_start_ms
    assert len(stopped.pcm) == (stopped.audio_end_ms - stopped.audio_start_ms) * RATE // 1000 * 2


def test_the_padding_never_reaches_before_the_beginning_of_the_stream() -> None:
    started = Detector(RATE, prefix_padding_ms=300).feed(silence(100) + tone(200))[0]
    assert started == SpeechStarted(0)


def test_a_click_is_not_speech() -> None:
    assert Detector(RATE).feed(silence(500) + tone(20) + silence(500)) == []


def test_a_pause_shorter_than_the_silence_waited_for_does_not_end_the_turn() -> None:
    events = Detector(RATE, silence_duration_ms=500).feed(
        tone(300) + silence(400) + tone(300) + silence(600)
    )
    assert [type(event) for event in events] == [SpeechStarted, SpeechStopped]


def test_a_higher_threshold_does_not_hear_a_faint_voice() -> None:
    faint = tone(400, amplitude=600)
    assert Detector(RATE, threshold=0.3).feed(faint)
    assert Detector(RATE, threshold=0.9).feed(faint) == []


def test_clearing_forgets_the_utterance_but_not_the_clock() -> None:
    detector = Detector(RATE)
    detector.feed(tone(400))
    detector.clear()
    assert detector.at_ms == 400
    assert not detector.speaking
    assert detector.feed(silence(1000)) == []


def test_an_endless_utterance_is_kept_only_up_to_a_bound() -> None:
    detector = Detector(RATE, silence_duration_ms=200)
    for _ in range(70):
        detector.feed(tone(1000))
    stopped = detector.feed(silence(400))[0]
    assert isinstance(stopped, SpeechStopped)
    assert len(stopped.pcm) <= 61_000 * RATE // 1000 * 2


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_it_makes_no_difference_how_the_stream_is_cut(sizes: list[int]) -> None:
    stream = noise(200) + tone(300) + silence(700)
    whole = Detector(RATE).feed(stream)
    detector, pieces, at, turn = Detector(RATE), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        pieces += detector.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert pieces == whole


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.key)
@pytest.mark.parametrize("line_hz", [8000, 16000, 24000])
def test_every_sample_phrase_is_recognised_over_any_line(sample, line_hz: int) -> None:
    spoken = np.frombuffer(synthesise(sample.text, line_hz, voice=CALLER), "<i2")
    arrived = soxr.resample(spoken, line_hz, RATE).astype("<i2").tobytes()
    events = Detector(RATE).feed(noise(800, 40) + arrived + noise(800, 40))
    assert [type(event) for event in events] == [SpeechStarted, SpeechStopped]
    assert recognise(events[1].pcm, RATE) == sample.text


@pytest.mark.parametrize(
    "text",
    [
        "I have lost my umbrella in your shop yesterday.",
        "Could you send me the papers by mail, if possible?",
        "My neighbour told me to call you about the garden.",
    ],
)
def test_other_words_are_honestly_not_understood(text: str) -> None:
    said = recognise(synthesise(text, RATE, voice=CALLER), RATE)
    assert said.endswith(" s of speech)")


def test_the_same_words_in_another_voice_are_not_claimed_to_be_understood_by_length_alone() -> None:
    assert recognise(tone(2500), RATE) == "(2.5 s of speech)"
    assert recognise(b"", RATE) == "(0.0 s of speech)"
