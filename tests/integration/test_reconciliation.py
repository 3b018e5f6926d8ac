"""Calls whose callers went without anybody being told, and callers whose process was killed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator

import pytest

from tests.fakes.server import RunningServer
from tests.fakes.sockets import WebSocket, connect
from tests.fakes.stage import Stage, stage
from tests.fakes.vonage import RestMode
from tests.fakes.waiting import eventually
from tests.integration.support import (
    Rows,
    Shared,
    ask_answer,
    connects,
    media_uri,
    new_uuid,
    shared_stage,
)

BEATS = {"HEARTBEAT_SECONDS": "0.5", "LOST_SECONDS": "3"}
FRAME = b"\0" * 640


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage(env=BEATS) as running:
        yield running


def ghosts(server: RunningServer) -> dict[str, int]:
    told = server.health("/api/health?node=self")["reconciliation"]["ghosts"]
    return {name: count for name, count in told.items() if count}


async def silent_socket(s: Stage, call_uuid: str) -> WebSocket:
    """A phone that opens its socket, says nothing, and of which the carrier knows nothing."""
    uri = media_uri(connects(await ask_answer(s, call_uuid)))
    socket = await connect(uri, s.vonage.credentials.authorization())
    first = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000"}
    await socket.send(json.dumps(first))
    await socket.send(FRAME)
    return socket


def test_a_caller_who_went_unheard_and_untold_leaves_no_ghost(shared: Shared) -> None:
    """Neither a webhook nor the socket says that he has gone; the carrier does when it is asked."""
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        never, frozen = new_uuid(), new_uuid()
        connects(await ask_answer(s, never))
        socket = await silent_socket(s, frozen)
        before = ghosts(s.server).get("session_without_leg", 0)
        for call_uuid in (never, frozen):
            row = await rows.ended(call_uuid, timeout_s=25)
            assert row["end_reason"] == "caller_hung_up"
            assert any("a ghost" in line for line in s.server.lines_of(call_uuid))
        assert ghosts(s.server)["session_without_leg"] == before + 2
        await socket.close()
        await eventually("nobody is left", lambda: s.server.active_count() == 0)
        assert s.openai.open_sockets == 0
        assert s.violations() == []

    shared.run(scenario())


def test_while_the_carrier_cannot_be_asked_nobody_is_ended(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        s.vonage.mode = RestMode.RATE_LIMITED
        try:
            async with s.call() as phone:
                await phone.wait_for_voice()
                phone.media.freeze()
                await s.server.wait_for_log("the carrier cannot be asked", timeout_s=20)
                told = (await s.server.ahealth())["reconciliation"]["carrier"]
                assert told["ok"] is False and "429" in told["error"]
                assert rows.call(phone.uuid)["ended_at"] is None
                gets = [each for each in s.vonage.rest if each.method == "GET"]
                assert len([each for each in gets if each.path.endswith(phone.uuid)]) <= 2
                s.vonage.mode = RestMode.GOOD
        finally:
            s.vonage.mode = RestMode.GOOD
        assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"

    shared.run(scenario())


def test_a_call_that_others_thought_lost_is_open_again_and_can_be_hung_up(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            await eventually("its row", lambda: rows.call(phone.uuid)["media_opened_at"])
            rows.ask(
                "UPDATE sessions_app_callrecord SET state = 90, end_reason = 'lost', "
                "ended_at = CURRENT_TIMESTAMP WHERE uuid = ?",
                phone.uuid,
            )
            await eventually("a live row", lambda: rows.call(phone.uuid)["ended_at"] is None)
            assert rows.call(phone.uuid)["state"] == 30
            assert phone.uuid in (await s.server.ahealth())["sessions"]["uuids"]
            assert ghosts(s.server)["row_closed_too_early"] == 1
            done = await s.server.amanage("hangup", phone.uuid)
            assert done.returncode == 0, done.stderr
            await phone.wait_ended(timeout_s=5)
        assert (await rows.ended(phone.uuid))["end_reason"] == "operator"
        assert s.violations() == []

    shared.run(scenario())


def test_a_process_that_was_stopped_for_longer_than_idle_takes_its_calls_up_again() -> None:
    """It wakes up, and by its clock nobody has been heard for long; but the sockets still live."""

    async def scenario() -> None:
        async with stage(env={"CALL_IDLE_SECONDS": "5"}) as s:
            rows = Rows.of(s.server)
            async with s.call() as phone, s.call() as dead:
                await asyncio.gather(phone.wait_for_voice(), dead.wait_for_voice())
                s.server.process.signal(signal.SIGSTOP)
                dead.media.freeze()
                # Time itself is what is tried here.
                await asyncio.sleep(7)
                s.server.process.signal(signal.SIGCONT)
                # One of which nothing is heard any more is ended as ever.
                row = await rows.ended(dead.uuid, timeout_s=15)
                assert row["end_reason"] in ("media_silent", "media_lost", "caller_hung_up")
                assert phone.media.open
                assert rows.call(phone.uuid)["ended_at"] is None
                conn = await s.connection_of(phone)
                heard_s = asyncio.get_running_loop().time()
                await conn.caller_said("Are you still there?")
                await phone.wait_for_voice(since_s=heard_s)
                watch = (await s.server.ahealth())["event_loop"]
                assert watch["pauses"] >= 1 and watch["worst_ms"] < 5000
            assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"

    asyncio.run(scenario())


def test_the_caller_of_a_killed_process_is_led_to_words_when_vonage_asks_the_next_one() -> None:
    """By then a new process is there, which never knew the call."""

    async def scenario() -> None:
        async with stage(env={"LOST_SECONDS": "90"}) as s:
            rows = Rows.of(s.server)
            async with s.call(retry_pause_s=10) as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: rows.call(phone.uuid)["media_opened_at"])
                s.server.kill()
                await asyncio.to_thread(s.server.restart)
                await phone.wait_for_talk(timeout_s=60)
                noted = "carrier media_leg_failed"
                await eventually("the note", lambda: noted in rows.events(phone.uuid))
                await phone.wait_ended()
            # Whose caller was led to words is not looked for any more.
            assert [each for each in s.vonage.rest if each.method == "PUT"] == []

    asyncio.run(scenario())


def test_the_caller_of_a_killed_process_is_looked_for_by_the_next_one() -> None:
    """Vonage does not ask (again) in time what to do; the process that closes the row does."""

    async def scenario() -> None:
        async with stage(env={**BEATS, "NODE_NAME": "the-only-one"}) as s:
            rows = Rows.of(s.server)
            async with s.call(retry_pause_s=30) as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: rows.call(phone.uuid)["media_opened_at"])
                s.server.kill()
                await asyncio.to_thread(s.server.restart)
                await phone.wait_for_talk(timeout_s=60)
                assert rows.call(phone.uuid)["end_reason"] == "lost"
                counted = {"row_without_session": 1, "leg_without_session": 1}
                await eventually("both counted", lambda: ghosts(s.server) == counted)
                noted = "leg_without_session led to an apology by the-only-one"
                await eventually("the note", lambda: noted in rows.events(phone.uuid))

    asyncio.run(scenario())
