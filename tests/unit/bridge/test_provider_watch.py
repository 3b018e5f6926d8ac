"""A model's service that is down is looked after until it answers, by no caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sessions_app.bridge.provider_watch import LOOK_TIMEOUT_S, ProviderWatch
from sessions_app.core.breaker import FAILURES
from sessions_app.core.errors import ProviderError
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import fine, hangs, log_lines


class Service:
    """Answers, refuses or hangs as told; counts who comes."""

    def __init__(self) -> None:
        self.answering: Callable[[], Awaitable[None]] = self._refuses
        self.looks: list[float] = []

    async def _refuses(self) -> None:
        raise ProviderError("handshake refused with 503", retryable=True)

    async def look(self) -> None:
        self.looks.append(clockwork.now())
        await self.answering()


def watch() -> ProviderWatch:
    return ProviderWatch(clock=clockwork.now, rand=lambda: 0.5)


def fail(it: ProviderWatch) -> None:
    for n in range(FAILURES):
        it.fares(f"u-{n}", "handshake refused with 503")


def story(tell: Callable[[ProviderWatch, Service], Awaitable[None]]) -> None:
    async def told() -> None:
        it, service = watch(), Service()
        running = asyncio.create_task(it.run(service.look))
        try:
            await tell(it, service)
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

    clockwork.run(told())


def test_it_is_looked_for_later_and_later_until_it_answers() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        with log_lines() as lines:
            began = clockwork.now()
            fail(it)
            assert it.down
            await asyncio.sleep(20)
            assert it.down and it.trouble == "handshake refused with 503"
            assert [round(at - began, 3) for at in service.looks] == [1, 3, 7, 15]
            service.answering = fine
            await asyncio.sleep(20)
            assert not it.down and it.trouble == ""
            assert len(service.looks) == 5
            await asyncio.sleep(600)
            assert len(service.looks) == 5, "nobody looks while it is up"
        assert len([line for line in lines.lines if "is down" in line]) == 1
        assert len([line for line in lines.lines if "is back" in line]) == 1

    story(tell)


def test_a_call_that_reaches_it_says_so_before_the_next_look() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        fail(it)
        await asyncio.sleep(3.5)
        it.fares("u-9", "")
        assert not it.down
        looked = len(service.looks)
        await asyncio.sleep(60)
        assert len(service.looks) == looked

    story(tell)


def test_to_be_let_in_is_no_answer() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        fail(it)
        it.fares("u-9", "", answered=False)
        assert it.down and it.trouble == "handshake refused with 503"

    story(tell)
    it = watch()
    for n in range(FAILURES):
        it.fares(f"u-{n}", "", answered=False)
        assert it.trouble == ""
        it.fares(f"u-{n}", "insufficient_quota")
    assert it.down


def test_it_goes_down_again_and_is_looked_after_again() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        service.answering = fine
        for round_ in range(1, 4):
            fail(it)
            assert it.down
            await asyncio.sleep(1.1)
            assert not it.down
            assert len(service.looks) == round_

    story(tell)


def test_a_service_that_hangs_is_left_and_looked_for_again() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        service.answering = hangs
        fail(it)
        await asyncio.sleep(1 + LOOK_TIMEOUT_S + 2.1)
        assert len(service.looks) == 2
        assert "no answer" in it.trouble

    story(tell)


def test_a_fault_of_ours_ends_no_look() -> None:
    async def tell(it: ProviderWatch, service: Service) -> None:
        async def broken() -> None:
            raise ZeroDivisionError("ours")

        service.answering = broken
        fail(it)
        await asyncio.sleep(4)
        assert it.down and "ours" in it.trouble
        service.answering = fine
        await asyncio.sleep(10)
        assert not it.down

    story(tell)
