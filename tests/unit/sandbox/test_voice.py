from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from sessions_app.sandbox.voice import TIMBRES, VoiceError, duration_ms, synthesise

HELLO = "Good morning, this is the front desk."


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
def test_speech_lasts_as_long_at_every_rate(rate_hz: int) -> None:
    pcm = synthesise(HELLO, rate_hz)
    assert len(pcm) % 2 == 0
    assert duration_ms(pcm, rate_hz) == pytest.approx(2000, abs=700)
    assert np.abs(np.frombuffer(pcm, "<i2").astype(int)).max() > 3000


def test_every_named_voice_speaks_and_agent_and_caller_differ() -> None:
    spoken = {name: synthesise("Hello there.", 16000, voice=name) for name in TIMBRES}
    assert all(len(pcm) > 16000 for pcm in spoken.values())
    assert spoken["marin"] != spoken["caller"]


def test_a_faster_speed_is_shorter() -> None:
    slow, fast = synthesise(HELLO, 16000), synthesise(HELLO, 16000, speed=1.5)
    assert len(fast) < 0.85 * len(slow)


def test_an_unknown_voice_is_refused_and_the_library_still_speaks() -> None:
    with pytest.raises(VoiceError, match="no-such-voice"):
        synthesise("Hello", 16000, voice="no-such-voice")
    assert synthesise("Still here.", 16000)


@pytest.mark.parametrize("rate_hz", [0, 11025, 48000])
def test_a_rate_that_nobody_uses_is_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=str(rate_hz)):
        synthesise("Hello", rate_hz)


def test_an_endless_text_is_refused_and_an_empty_one_is_silence() -> None:
    with pytest.raises(ValueError, match="5001 characters"):
        synthesise("a" * 5001, 16000)
    assert synthesise("  ", 16000) == b""


def test_threads_that_speak_at_once_do_not_mix_their_words() -> None:
    texts = [f"This is sentence number {number}." for number in range(8)]
    alone = [len(synthesise(text, 8000)) for text in texts]
    synthesise.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        together = [len(pcm) for pcm in pool.map(lambda text: synthesise(text, 8000), texts)]
    assert together == pytest.approx(alone, rel=0.05)


def test_it_speaks_from_an_environment_that_lies_too_deep_for_espeak(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100) / "espeak-ng-data"
    deep.parent.mkdir(parents=True)
    deep.symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    program = (
        "import sys, espeakng_loader\n"
        "espeakng_loader.get_data_path = lambda: sys.argv[1]\n"
        "from sessions_app.sandbox.voice import synthesise\n"
        "print(len(synthesise('Hello there.', 16000)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(deep)], capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) > 16000, done.stderr
