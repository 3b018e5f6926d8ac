"""A caller whose line breaks, or is dead, goes on over another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from django.db import OperationalError

from sessions_app import mirror
from sessions_app.bridge import directory
from sessions_app.bridge.leg_reports import MediaLeg
from sessions_app.bridge.manager import SessionManager
from sessions_app.bridge.plan import IncomingCall
from sessions_app.bridge.session import CallSession
from sessions_app.bridge.tickets import TicketRefused
from sessions_app.core import events as ev
from tests.unit.bridge.fakes import FakeSocket, slow, until
from tests.unit.bridge.house import Build, Flow, House, connects, ticket_of


@asynccontextmanager
async def in_talk(building: House) -> AsyncIterator[tuple[SessionManager, CallSession]]:
    """A call with a person, whose socket is open and whose caller has said something."""
    async with building as manager:
        await manager.reception.answer(IncomingCall("u-1", "44770", "44207"))
        session = manager.get("u-1")
        assert session is not None and session.ticket is not None
        claimed = await manager.reception.claim(session.ticket.text())
        assert claimed is session
        session.open_media(FakeSocket())
        await until(lambda: building.suppliers.open == 1)
        emit = building.suppliers.providers[0].emit
        assert emit is not None
        emit(ev.SpeechStarted("i-1"))
        emit(ev.SpeechStopped("i-1"))
        emit(ev.CallerTranscript("i-1", "My name is Ann.", final=True))
        yield manager, session


def test_a_caller_whose_media_broke_goes_on_in_a_session_that_knows_what_was_said(
    house: Build,
) -> None:
    async def story() -> None:
        building = house()
        async with in_talk(building) as (manager, former):
            told = partial(manager.reception.media_leg_failed, "u-1", "CON", broke=True)
            former.handle(ev.MediaClosed(clean=False))
            first = await told(leg=MediaLeg("leg-1"))
            session = manager.get("u-1")
            assert session is not None and session is not former
            assert former.end_reason is ev.EndReason.REPLACED and session.end_reason is None
            assert (
                session.past.memory is former.past.memory
                and session.past.memory.last_speaker is ev.Speaker.CALLER
            )
            assert first is not None and [a["action"] for a in first] == ["talk", "connect"]
            assert await told(leg=MediaLeg("leg-1")) == first, "whenever it is told"
            assert manager.get("u-1") is session
            claimed = await manager.reception.claim(ticket_of(first))
            assert claimed is session
            with pytest.raises(TicketRefused):
                await manager.reception.claim(ticket_of(first))
            # The leg of the former socket, which is closed for the next one, is reported meanwhile.
            late = await manager.reception.media_leg_failed(
                "u-1", "CON", MediaLeg("leg-0"), broke=False
            )
            assert late is not None and not session.over
            session.open_media(FakeSocket())
            again = await told(leg=MediaLeg("leg-1"))
            assert again is not None and [a["action"] for a in again] == ["notify"]
            assert manager.get("u-1") is session and not session.over, "that was told before"
            # A second time it is made up for as well; a line that breaks a third time is given up.
            session.handle(ev.MediaClosed(clean=False))
            assert ticket_of(await told(leg=MediaLeg("leg-2")) or []) != ticket_of(first)
            session = manager.get("u-1")
            assert session is not None
            await manager.reception.claim(session.ticket.text() if session.ticket else "")
            session.open_media(FakeSocket())
            session.handle(ev.MediaClosed(clean=False))
            last = await told(leg=MediaLeg("leg-3"))
            assert last is not None and not connects(last) and last[0]["action"] == "talk"
            assert session.end_reason is ev.EndReason.MEDIA_LOST
            await session.wait_released()
        assert building.suppliers.open == 0

    asyncio.run(story())


def test_a_report_of_an_older_leg_costs_a_living_call_nothing(house: Build) -> None:
    async def story() -> None:
        async with in_talk(house()) as (manager, session):
            session.take_frame(bytes(640))
            flow = await reported(manager, MediaLeg("old"))
            assert await reported(manager, MediaLeg("old")) == flow, "it may not have come"
            assert manager.get("u-1") is session and not session.over
            # Should it be this one's leg after all, the next socket takes over.
            assert flow is not None
            session.handle(ev.MediaClosed(clean=False))
            await asyncio.sleep(1.0)
            assert not session.over
            claimed = await manager.reception.claim(ticket_of(flow))
            assert claimed is manager.get("u-1") is not session
            assert session.end_reason is ev.EndReason.REPLACED

    asyncio.run(story())


async def comes_back(manager: SessionManager, flow: Flow) -> CallSession:
    session = await manager.reception.claim(ticket_of(flow))
    session.open_media(FakeSocket())
    return session


def test_a_caller_on_a_dead_line_is_connected_again_by_the_carrier_then_led_away(
    house: Build,
) -> None:
    async def story() -> None:
        building = house()
        flows = building.suppliers.transferred
        async with in_talk(building) as (manager, session):
            for breaks in (1, 2):
                session.handle(ev.MediaClosed(clean=False))
                await manager.reception.connect_again(session)
                assert len(flows) == breaks and [a["action"] for a in flows[-1]] == [
                    "talk",
                    "connect",
                ]
                assert session.end_reason is ev.EndReason.REPLACED
                # Closing the dead socket makes the carrier ask about its leg: the same once more.
                leg = MediaLeg(f"leg-{breaks}", breaks)
                asked = await manager.reception.media_leg_failed("u-1", "CON", leg, broke=True)
                assert asked == flows[-1]
                session = await comes_back(manager, flows[-1])
            assert session.past.memory.last_speaker is ev.Speaker.CALLER
            session.handle(ev.MediaClosed(clean=False))
            await manager.reception.connect_again(session)
            assert session.end_reason is ev.EndReason.TRANSFERRED
            assert len(flows) == 3 and not connects(flows[-1]) and flows[-1][0]["action"] == "talk"
            await session.wait_released()
        assert building.suppliers.open == 0

    asyncio.run(story())


def test_a_dead_line_that_the_carrier_does_not_replace_ends_the_call(house: Build) -> None:
    async def story() -> None:
        building = house()
        async with in_talk(building) as (manager, session):
            building.suppliers.carrier_away = True
            session.handle(ev.MediaClosed(clean=False))
            await manager.reception.connect_again(session)
            assert session.end_reason is ev.EndReason.MEDIA_LOST
            await session.wait_released()
            assert manager.get("u-1") is None
            assert "u-1" in manager.reconciler._left_up, "he may sit on a line that takes nothing"

    asyncio.run(story())


def test_a_leg_that_was_left_behind_counts_for_nothing_however_often_it_is_reported(
    house: Build,
) -> None:
    async def story() -> None:
        async with in_talk(house()) as (manager, former):
            told = partial(manager.reception.media_leg_failed, "u-1", "CON", broke=True)
            flow = await manager.reception.answer(IncomingCall("u-1", "44770", "44207"))
            session = await manager.reception.claim(ticket_of(flow))
            session.open_media(FakeSocket())
            session.take_frame(bytes(640))
            for number in range(4):
                told_again = await told(leg=MediaLeg(f"old-{number}", 1))
                assert told_again is not None and not connects(told_again)
            session.handle(ev.MediaClosed(clean=False))
            assert connects(await told(leg=MediaLeg("now", 2)) or [])
            assert manager.get("u-1") is not session and former.over

    asyncio.run(story())


def test_a_caller_who_is_bid_goodbye_is_not_connected_again(house: Build) -> None:
    async def story() -> None:
        async with in_talk(house()) as (manager, session):
            emit = manager.suppliers.providers[0].emit  # type: ignore[attr-defined]
            emit(ev.ResponseStarted("r-1"))
            emit(ev.ToolCalled("r-1", "c-1", "end_call", "{}"))
            session.handle(ev.MediaClosed(clean=False))
            assert session.end_reason is ev.EndReason.AGENT_ENDED
            flow = await manager.reception.media_leg_failed(
                "u-1", "CON", MediaLeg("leg"), broke=True
            )
            assert flow is not None and not connects(flow)

    asyncio.run(story())


def lost_session(former: CallSession, manager: SessionManager) -> CallSession:
    """The one that has taken its place."""
    session = manager.get(former.call_uuid)
    assert session is not None and session is not former
    assert former.end_reason is ev.EndReason.REPLACED
    return session


def reported(manager: SessionManager, leg: MediaLeg) -> asyncio.Task[Flow | None]:
    """The carrier asks, and somebody is about to answer."""
    return asyncio.create_task(manager.reception.media_leg_failed("u-1", "CON", leg, broke=True))


LEG = MediaLeg("leg-1", 1)


def test_a_caller_who_hangs_up_while_his_session_is_replaced_is_gone(house: Build) -> None:
    async def story() -> None:
        building = house()
        building.suppliers.closing = slow
        async with in_talk(building) as (manager, former):
            former.handle(ev.MediaClosed(clean=False))
            asked = reported(manager, LEG)
            await until(lambda: former.over)
            manager.reception.caller_leg("u-1", "completed", {}, ended=True)
            await asked
            session = manager.get("u-1")
            if session is not None:
                await session.wait_released()
            assert manager.get("u-1") is None
            ended = manager.ended("u-1")
            assert ended is not None and ended.reason is ev.EndReason.CALLER_HUNG_UP
        assert building.suppliers.open == 0

    asyncio.run(story())


def test_a_process_that_stops_while_a_session_is_replaced_leaves_none(house: Build) -> None:
    async def story() -> None:
        building = house()
        building.suppliers.closing = slow
        async with in_talk(building) as (manager, former):
            former.handle(ev.MediaClosed(clean=False))
            asked = reported(manager, LEG)
            await until(lambda: former.over)
            async with asyncio.timeout(5):
                await manager.shutdown()
            flow = await asked
            assert flow is not None and not connects(flow)
            assert manager.get("u-1") is None
        assert building.suppliers.open == 0

    asyncio.run(story())


def test_a_webhook_that_the_carrier_hangs_up_on_awaits_the_caller_all_the_same(
    house: Build,
) -> None:
    async def story() -> None:
        building = house()
        building.suppliers.closing = slow
        async with in_talk(building) as (manager, former):
            former.handle(ev.MediaClosed(clean=False))
            asked = reported(manager, LEG)
            await until(lambda: former.over)
            asked.cancel()
            await asyncio.wait([asked])
            flow = await reported(manager, LEG)
            assert flow is not None
            session = lost_session(former, manager)
            assert await comes_back(manager, flow) is session

    asyncio.run(story())


def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def query(*_: object) -> None:
        await asyncio.sleep(0.2)
        raise OperationalError("slow, and then away")

    monkeypatch.setattr(mirror.Mirror, "query", query)


def test_a_call_that_ends_while_a_ticket_is_kept_for_it_gets_words(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with in_talk(house()) as (manager, session):
            slowly(monkeypatch)
            session.handle(ev.MediaClosed(clean=False))
            asked = reported(manager, LEG)
            await asyncio.sleep(0.05)
            manager.reception.caller_leg("u-1", "completed", {}, ended=True)
            flow = await asked
            assert flow is not None and not connects(flow)
            assert session.end_reason is ev.EndReason.CALLER_HUNG_UP

    asyncio.run(story())


def test_a_break_that_two_have_noticed_is_made_up_for_once(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The carrier asks about the leg while the dead line is given to the carrier."""

    async def story() -> None:
        building = house()
        async with in_talk(building) as (manager, former):
            slowly(monkeypatch)
            former.handle(ev.MediaClosed(clean=False))
            asked = reported(manager, LEG)
            await asyncio.sleep(0.05)
            await manager.reception.connect_again(former)
            flow = await asked
            assert flow is not None and building.suppliers.transferred == []
            assert await comes_back(manager, flow) is lost_session(former, manager)

    asyncio.run(story())


def test_a_call_that_ends_while_its_dead_line_is_replaced_is_led_nowhere(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        building = house()
        async with in_talk(building) as (manager, session):
            slowly(monkeypatch)
            session.handle(ev.MediaClosed(clean=False))
            asked = asyncio.create_task(manager.reception.connect_again(session))
            await asyncio.sleep(0.05)
            session.handle(ev.EndRequested(ev.EndReason.REPLACED, hang_up=False))
            await asked
            assert building.suppliers.transferred == []

    asyncio.run(story())


def test_who_is_spoken_to_for_long_before_he_is_connected_is_awaited_as_long(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with in_talk(house()) as (manager, session):

            async def place(*_: object) -> int:
                return 3000

            monkeypatch.setattr(directory.Directory, "place", place)
            session.take_frame(bytes(640))
            flow = await reported(manager, LEG)
            session.handle(ev.MediaClosed(clean=False))
            await asyncio.sleep(5)
            assert not session.over
            assert flow is not None
            await comes_back(manager, flow)

    asyncio.run(story())
