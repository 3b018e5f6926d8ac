"""Files that are whole or not there, and a memory that needs none of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sessions_app.core.phrases import Clip, Phrase
from sessions_app.prepared import shelf as shelf_module
from sessions_app.prepared import wav
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import Wanted, wanted
from tests.unit.bridge.fakes import log_lines
from tests.unit.prepared.speech import ANN, RATE_HZ, speech

DAY_S = 86_400


def clip_of(each: Wanted) -> Clip:
    return Clip(each.phrase, each.text, RATE_HZ, speech(each.text))


def filled(directory: Path) -> Shelf:
    shelf = Shelf(directory)
    for each in wanted(ANN):
        shelf.keep(each, clip_of(each))
    return shelf


def loaded(directory: Path) -> Shelf:
    """As another process, or the next start, finds it."""
    shelf = Shelf(directory)
    shelf.load(wanted(ANN))
    return shelf


def test_what_one_process_keeps_another_finds(tmp_path: Path) -> None:
    filled(tmp_path / "made" / "here")

    clips = loaded(tmp_path / "made" / "here").find(ANN)

    for each in wanted(ANN):
        assert clips.get(each.phrase) == clip_of(each)
    assert [path.suffix for path in (tmp_path / "made" / "here").iterdir()] == [".wav"] * 5


def test_a_call_needs_no_disk(tmp_path: Path) -> None:
    shelf = filled(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()

    greeting = shelf.find(ANN).get(Phrase.GREETING)

    assert greeting is not None and greeting.text == ANN.greeting


def test_where_there_is_nothing_neutral_recordings_step_in(tmp_path: Path) -> None:
    clips = Shelf(tmp_path).find(ANN)
    french = Shelf(tmp_path).find(replace(ANN, language="fr-CA"))
    polish = Shelf(tmp_path).find(replace(ANN, language="pl"))

    assert clips.get(Phrase.GREETING) is None
    for phrase in set(Phrase) - {Phrase.GREETING}:
        assert clips.get(phrase) is not None
        assert french.get(phrase) != clips.get(phrase) == polish.get(phrase)


def test_an_edited_greeting_is_not_found_by_its_old_recording(tmp_path: Path) -> None:
    clips = filled(tmp_path).find(replace(ANN, greeting="Hello from the new Ann."))

    goodbye = clips.get(Phrase.GOODBYE)
    assert clips.get(Phrase.GREETING) is None
    assert goodbye is not None and goodbye.pcm == speech(goodbye.text)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: data[:100] + b"\0" * (len(data) - 100),
        lambda data: data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2),
        lambda data: b"<html>" + data,
    ],
)
def test_a_spoilt_file_counts_as_absent_and_is_told_once(tmp_path: Path, spoilt: object) -> None:
    filled(tmp_path)
    each = wanted(ANN)[0]
    path = tmp_path / each.name
    path.write_bytes(spoilt(path.read_bytes()))  # type: ignore[operator]

    with log_lines() as lines:
        shelf = loaded(tmp_path)
        shelf.load(wanted(ANN))

    assert not shelf.has(each) and all(shelf.has(other) for other in wanted(ANN)[1:])
    assert len([line for line in lines.lines if each.name in line]) == 1

    shelf.keep(each, clip_of(each))
    assert loaded(tmp_path).has(each)


def test_a_file_is_never_seen_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)

    with log_lines() as lines:
        shelf = filled(tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert all(shelf.has(each) for each in wanted(ANN))
    assert len([line for line in lines.lines if "cannot be written" in line]) == 1

    monkeypatch.undo()
    shelf.write()
    assert all(loaded(tmp_path).has(each) for each in wanted(ANN))


def test_a_place_that_is_no_directory_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")

    with log_lines() as lines:
        shelf = filled(tmp_path / "file" / "prepared")
        shelf.load(wanted(replace(ANN, greeting="Another one.")))
        shelf.sweep(wanted(ANN))

    assert shelf.find(ANN).get(Phrase.GREETING) is not None
    assert len(lines.lines) == 3


def test_only_what_nobody_has_referred_to_for_long_is_swept(tmp_path: Path) -> None:
    shelf = filled(tmp_path)
    old = tmp_path / "greeting-of-somebody-else.wav"
    lately, half, foreign = (tmp_path / name for name in ("lately.wav", "12ab.part", "notes.txt"))
    for path in (old, lately, half, foreign):
        path.write_bytes(b"?")
    now_s = old.stat().st_mtime + 31 * DAY_S
    os.utime(lately, (now_s - 29 * DAY_S, now_s - 29 * DAY_S))

    shelf.sweep(wanted(ANN), now_s)

    assert not old.exists() and not half.exists()
    assert lately.exists() and foreign.exists()
    for each in wanted(ANN):
        assert (tmp_path / each.name).stat().st_mtime == pytest.approx(now_s)


def test_what_somebody_took_away_is_written_again(tmp_path: Path) -> None:
    shelf = filled(tmp_path)
    each = wanted(ANN)[2]
    (tmp_path / each.name).unlink()

    shelf.sweep(wanted(ANN))

    assert wav.read((tmp_path / each.name).read_bytes())[0] == each.text


def test_what_no_agent_says_any_more_is_forgotten(tmp_path: Path) -> None:
    shelf = filled(tmp_path)
    kept = wanted(ANN)[1:]

    shelf.retain(kept)

    assert shelf.own(wanted(ANN)[0]) is None
    assert all(shelf.own(each) for each in kept)


def test_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MEMORY_MOST_BYTES", 100_000)

    with log_lines() as lines:
        shelf = filled(tmp_path)

    held = [clip for each in wanted(ANN) if (clip := shelf.own(each)) is not None]
    assert 0 < sum(len(clip.pcm) for clip in held) <= 100_000 and len(held) < 5
    assert all(shelf.has(each) for each in wanted(ANN)), "they are there, and not made again"
    assert len([line for line in lines.lines if "no room" in line]) == 1
