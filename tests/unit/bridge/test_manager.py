"""The live calls of a process: one session a call, slots that add up, an end without remains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, InternalError, OperationalError

from sessions_app import conf, mirror
from sessions_app.bridge import manager as manager_module
from sessions_app.bridge.leg_reports import MediaLeg
from sessions_app.bridge.plan import CallPlan, CapacityReached, Ended, IncomingCall
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import TicketRefused
from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.phrases import Clip, Phrase
from sessions_app.prepared.shelf import Shelf
from sessions_app.prepared.wording import wanted
from tests.unit.bridge.fakes import (
    Lines,
    fine,
    hangs,
    log_lines,
    slow,
    until,
)
from tests.unit.bridge.house import Build, connects, ticket_of


def lines_of(lines: Lines) -> list[str]:
    """The lines that are watched for."""
    signs = ("🧹", "✓", "✅", "Closing and", "Session removed", "Cleaning up", "Attempted")
    return [line for line in lines.lines if any(sign in line for sign in signs)]


def test_a_second_session_of_a_call_begins_when_the_first_is_gone(house: Build) -> None:
    async def story() -> None:
        building = house()
        with log_lines() as lines:
            async with building as manager:
                building.suppliers.closing = slow
                first = await manager.create_session("u-1", "44770")
                await until(lambda: building.suppliers.open == 1)
                second = await manager.create_session("u-1", "44770")
                assert first is not second
                assert building.suppliers.providers[0].closed == 1
                assert manager.get("u-1") is second
                assert manager.get_all_session_uuids() == ["u-1"]
                await manager.close_session("u-1")
        assert lines_of(lines)[:6] == [
            "[u-1] Cleaning up existing session before creating new one",
            "[u-1] 🧹 Starting session cleanup...",
            "[u-1] ✓ Closed OpenAI WebSocket",
            "[u-1] ✅ Session cleanup completed - all resources released",
            "[u-1] Closing and removing session from SessionManager",
            "[u-1] Session removed. Active sessions: 0",
        ]
        assert first.end_reason is ev.EndReason.REPLACED

    asyncio.run(story())


def test_many_at_once_for_one_call_leave_one_session(house: Build) -> None:
    async def story() -> None:
        building = house()
        async with building as manager:
            made = await asyncio.gather(*(manager.create_session("u-1") for _ in range(8)))
            await asyncio.sleep(0.05)
            live = [session for session in made if session.end_reason is None]
            assert live == [manager.get("u-1")]
            assert manager.get_active_session_count() == 1
            assert building.suppliers.open <= 1
        assert building.suppliers.open == 0

    asyncio.run(story())


def test_the_same_answer_again_gets_the_same_words(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            call = IncomingCall("u-1", "44770", "44207")
            flows = await asyncio.gather(*(manager.reception.answer(call) for _ in range(8)))
            assert all(flow == flows[0] for flow in flows)
            assert connects(flows[0])
            assert manager.get_active_session_count() == 1

    asyncio.run(story())


def test_a_burst_cannot_overrun_the_capacity(house: Build) -> None:
    async def story() -> None:
        async with house(capacity=3) as manager:
            calls = [IncomingCall(f"u-{n}", "44770", "44207") for n in range(20)]
            flows = await asyncio.gather(*(manager.reception.answer(call) for call in calls))
            assert sum(connects(flow) for flow in flows) == 3
            assert manager.get_active_session_count() == 3
            assert all(flow for flow in flows), "nobody hears silence"
            with pytest.raises(CapacityReached), manager.slot():
                pass
            await manager.close_session(manager.get_all_session_uuids()[0])
            with manager.slot():
                pass

    asyncio.run(story())


def test_a_replaced_session_keeps_its_slot_while_it_is_replaced(house: Build) -> None:
    async def story() -> None:
        building = house(capacity=1)
        removed = building.manager._removed
        full: list[bool] = []

        def looks(session: CallSession) -> None:
            removed(session)
            full.append(building.manager.full)

        building.manager._removed = looks  # type: ignore[method-assign]
        async with building as manager:
            call = IncomingCall("u-1", "1", "2")
            first = ticket_of(await manager.reception.answer(call))
            await manager.reception.claim(first)
            second = ticket_of(await manager.reception.answer(call))
            await manager.reception.claim(second)
            assert full == [True], "another call could take the slot before the newcomer"

    asyncio.run(story())


def test_a_slot_is_given_back_when_a_session_cannot_be_made(house: Build) -> None:
    async def story() -> None:
        building = house(capacity=1)
        async with building as manager:
            building.suppliers.broken = True
            for _ in range(3):
                with pytest.raises(ValueError, match="no such voice"):
                    await manager.reception.answer(IncomingCall("u-1", "44770", "44207"))
            assert manager.get_active_session_count() == 0
            assert not manager.full
            building.suppliers.broken = False
            assert connects(await manager.reception.answer(IncomingCall("u-1", "1", "2")))

    asyncio.run(story())


def test_an_asker_who_leaves_takes_no_slot_with_him(house: Build) -> None:
    async def story() -> None:
        async with house(capacity=1) as manager:
            asking = asyncio.create_task(manager.reception.answer(IncomingCall("u-1", "1", "2")))
            await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait([asking])
            assert connects(await manager.reception.answer(IncomingCall("u-2", "1", "2")))

    asyncio.run(story())


def test_a_ticket_is_good_once_and_a_second_one_replaces_the_first_socket(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            call = IncomingCall("u-1", "44770", "44207")
            ticket = ticket_of(await manager.reception.answer(call))
            first = await manager.reception.claim(ticket)
            with pytest.raises(TicketRefused):
                await manager.reception.claim(ticket)
            again = ticket_of(await manager.reception.answer(call))
            assert again != ticket
            second = await manager.reception.claim(again)
            assert second is not first
            assert first.end_reason is ev.EndReason.REPLACED
            assert manager.get("u-1") is second
            with pytest.raises(TicketRefused):
                await manager.reception.claim("forged")

    asyncio.run(story())


def test_a_ticket_of_a_call_that_is_just_ending_is_refused(house: Build) -> None:
    """Refused, the carrier tells, and the caller hears words; accepted, he would hear nothing."""

    async def story() -> None:
        building = house()
        async with building as manager:
            building.suppliers.closing = slow
            ticket = ticket_of(await manager.reception.answer(IncomingCall("u-1", "1", "2")))
            await until(lambda: building.suppliers.open == 1)
            session = manager.get("u-1")
            assert session is not None
            session.handle(ev.EndRequested(ev.EndReason.OPERATOR))
            with pytest.raises(TicketRefused):
                await manager.reception.claim(ticket)

    asyncio.run(story())


def test_asked_again_after_the_end_the_caller_hears_an_apology(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            call = IncomingCall("u-1", "44770", "44207")
            await manager.reception.answer(call)
            await manager.close_session("u-1", ev.EndReason.OPERATOR)
            flow = await manager.reception.answer(call)
            assert flow
            assert not connects(flow)

    asyncio.run(story())


def test_closing_a_call_that_is_not_there_is_told(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            with log_lines() as lines:
                await manager.close_session("u-9")
        assert lines.lines[0] == "[u-9] Attempted to close non-existent session"
        assert lines.levels[lines.lines[0]] == logging.WARNING

    asyncio.run(story())


def test_shutdown_closes_every_call_and_leaves_no_task(house: Build) -> None:
    async def story() -> None:
        before = asyncio.all_tasks()
        building = house()
        async with building as manager:
            sessions = [await manager.create_session(f"u-{n}") for n in range(5)]
            await until(lambda: building.suppliers.open == 5)
        assert building.suppliers.open == 0
        assert building.released
        assert {s.end_reason for s in sessions} == {ev.EndReason.SHUTDOWN}
        assert asyncio.all_tasks() == before
        assert building.suppliers.hung_up == []

    asyncio.run(story())


@pytest.mark.parametrize("carrier_away", [True, False])
def test_a_leg_that_could_not_be_hung_up_is_looked_after(house: Build, carrier_away: bool) -> None:
    async def story() -> None:
        building = house()
        building.suppliers.carrier_away = carrier_away
        async with building as manager:
            plan = CallPlan(region_url="https://api-eu.vonage.com")
            session = await manager.begin("u-1", "", "", None, plan)
            session.handle(ev.EndRequested(ev.EndReason.OPERATOR))
            await session.wait_released()
            left = {"u-1": "https://api-eu.vonage.com"} if carrier_away else {}
            assert manager.reconciler._left_up == left
            assert manager.get_active_session_count() == 0

    asyncio.run(story())


PERSON = CallPlan(AgentProfile(fallback_number="442079460111"))


@pytest.mark.parametrize("away", [OperationalError, InternalError, DatabaseError])
def test_a_caller_whose_media_broke_hears_the_same_words_each_time_it_is_told(
    house: Build,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    away: type[DatabaseError],
) -> None:
    """Whatever is wrong with the database, and without taking a place each time."""

    async def query(*_: object) -> None:
        raise away("cannot write")

    settings.VONAGE_CONNECTS_PER_SECOND = 3
    building = house()
    monkeypatch.setattr(mirror.Mirror, "query", query)

    async def story() -> None:
        async with building as manager:
            for uuid in ("u-1", "u-2", "u-3", "u-4"):
                await manager.create_session(uuid, plan=PERSON)
            reports = [
                await manager.reception.media_leg_failed(uuid, "CON", MediaLeg(uuid), broke=True)
                for uuid in ("u-1", "u-2", "u-3", "u-4", "u-1", "u-4", "u-4")
            ]
            assert all(flow is not None and connects(flow) for flow in reports)
            assert reports[4] == reports[0]
            assert reports[3] == reports[5] == reports[6] != reports[0], "three in a second"

    asyncio.run(story())


def test_a_caller_who_was_bid_goodbye_hears_no_apology_while_that_call_is_released(
    house: Build,
) -> None:
    async def story() -> None:
        building = house()
        building.suppliers.closing = slow
        async with building as manager:
            session = await manager.create_session("u-1", plan=PERSON)
            await until(lambda: building.suppliers.open == 1)
            session.handle(ev.CallerGone())
            assert manager.get("u-1") is session
            told = partial(
                manager.reception.media_leg_failed, "u-1", "CON", MediaLeg("leg"), broke=True
            )
            meanwhile = await told()
            await session.wait_released()
            assert meanwhile == await told()
            assert meanwhile is not None and not connects(meanwhile)

    asyncio.run(story())


def test_of_calls_that_are_over_each_agent_is_kept_once(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "AGENTS_MOST", 3)
    manager = house().manager
    for number in range(8):
        agent = AgentProfile(name=f"agent {number // 2}")
        manager.remember(f"u-{number}", Ended(ev.EndReason.LOST, agent, "442079460000"))
    kept = [manager.ended(f"u-{number}") for number in range(8)]
    assert [ended.agent.name for ended in kept if ended and ended.agent] == [
        f"agent {number // 2}" for number in range(8)
    ]
    assert len({id(ended.agent) for ended in kept if ended}) == 4
    assert len(manager._agents) <= 3


def test_a_drain_waits_for_the_live_calls_and_takes_no_new_ones(house: Build) -> None:
    async def story() -> None:
        building = house()
        async with building as manager:
            session = await manager.create_session("u-1")
            draining = asyncio.create_task(manager.drain(30))
            await asyncio.sleep(0.05)
            assert not draining.done()
            assert not connects(await manager.reception.answer(IncomingCall("u-2", "1", "2")))
            session.handle(ev.CallerGone())
            assert await draining == 0

    asyncio.run(story())


def test_a_drain_that_takes_too_long_hangs_up_on_who_is_left(house: Build) -> None:
    async def story() -> None:
        building = house()
        async with building as manager:
            first = await manager.create_session("u-1")
            await manager.create_session("u-2")
            assert await manager.drain(0.1) == 2
            assert first.end_reason is ev.EndReason.DRAINED
            assert sorted(building.suppliers.hung_up) == ["u-1", "u-2"]

    asyncio.run(story())


def test_a_call_that_was_ending_anyway_is_not_counted_as_cut_off(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            leaving = await manager.create_session("u-1")
            await manager.create_session("u-2")
            leaving.handle(ev.CallerGone())
            assert await manager.drain(0) == 1
            assert leaving.end_reason is ev.EndReason.CALLER_HUNG_UP

    asyncio.run(story())


def test_a_session_that_never_came_to_run_holds_nobody_up(house: Build) -> None:
    """The root may be cancelled between the making of a session and its first step."""

    async def story() -> None:
        building = house()
        await building.manager.start()
        session = await building.manager.create_session("u-1")
        root = building.manager._root
        assert root is not None
        root.cancel()
        await asyncio.wait([root])
        async with asyncio.timeout(5):
            await session.close()
        assert building.manager.get_active_session_count() == 0

    asyncio.run(story())


def test_a_root_that_could_not_begin_is_tried_again(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        building = house()
        works = manager_module.open_suppliers

        @asynccontextmanager
        async def unusable(_: conf.Conf) -> AsyncIterator[None]:
            raise ValueError("not a private key")
            yield

        monkeypatch.setattr(manager_module, "open_suppliers", unusable)
        with pytest.raises(ValueError, match="not a private key"):
            await building.manager.start()
        monkeypatch.setattr(manager_module, "open_suppliers", works)
        async with building as manager:
            await manager.create_session("u-1")

    asyncio.run(story())


def test_a_call_whose_model_hangs_at_its_end_holds_up_no_other(house: Build) -> None:
    async def story() -> None:
        building = house()
        async with building as manager:
            building.suppliers.closing = hangs
            await manager.create_session("u-1")
            building.suppliers.closing = fine
            await manager.create_session("u-2")
            await until(lambda: building.suppliers.open == 2)
            hanging = asyncio.create_task(manager.close_session("u-1"))
            await manager.close_session("u-2")
            assert not hanging.done()
            async with asyncio.timeout(5):
                await hanging
            assert manager.get_active_session_count() == 0

    asyncio.run(story())


def test_sessions_are_made_as_scripts_make_them(house: Build) -> None:
    async def story() -> None:
        async with house() as manager:
            session = await manager.create_session(
                "u-1", "44770", "44207", 7, plan=CallPlan(AgentProfile(name="Ann"))
            )
            assert isinstance(session, CallSession)
            told = (session.call_uuid, session.caller, session.called, session.user_id)
            assert told == ("u-1", "44770", "44207", 7)
            assert session.setup.agent.name == "Ann"

    asyncio.run(story())


def test_every_session_is_given_what_it_can_say_without_a_supplier(
    house: Build, tmp_path: Path
) -> None:
    async def story() -> None:
        async with house() as manager:
            manager.shelf = Shelf(tmp_path)
            greeting, *_ = wanted(AgentProfile())
            own = Clip(Phrase.GREETING, greeting.text, 16_000, b"\1\0" * 8000)
            manager.shelf.keep(greeting, own)

            answered = await manager.reception.answer(IncomingCall("u-1", "44770", "44207"))
            assert connects(answered)
            session = manager.get("u-1")
            assert session is not None
            scripted = await manager.create_session("u-2")
            again = await manager.create_session("u-1")

            for each in (session, scripted, again):
                assert each.setup.clips.get(Phrase.GREETING) == own
                apology = each.setup.clips.get(Phrase.APOLOGY)
                assert apology is not None and apology.pcm

    asyncio.run(story())
