"""What is freed goes back to the system, and what stays is not looked through again and again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sessions_app.process import give_back_memory

_STORY = """
import gc
from sessions_app.process import give_back_memory, rss_bytes, spare_collector
kept = [bytes(1000) for _ in range(100_000)]
for number in range(len(kept)):
    if number % 200:
        kept[number] = None
before = rss_bytes()
give_back_memory()
print(before - rss_bytes())
spare_collector()
print(gc.get_freeze_count() > 1000, gc.isenabled())
"""


def test_freed_memory_is_given_back_though_some_between_it_is_used() -> None:
    try:
        ctypes.CDLL(None).malloc_trim  # noqa: B018
    except AttributeError:
        pytest.skip("this C library keeps what is freed")
    done = subprocess.run(
        [sys.executable, "-c", _STORY], capture_output=True, text=True, timeout=60, check=True
    )
    given_back, frozen = done.stdout.splitlines()
    assert int(given_back) > 50_000_000
    assert frozen == "True True"


def test_a_library_that_does_not_offer_it_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back_memory()
