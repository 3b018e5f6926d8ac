"""What a rehearsed fault of the server's own side does, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import time

import pytest
from channels.layers import get_channel_layer
from django.db import OperationalError, connection

from sessions_app import rehearsal
from sessions_app.models import CallRecord
from sessions_app.publish import publish
from sessions_app.rehearsal import Rehearsal
from sessions_app.sandbox.faults import Fault

MOMENT_S = 1.0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "AWAY_S", MOMENT_S)
    monkeypatch.setattr(rehearsal, "STALL_S", MOMENT_S)


@pytest.mark.django_db
def test_the_database_refuses_for_a_while_and_is_back() -> None:
    async def scenario() -> Rehearsal:
        return Rehearsal(asyncio.get_running_loop())

    with asyncio.run(scenario()) as it:
        assert CallRecord.objects.count() == 0
        it.strike(Fault.SERVER_DATABASE_AWAY)
        with pytest.raises(OperationalError, match="as a call wanted it"):
            CallRecord.objects.count()
        time.sleep(MOMENT_S)
        assert CallRecord.objects.count() == 0
        it.strike(Fault.SERVER_DATABASE_AWAY)
    assert CallRecord.objects.count() == 0, "the rehearsal is over"
    connection.execute_wrappers.clear()


@pytest.mark.django_db
def test_the_database_hangs_for_a_while_and_then_answers() -> None:
    async def scenario() -> Rehearsal:
        return Rehearsal(asyncio.get_running_loop())

    with asyncio.run(scenario()) as it:
        it.strike(Fault.SERVER_DATABASE_HANGS)
        began_s = time.monotonic()
        assert CallRecord.objects.count() == 0
        assert time.monotonic() - began_s >= MOMENT_S - 0.05
    connection.execute_wrappers.clear()


def test_the_channel_layer_refuses_for_a_while_and_is_left_as_it_was() -> None:
    async def scenario() -> None:
        before = dict(vars(get_channel_layer()))
        with Rehearsal(asyncio.get_running_loop()) as it:
            assert await publish("u-1", {"type": "call.note"})
            it.strike(Fault.SERVER_LAYER_AWAY)
            assert not await publish("u-1", {"type": "call.note"})
            await asyncio.sleep(MOMENT_S)
            assert await publish("u-1", {"type": "call.note"})
        assert vars(get_channel_layer()).keys() == before.keys()

    asyncio.run(scenario())


def test_the_loop_stands_still() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with Rehearsal(loop) as it:
            began_s = loop.time()
            await asyncio.to_thread(it.strike, Fault.SERVER_STALLS)
            await asyncio.sleep(0)
            assert loop.time() - began_s >= MOMENT_S - 0.05

    asyncio.run(scenario())
