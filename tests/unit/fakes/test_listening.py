"""How the stand-ins tell a caller who speaks, a voice and a recording from each other."""

from __future__ import annotations

import wave

import pytest

from tests.fakes.openai_ear import Ear, Turn
from tests.fakes.pattern import VOICES, caller_frame, is_voice, silence, voice_pcm
from tests.fakes.playback import Playback
from tests.fakes.product import ROOT
from tests.fakes.recordings import heard

RATE = 24_000
NEUTRAL = ROOT / "sessions_app" / "prepared" / "neutral"


def room(length_ms: int) -> bytes:
    return caller_frame(3, RATE) * (length_ms // 20)


@pytest.mark.parametrize("chunk_bytes", [960, 1001, 48_000])
def test_a_turn_is_heard_from_its_beginning_to_its_end(chunk_bytes: int) -> None:
    ear = Ear(RATE)
    pcm = room(500) + voice_pcm(9, 0, 800, RATE) + room(1000)
    pieces = [pcm[at : at + chunk_bytes] for at in range(0, len(pcm), chunk_bytes)]
    assert [turn for piece in pieces for turn in ear.hear(piece)] == [Turn.BEGUN, Turn.OVER]
    assert ear.words() == "Caller's voice 9 spoke for 8 tenths of a second."


def test_neither_a_room_nor_a_click_is_a_turn() -> None:
    ear = Ear(RATE)
    click = voice_pcm(1, 0, 40, RATE)
    assert ear.hear(room(500) + click + room(500) + silence(500, RATE)) == []


@pytest.mark.parametrize("voice", range(VOICES))
def test_a_voice_is_one_and_a_recording_is_none(voice: int) -> None:
    assert is_voice(voice_pcm(voice, 700 * voice, 20, 16_000), 16_000)
    for path in sorted(NEUTRAL.glob("*.wav"))[voice::VOICES]:
        pcm = read(path.stem)
        frames = [pcm[at : at + 640] for at in range(0, len(pcm), 640)]
        assert sum(is_voice(frame, 16_000) for frame in frames) <= len(frames) / 50, path.name


def read(name: str) -> bytes:
    with wave.open(str(NEUTRAL / f"{name}.wav")) as file:
        return file.readframes(file.getnframes())


def test_a_recording_is_heard_whole_in_part_or_not_at_all() -> None:
    phone = Playback(16_000)
    pcm = read("en-apology")
    for at in range(0, len(pcm) - 640, 640):
        phone.push(pcm[at : at + 640], 10.0)
    phone.advance(11.01)
    (part,) = heard(phone, "apology")
    assert (part.start_s, part.whole) == (10.0, False) and 1000 <= part.heard_ms <= 1040
    phone.advance(20.0)
    (all_of_it,) = heard(phone, "apology")
    assert all_of_it.whole and heard(phone, "one_moment") == []
