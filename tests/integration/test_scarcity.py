"""When something of the machine runs out: descriptors, the disk, the database for half a call."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sessions_app.process import FDS_PER_CALL, RESERVED_FDS
from tests.fakes import product
from tests.fakes.stage import Stage, stage
from tests.fakes.vonage import PhoneCall
from tests.fakes.waiting import eventually
from tests.integration.conversation import PROMISE_S, quiet
from tests.integration.support import (
    Rows,
    Wire,
    apologises,
    ask_answer,
    connects,
    hang_up,
    new_uuid,
    postgres_database,
)


def health(s: Stage) -> dict[str, object]:
    return s.server.health("/api/health")


def texts_of(rows: Rows, call_uuid: str) -> list[str]:
    found = rows.ask(
        "SELECT t.text FROM sessions_app_transcriptturn t "
        "JOIN sessions_app_callrecord c ON c.id = t.call_id WHERE c.uuid = ? ORDER BY t.from_ms",
        call_uuid,
    )
    return [turn["text"] for turn in found]


async def talks(s: Stage, phone: PhoneCall, words: str) -> None:
    """The caller says something and hears the answer to it: the call is well."""
    conn = await s.connection_of(phone)
    await quiet(phone)
    asked_s = time.monotonic()
    await conn.caller_said(words)
    silent_s = await phone.wait_for_voice(since_s=asked_s) - asked_s
    assert silent_s < PROMISE_S, f"{silent_s:.2f} s of silence"


# ---------------------------------------------------------------------- descriptors


@contextmanager
def fds_limited_to(s: Stage, limit: int) -> Iterator[None]:
    """The running server may have no more descriptors than these."""
    before = resource.prlimit(s.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(s.server.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(s.server.pid, resource.RLIMIT_NOFILE, before)


def idle_until_refused(s: Stage, stack: ExitStack) -> bool:
    """Connections that say nothing, as many as the server takes; whether it let go of the next."""
    for _ in range(64):
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", s.server.port), 5))
        idle.settimeout(0.5)
        try:
            if idle.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionResetError:
            return True
    return False


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")
def test_callers_are_turned_away_in_words_before_the_descriptors_run_out() -> None:
    async def scenario() -> None:
        async with stage() as s:
            rows = Rows.of(s.server)
            async with s.call() as phone:
                await phone.wait_for_voice()
                told = (await s.server.ahealth())["process"]
                assert abs(told["fds"] - s.server.fds()) <= 3
                assert told["fds_limit"] > 256, "the soft limit is raised at the start"

                with fds_limited_to(s, s.server.fds() + RESERVED_FDS):
                    few = "few descriptors left"
                    await eventually("the new count", lambda: few in health(s)["reasons"])  # type: ignore[operator]
                    assert health(s)["status"] == "degraded"
                    refused = new_uuid()
                    apologises(await ask_answer(s, refused))
                    assert (await rows.ended(refused))["end_reason"] == "refused"
                    assert f"refused {few.removesuffix(' left')} are left" in rows.events(refused)
                    await talks(s, phone, "Am I still there?")

                # A burst of answers within one count takes no more than there are.
                room = 3
                limit = s.server.fds() + RESERVED_FDS + room * FDS_PER_CALL
                with fds_limited_to(s, limit):
                    await asyncio.sleep(1.1)  # so that it is counted anew
                    burst = [new_uuid() for _ in range(12)]
                    replies = [(await ask_answer(s, each)).ncco() for each in burst]
                    taken = [ncco for ncco in replies if ncco and ncco[0]["action"] == "connect"]
                    assert 1 <= len(taken) <= room
                    assert s.server.fds() < limit
                    await hang_up(s, *burst)
                await eventually("nobody else", lambda: s.server.active_count() == 1)
            assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"
            assert s.violations() == []

    asyncio.run(scenario())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")
def test_without_a_single_descriptor_left_the_calls_go_on() -> None:
    async def scenario() -> None:
        async with stage() as s:
            rows = Rows.of(s.server)
            async with s.call() as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: rows.call(phone.uuid)["media_opened_at"])
                with fds_limited_to(s, s.server.fds() + 8), ExitStack() as idle:
                    # Let go at once, so that Vonage asks the fallback address.
                    assert await asyncio.to_thread(idle_until_refused, s, idle)
                    # Who has a connection already is told how things are.
                    report = await s.server.ahealth()
                    assert "few descriptors left" in report["reasons"]
                    assert report["process"]["fds_left"] < 8
                    await talks(s, phone, "Can you hear me?")
                    # Longer than a heartbeat, which needs the database.
                    await asyncio.sleep(6)
                    await talks(s, phone, "And now?")
                # What waited is served again, and new callers are.
                await eventually("health", lambda: health(s)["status"] == "ok", 15, every_s=0.2)
                async with s.call() as another:
                    await another.wait_for_voice()
            for each in (phone, another):
                assert (await rows.ended(each.uuid))["end_reason"] == "caller_hung_up"
            heard = texts_of(rows, phone.uuid)
            assert "Can you hear me?" in heard and "And now?" in heard
            assert s.violations() == []

    asyncio.run(scenario())


# ---------------------------------------------------------------------- the disk


@contextmanager
def small_disk() -> Iterator[Path]:
    """A filesystem of a few megabytes of its own."""
    with tempfile.TemporaryDirectory(prefix="callcenter-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "callcenter-test", name]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small filesystem cannot be mounted here (root is needed)")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def fill(path: Path) -> None:
    """Until not a byte more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_with_a_full_disk_calls_go_on_and_rows_catch_up() -> None:
    async def scenario(disk: Path) -> None:
        product.copy_of_template(disk)
        env = {
            "DATABASE_URL": product.sqlite_url(disk / "db.sqlite3"),
            "MEDIA_ROOT": str(disk / "media"),
            "HEARTBEAT_SECONDS": "0.5",
        }
        async with stage(env=env) as s:
            rows = Rows.of(s.server)
            async with s.call() as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: rows.call(phone.uuid)["media_opened_at"])
                fill(disk / "filler")
                await talks(s, phone, "What is on your disk?")
                unwritten = "rows cannot be written"
                await eventually(
                    "health to say so", lambda: unwritten in health(s)["reasons"], 10  # type: ignore[operator]
                )  # fmt: skip
                assert health(s)["status"] == "degraded"
                async with s.call() as new:
                    await new.wait_for_voice()
                    await talks(s, new, "Is this the new call?")
                connects(await ask_answer(s, waiting := new_uuid()))
                await hang_up(s, waiting)
                (disk / "filler").unlink()
                await s.server.wait_for_log("rows are being written again", timeout_s=15)
                row = await rows.ended(new.uuid, timeout_s=15)
                assert row["end_reason"] == "caller_hung_up"
                assert "Is this the new call?" in texts_of(rows, new.uuid)
                assert "What is on your disk?" in texts_of(rows, phone.uuid)
                assert rows.call(phone.uuid)["ended_at"] is None
            assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"
            await rows.ended(waiting, timeout_s=10)
            await eventually("a healthy report", lambda: health(s)["status"] == "ok", 10)
            assert s.violations() == []

    with small_disk() as disk:
        asyncio.run(scenario(disk))


