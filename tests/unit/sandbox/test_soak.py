"""What figures say: flat or growing."""

from __future__ import annotations

import random

import pytest

from sessions_app.sandbox.soak import FLAT_SLACK, Figures, MemoryLog

MIB = 1 << 20


def log_of(
    calls: int, bytes_per_call: float, *, noise_bytes: int = 2 * MIB, spikes: int = 0
) -> MemoryLog:
    chance = random.Random(7)
    log = MemoryLog()
    for done in range(0, calls + 1, max(1, calls // 1000)):
        spike = 80 * MIB if spikes and chance.random() < 0.05 else 0
        noise = chance.randint(-noise_bytes, noise_bytes)
        log.add(done, int(200 * MIB + done * bytes_per_call + noise + spike))
    return log


def test_noise_and_spikes_are_no_growth() -> None:
    slope = log_of(5000, 0.0, spikes=1).slope()
    assert slope is not None
    assert not slope.is_growing
    assert abs(slope.bytes_per_call) < 200


def test_two_kilobytes_a_call_are_found_behind_the_noise() -> None:
    slope = log_of(5000, 2048, spikes=1).slope()
    assert slope is not None
    assert slope.is_growing
    assert slope.bytes_per_call == pytest.approx(2048, rel=0.1)
    assert 0 < slope.surely_bytes_per_call < slope.bytes_per_call
    assert slope.calls == pytest.approx(4000, rel=0.02)


def test_what_is_warmed_up_in_the_first_fifth_is_no_slope() -> None:
    log = MemoryLog()
    for done in range(0, 5001, 10):
        log.add(done, 100 * MIB + min(done, 1000) * 50_000)
    slope = log.slope()
    assert slope is not None
    assert (slope.bytes_per_call, slope.is_growing) == (0.0, False)


def test_a_step_smaller_than_a_breath_is_no_growth_however_sure() -> None:
    slope = log_of(5000, 300, noise_bytes=0).slope()
    assert slope is not None
    assert slope.surely_bytes_per_call > 0
    assert not slope.is_growing


def test_too_few_calls_tell_nothing() -> None:
    assert MemoryLog().slope() is None
    assert log_of(100, 10_000).slope() is None
    short = MemoryLog()
    for done in range(0, 1000, 100):
        short.add(done, MIB)
    assert short.slope() is None


def test_samples_are_bounded_and_reach_to_the_end() -> None:
    log = MemoryLog()
    for done in range(100_000):
        log.add(done, 100 * MIB)
    assert len(log) <= 400
    slope = log.slope()
    assert slope is not None
    assert slope.calls > 79_000


def test_flat_is_flat_but_for_a_pool_that_fills_up() -> None:
    before = Figures(rss_bytes=1, fds=40, tasks=9, threads=12)
    after = Figures(rss_bytes=9, fds=40 + FLAT_SLACK, tasks=10 + FLAT_SLACK, threads=3)
    assert after.above(before) == {"tasks": 1 + FLAT_SLACK}
    assert Figures().above(before) == {}
    assert after.above(Figures()) == {}


def test_figures_are_read_from_health_as_far_as_they_are_told() -> None:
    told = {"rss_bytes": 5, "fds": "many", "threads": 3, "cpu_s": 1.0}
    assert Figures.of(told) == Figures(rss_bytes=5, threads=3)
    assert before_like(Figures(fds=1, rss_bytes=5))


def before_like(figures: Figures) -> bool:
    """Memory breathes; the rest does not."""
    return figures.is_like(Figures(fds=1, rss_bytes=6)) and not figures.is_like(None)
