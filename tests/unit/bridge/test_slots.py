"""Slots under everything that may happen to calls, in any order and all at once: never more calls
than the capacity, and every slot given back exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_app.bridge import directory
from sessions_app.bridge.manager import SessionManager
from sessions_app.bridge.plan import CapacityReached, IncomingCall
from sessions_app.bridge.tickets import TicketRefused
from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.breaker import FAILURES
from tests.unit.bridge.fakes import until
from tests.unit.bridge.house import Build, House, connects, ticket_of

CAPACITY = 3

#: What may happen, to which call, and for how many turns of the loop everybody else goes on.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["answer", "answer", "answer", "leave", "break", "claim", "gone", "media", "close"]
        ),
        st.integers(0, 7),
        st.integers(0, 4),
    ),
    min_size=5,
    max_size=60,
)


class Story:
    """Does the steps without waiting for any of them, and looks after each turn of the loop."""

    def __init__(self, building: House) -> None:
        self.building = building
        self.manager = building.manager
        self.doing: list[asyncio.Task[object]] = []
        self.tickets: dict[str, str] = {}
        self.most = 0

    async def _answer(self, uuid: str) -> None:
        try:
            flow = await self.manager.reception.answer(IncomingCall(uuid, "1", "2"))
        except ValueError:
            return
        assert flow, "nobody hears silence"
        if connects(flow):
            self.tickets[uuid] = ticket_of(flow)

    async def _claim(self, uuid: str) -> None:
        if (ticket := self.tickets.get(uuid)) is not None:
            try:
                await self.manager.reception.claim(ticket)
            except TicketRefused:
                return

    def do(self, what: str, uuid: str) -> None:
        session = self.manager.get(uuid)
        self.building.suppliers.broken = what == "break"
        if what in ("answer", "break"):
            self.doing.append(asyncio.create_task(self._answer(uuid)))
        elif what == "leave" and self.doing:
            self.doing[-1].cancel()
        elif what == "claim":
            self.doing.append(asyncio.create_task(self._claim(uuid)))
        elif session is not None and what == "close":
            self.doing.append(asyncio.create_task(self.manager.close_session(uuid)))
        elif session is not None and what in ("gone", "media"):
            event = ev.CallerGone() if what == "gone" else ev.MediaClosed(clean=False)
            session.handle(event)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.look()

    def look(self) -> None:
        live = self.manager.get_active_session_count()
        self.most = max(self.most, live)
        assert live <= CAPACITY, "more calls than slots"
        opened = sum(p.opened and not p.closed for p in self.building.suppliers.providers)
        assert opened <= CAPACITY

    async def settle(self) -> None:
        if self.doing:
            await asyncio.wait(self.doing)
        for task in self.doing:
            if not task.cancelled():
                assert task.exception() is None, task.exception()


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_whatever_happens_slots_add_up(house: Build, steps: list[tuple[str, int, int]]) -> None:
    async def story() -> None:
        building = house(capacity=CAPACITY)
        async with building as manager:
            it = Story(building)
            for what, call, turns in steps:
                it.do(what, f"u-{call}")
                await it.turns(turns)
            building.suppliers.broken = False
            await it.settle()
            for uuid in manager.get_all_session_uuids():
                await manager.close_session(uuid)
            await _all_slots_are_free(manager)
        assert building.suppliers.open == 0

    asyncio.run(story())


async def _all_slots_are_free(manager: SessionManager) -> None:
    """Each can be taken, and not one more."""
    assert manager.get_active_session_count() == 0
    assert manager._reserved == 0 and not manager._replacing
    flows = [
        await manager.reception.answer(IncomingCall(f"new-{n}", "1", "2"))
        for n in range(CAPACITY + 2)
    ]
    assert [connects(flow) for flow in flows] == [True] * CAPACITY + [False] * 2


@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_burst_of_any_size_takes_what_there_is(house: Build, count: int) -> None:
    async def story() -> None:
        async with house(capacity=5) as manager:
            calls = [IncomingCall(f"u-{n}", "1", "2") for n in range(count)]
            flows = await asyncio.gather(*(manager.reception.answer(call) for call in calls))
            assert sum(map(connects, flows)) == min(5, count)
            again = await asyncio.gather(*(manager.reception.answer(call) for call in calls))
            assert again == flows

    asyncio.run(story())


def test_a_call_that_is_answered_while_the_process_stops_is_not_begun(house: Build) -> None:
    """Nobody would close it, and the process would wait for it."""

    async def story() -> None:
        building = house()
        found, go_on = asyncio.Event(), asyncio.Event()
        find = directory.Directory.find

        async def slow(*args: object, **kwargs: object) -> directory.Found:
            found.set()
            await go_on.wait()
            return await find(*args, **kwargs)  # type: ignore[arg-type]

        async with building as manager:
            directory.Directory.find = slow  # type: ignore[method-assign, assignment]
            try:
                answering = asyncio.create_task(
                    manager.reception.answer(IncomingCall("u-1", "1", "2"))
                )
                await found.wait()
                stopping = asyncio.create_task(manager.shutdown())
                await until(manager._stop.is_set)
                go_on.set()
                assert not connects(await answering)
            finally:
                directory.Directory.find = find  # type: ignore[method-assign]
            async with asyncio.timeout(5):
                await stopping
            with pytest.raises(CapacityReached):
                await manager.begin("u-2", "", "", None, None)

    asyncio.run(story())


def test_while_the_model_is_down_no_slot_is_given(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            for n in range(FAILURES):
                manager.provider_watch.fares(f"v-{n}", "handshake refused with 503")
            assert manager.provider_trouble == "handshake refused with 503"
            with pytest.raises(CapacityReached, match="model's service"), manager.slot():
                pass
            assert not connects(await manager.reception.answer(IncomingCall("u-1", "1", "2")))
            manager.provider_watch.fares("v-9", "")
            assert connects(await manager.reception.answer(IncomingCall("u-2", "1", "2")))

    asyncio.run(story())


def test_a_session_waits_for_its_socket_as_long_as_the_words_before_it_take(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delayed(
        _: object, call: IncomingCall, issued_s: int, *, live: bool
    ) -> directory.Found:
        delay_ms = int(call.uuid)
        return directory.Found(None, AgentProfile(), base={}, delay_ms=delay_ms)

    async def story() -> None:
        async with house() as manager:
            monkeypatch.setattr(directory.Directory, "find", delayed)
            bounds = {}
            for delay_ms in (0, 20_000):
                flow = await manager.reception.answer(IncomingCall(str(delay_ms), "1", "2"))
                assert [action["action"] for action in flow][-1] == "connect"
                session = manager.get(str(delay_ms))
                assert session is not None
                bounds[delay_ms] = session.setup.limits.unclaimed_s
            assert bounds[0] == manager.conf.limits.unclaimed_s
            assert bounds[20_000] >= bounds[0] + 1.5 * 20

    asyncio.run(story())


def test_without_the_database_the_pace_is_kept_from_memory(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[..., object] = directory.Directory.find

    async def story() -> None:
        building = house(capacity=100)
        # The house has no database: what `find` does then is what is looked at here.
        monkeypatch.setattr(directory.Directory, "find", find)
        building.manager.conf = replace(building.manager.conf, connects_per_s=3)
        building.manager.reception = type(building.manager.reception)(building.manager)
        async with building as manager:
            lookup = manager.reception._directory
            lookup._last_routes[""] = (AgentProfile(), {})
            calls = [IncomingCall(f"u-{n}", "1", "2") for n in range(7)]
            flows = [await manager.reception.answer(call) for call in calls]
            kinds = [[action["action"] for action in flow] for flow in flows]
            assert kinds[:3] == [["connect"]] * 3
            assert ["talk", "connect"] in kinds[3:]
            assert [await manager.reception.answer(call) for call in calls] == flows

    asyncio.run(story())
