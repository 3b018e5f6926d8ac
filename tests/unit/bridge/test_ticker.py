"""A call's ticks come when they are due, once, however often its deadline moves."""

from __future__ import annotations

import asyncio
import logging
import math
from contextvars import ContextVar

import pytest

from sessions_app.bridge.ticker import CATCH_UP_S, STOOD_STILL_S, Ticker
from tests.unit.bridge import clockwork
from tests.unit.bridge.clockwork import now, run

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Owner:
    """A call's deadline, and the ticks it got: when, and how late it was told they are."""

    def __init__(self, due_s: float | None = None) -> None:
        self.due_s = due_s
        self.ticks: list[tuple[float, float]] = []
        self.asked = 0
        self.next_s: list[float] = []
        self.ticker = Ticker(self._next_deadline, self._tick, now)

    def _next_deadline(self) -> float | None:
        self.asked += 1
        return self.due_s

    def _tick(self, late_s: float) -> None:
        self.ticks.append((now(), late_s))
        self.due_s = self.next_s.pop(0) if self.next_s else None

    def move(self, due_s: float | None) -> None:
        self.due_s = due_s
        self.ticker.look_again()

    async def __aenter__(self) -> Owner:
        self.task = asyncio.create_task(self.ticker.run())
        await asyncio.sleep(0.001)  # its timer is set
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def leap(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, clockwork.ClockworkLoop)
    loop._hands.now += seconds


def test_a_tick_comes_when_it_is_due_and_the_next_one_too() -> None:
    async def story() -> None:
        began_s = now()
        owner = Owner(began_s + 1)
        owner.next_s = [began_s + 3]
        async with owner:
            await asyncio.sleep(10)
        assert [at - began_s for at, _ in owner.ticks] == pytest.approx([1, 3], abs=0.01)
        assert all(late_s < 0.01 for _, late_s in owner.ticks)

    run(story())


def test_a_deadline_that_comes_nearer_is_kept() -> None:
    async def story() -> None:
        async with Owner(now() + 100) as owner:
            await asyncio.sleep(1)
            due_s = now() + 1
            owner.move(due_s)
            await asyncio.sleep(5)
            assert owner.ticks == [(pytest.approx(due_s, abs=0.01), pytest.approx(0, abs=0.01))]

    run(story())


def test_a_deadline_that_is_put_off_again_and_again_wakes_hardly_anybody() -> None:
    async def story() -> None:
        async with Owner(now() + 1) as owner:
            for _ in range(1000):
                owner.due_s = now() + 1
                await asyncio.sleep(0.02)
            # The timer goes off once a second at most, for nothing.
            assert owner.ticks == []
            assert owner.asked <= 25
            due_s = owner.due_s
            await asyncio.sleep(5)
            assert [at for at, _ in owner.ticks] == [pytest.approx(due_s, abs=0.01)]

    run(story())


def test_looking_again_many_times_at_once_is_looking_once() -> None:
    async def story() -> None:
        async with Owner(now() + 10) as owner:
            asked = owner.asked
            for _ in range(100):
                owner.ticker.look_again()
            await asyncio.sleep(0.1)
            assert owner.asked == asked + 1

    run(story())


def test_without_a_deadline_nothing_comes() -> None:
    async def story() -> None:
        async with Owner(None) as owner:
            await asyncio.sleep(1000)
            assert owner.ticks == []
            owner.move(now() + 1)
            owner.due_s = None  # the call is over
            await asyncio.sleep(1000)
            assert owner.ticks == []

    run(story())


def test_a_deadline_that_has_passed_is_due_and_not_late() -> None:
    async def story() -> None:
        async with Owner(now() + 100) as owner:
            owner.move(now() - 50)
            await asyncio.sleep(0.1)
            (tick,) = owner.ticks
            assert tick[1] < 0.01

    run(story())


def test_who_stood_still_reads_what_came_meanwhile_before_anybody_is_judged() -> None:
    async def story() -> None:
        async with Owner(now() + 1) as owner:
            leap(60)
            woke_s = now()
            # While it catches up, not even a nearer deadline is judged.
            await asyncio.sleep(CATCH_UP_S / 2)
            owner.move(now())
            await asyncio.sleep(CATCH_UP_S / 4)
            assert owner.ticks == []
            await asyncio.sleep(CATCH_UP_S)
            (tick,) = owner.ticks
            assert tick[0] - woke_s >= CATCH_UP_S
            assert tick[1] == pytest.approx(59, abs=0.1)

    run(story())


def test_a_timer_that_is_overdue_is_not_replaced_by_one_that_knows_of_no_delay() -> None:
    async def story() -> None:
        began_s = now()
        async with Owner(began_s + 1) as owner:
            leap(STOOD_STILL_S + 10)
            owner.move(began_s + 0.5)
            await asyncio.sleep(CATCH_UP_S + 1)
            assert owner.ticks[0][1] >= STOOD_STILL_S

    run(story())


def test_a_tick_that_fails_ends_the_ticker_with_its_fault() -> None:
    async def story() -> None:
        async with Owner(now() + 1) as owner:
            owner._tick = None  # type: ignore[assignment,method-assign]
            owner.ticker._tick = _breaks
            await asyncio.wait([owner.task], timeout=10)
            with pytest.raises(KeyError):
                owner.task.result()

    run(story())


def _breaks(late_s: float) -> None:
    raise KeyError("a bug")


def test_another_tick_that_fails_before_the_end_does_no_harm() -> None:
    async def story() -> None:
        async with Owner(now() + 1) as owner:
            owner.ticker._tick = _breaks
            owner.ticker._hand_in(0.0)
            owner.ticker._hand_in(0.0)
            await asyncio.wait([owner.task], timeout=10)
            with pytest.raises(KeyError):
                owner.task.result()

    run(story())


def test_a_tick_belongs_to_the_call_whoever_moved_its_deadline() -> None:
    async def story() -> None:
        seen: list[str] = []
        ticker = Ticker(lambda: due[0], lambda late_s: (seen.append(whose.get()), due.clear()), now)  # type: ignore[arg-type,func-returns-value]
        due: list[float] = [math.inf]

        async def own() -> None:
            whose.set("the call's")
            await ticker.run()

        async def somebody() -> None:
            whose.set("somebody's")
            due[0] = now() + 1
            ticker.look_again()

        task = asyncio.create_task(own())
        await asyncio.sleep(0)
        await asyncio.create_task(somebody())
        due.append(math.inf)
        await asyncio.sleep(0.5)
        assert seen == []
        await asyncio.wait([task], timeout=1)
        assert seen == ["the call's"]
        task.cancel()
        await asyncio.wait([task])

    run(story())


def test_nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Owner(now() + 1) as owner:
            owner.ticker.look_again()
        owner.ticker.look_again()
        await asyncio.sleep(10)
        assert owner.ticks == []

    with caplog.at_level(logging.ERROR, "asyncio"):
        run(story())
    assert not caplog.records