# ---------------------------------------------------------------------- the database


@pytest.mark.services
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_second_half_without_the_database_is_whole_once_it_is_back(
    postgres_url: str, how: str
) -> None:
    """It comes back after the end: the turns, the reason and the summary's job are there."""

    async def scenario() -> None:
        with postgres_database(postgres_url) as url, Wire.to(url, 5432) as wire:
            env = {"DATABASE_URL": wire.through(url), "HEARTBEAT_SECONDS": "0.5"}
            async with stage(env=env) as s:
                rows = Rows(url)
                async with s.call() as phone:
                    await phone.wait_for_voice()
                    await talks(s, phone, "The first half.")
                    await eventually(
                        "its words", lambda: "The first half." in texts_of(rows, phone.uuid), 10
                    )
                    if how == "hangs":
                        wire.hang()
                    else:
                        wire.cut()
                    for words in ("The second half.", "Goodbye then."):
                        await talks(s, phone, words)
                await eventually("it is over", lambda: s.server.active_count() == 0, 10)
                assert rows.call(phone.uuid)["ended_at"] is None
                wire.mend()
                row = await rows.ended(phone.uuid, timeout_s=30)
                assert row["end_reason"] == "caller_hung_up"
                assert row["summary_state"] == "pending"
                jobs = rows.ask("SELECT args_kwargs FROM django_tasks_database_dbtaskresult")
                assert len(jobs) == 1
                caller = [text for text in texts_of(rows, phone.uuid) if "half" in text]
                assert caller == ["The first half.", "The second half."]
                assert "Goodbye then." in texts_of(rows, phone.uuid)
                carrier = [each for each in rows.events(phone.uuid) if each.startswith("carrier")]
                assert "carrier completed" in carrier
                assert s.violations() == []

    asyncio.run(scenario())
