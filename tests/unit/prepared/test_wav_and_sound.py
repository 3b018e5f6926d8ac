"""What a file holds, and what is taken for a good recording."""

from __future__ import annotations

import io
import wave

import pytest

from sessions_app.core.audio import pcm_ms
from sessions_app.prepared import sound, wav
from sessions_app.prepared.sound import Unfit
from tests.unit.prepared.speech import RATE_HZ, silence, tone

WORDS = "Good morning, this is Ann."


# ---------------------------------------------------------------------- files


def test_a_clip_comes_back_as_it_was() -> None:
    data = wav.write("Grüße aus Łódź", 24_000, tone(100))

    assert wav.read(data) == ("Grüße aus Łódź", 24_000, tone(100))


def test_anybody_can_play_it() -> None:
    with wave.open(io.BytesIO(wav.write("Hi", 24_000, tone(100, 24_000)))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(10**6) == tone(100, 24_000)


def test_a_file_that_ends_anywhere_before_its_end_is_refused() -> None:
    data = wav.write("Hi", RATE_HZ, tone(10))

    for length in range(len(data)):
        with pytest.raises(wav.NotAClip):
            wav.read(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"<html>no room left</html>",
        b"\0" * 4000,
        wav.write("", RATE_HZ, tone(10)),
        wav.write("Hi", RATE_HZ, b""),
        wav.write("Hi", 11, tone(10)),
        wav.write("Hi", RATE_HZ, tone(10)).replace(b"Hi", b"\xff\xfe"),
    ],
)
def test_what_is_no_clip_is_refused(data: bytes) -> None:
    with pytest.raises(wav.NotAClip):
        wav.read(data)


def test_somebody_elses_format_is_refused() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(tone(10))

    with pytest.raises(wav.NotAClip, match="2 channels"):
        wav.read(file.getvalue())


# ---------------------------------------------------------------------- sound


def test_the_first_sound_comes_at_once() -> None:
    hiss = tone(700, loudness=30)

    said = sound.fit(silence(400) + hiss + tone(1500) + hiss + silence(900), RATE_HZ, WORDS)

    assert said[: RATE_HZ * 2 * 20 // 1000] == hiss[-RATE_HZ * 2 * 20 // 1000 :]
    assert said[RATE_HZ * 2 * 20 // 1000 :][: len(tone(500))] == tone(500)
    assert sound.fit(said, RATE_HZ, WORDS) == said


def test_pauses_within_are_kept() -> None:
    said = sound.trimmed(tone(200) + silence(600) + tone(200), RATE_HZ)

    assert pcm_ms(len(said), RATE_HZ) == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("pcm", [b"", b"\1", silence(2000), tone(2000, loudness=20)])
def test_what_nobody_hears_is_unfit(pcm: bytes) -> None:
    with pytest.raises(Unfit, match="heard"):
        sound.fit(pcm, RATE_HZ, WORDS)


@pytest.mark.parametrize("length_ms", [300, 30_000])
def test_too_short_and_too_long_for_the_words_is_unfit(length_ms: int) -> None:
    with pytest.raises(Unfit, match="ms for 20 letters"):
        sound.fit(tone(length_ms), RATE_HZ, WORDS)


@pytest.mark.parametrize(
    ("text", "length_ms"), [("您好", 700), ("Hi.", 250), ("442079460000", 5000)]
)
def test_any_script_has_its_own_pace(text: str, length_ms: int) -> None:
    assert sound.fit(tone(length_ms), RATE_HZ, text)


def test_words_are_compared_as_they_sound() -> None:
    assert sound.same_words("We'll see — e-mail ANN, please!", "we’ll see. Email Ann please")
    assert sound.same_words("Cafe\u0301", "Café")
    assert not sound.same_words("Good morning.", "Good morning! How can I help?")
