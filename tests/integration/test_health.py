"""What monitors and balancers are told, also when something or everything is away."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import httpx
import pytest

from tests.fakes.stage import Stage, stage
from tests.fakes.waiting import eventually
from tests.integration.support import (
    Rows,
    Shared,
    Wire,
    apologises,
    ask_answer,
    connects,
    hang_up,
    media_uri,
    new_uuid,
    postgres_database,
    shared_stage,
    tell,
    tell_of_media,
)

TOKEN = "a-token-for-monitors"


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


@pytest.fixture(scope="module")
def public() -> Iterator[Shared]:
    """As it stands on the internet: https by its own account, and a token for details."""
    env = {
        "PUBLIC_URL": "https://calls.example.com",
        "MEDIA_URL": "https://node-7.example.com",
        "HEALTH_TOKEN": TOKEN,
        "VONAGE_MEDIA_RATE": "8000",
    }
    with shared_stage(env=env) as running:
        yield running


def get(s: Stage, path: str = "/api/health", method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(base_url=s.server.url, trust_env=False, timeout=10) as client:
        return client.request(method, path, headers=headers)


async def timed(s: Stage, path: str = "/api/health") -> tuple[httpx.Response, float]:
    """The report and how long it took."""
    began_s = time.monotonic()
    reply = await asyncio.to_thread(get, s, path)
    return reply, time.monotonic() - began_s


# ---------------------------------------------------------------------- its shape


def test_the_report_has_the_shape_that_was_promised(shared: Shared) -> None:
    reply = get(shared.stage)
    report = reply.json()

    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("application/json")
    assert "no-store" in reply.headers["cache-control"]
    assert report["status"] == "ok", report
    assert isinstance(report["version"], str) and report["version"]
    assert isinstance(report["node"], str) and report["node"]
    sessions = report["sessions"]
    assert sessions["active_count"] == len(sessions["uuids"]) == 0
    assert sessions["capacity"] == 100
    assert set(report["checks"]) >= {"database", "channel_layer", "provider", "worker"}
    for name, check in report["checks"].items():
        assert check["ok"] is True, name
    assert 0 <= report["checks"]["database"]["ms"] < 1000


@pytest.mark.parametrize("path", ["/api/health", "/api/health?node=self"])
def test_a_call_is_told_from_its_answer_to_its_end(shared: Shared, path: str) -> None:
    s, call_uuid = shared.stage, new_uuid()

    async def scenario() -> None:
        connects(await ask_answer(s, call_uuid))
        sessions = get(s, path).json()["sessions"]
        assert sessions["uuids"] == [call_uuid] and sessions["active_count"] == 1
        async with s.call() as phone:
            await phone.wait_for_voice()
            sessions = get(s, path).json()["sessions"]
            assert set(sessions["uuids"]) == {call_uuid, phone.uuid}
            assert sessions["active_count"] == 2
        await hang_up(s, call_uuid)
        await eventually("nobody", lambda: not get(s, path).json()["sessions"]["uuids"])
        assert get(s, path).json()["sessions"]["active_count"] == 0

    shared.run(scenario())


@pytest.mark.parametrize("path", ["/api/health", "/api/health/live", "/api/health?node=self"])
def test_head_says_the_same_without_a_body(shared: Shared, path: str) -> None:
    reply = get(shared.stage, path, "HEAD")

    assert reply.status_code == 200
    assert reply.content == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_health_is_only_read(shared: Shared, method: str) -> None:
    for path in ("/api/health", "/api/health/live"):
        assert get(shared.stage, path, method).status_code == 405


def test_live_is_200_and_tells_nothing(shared: Shared) -> None:
    reply = get(shared.stage, "/api/health/live")

    assert reply.status_code == 200
    assert "uuids" not in reply.text and "node" not in reply.text


def test_strange_queries_and_hosts_do_no_harm(shared: Shared) -> None:
    for path in (
        "/api/health?node=%00",
        "/api/health?node=self&node=other",
        "/api/health?" + "x" * 3000,
    ):
        assert get(shared.stage, path).status_code == 200
    # Balancers ask by address or by whatever name they like.
    assert get(shared.stage, Host="10.1.2.3").status_code == 200


# ---------------------------------------------------------------------- who may know


def test_with_a_token_set_strangers_get_no_uuids_and_no_details(public: Shared) -> None:
    s, call_uuid = public.stage, new_uuid()

    async def scenario() -> None:
        connects(await ask_answer(s, call_uuid))
        for path in ("/api/health", "/api/health?node=self"):
            for authorization in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN):
                given = {"Authorization": authorization} if authorization else {}
                reply = get(s, path, **given)
                assert reply.status_code == 200
                assert call_uuid not in reply.text and "uuids" not in reply.text
                report = reply.json()
                assert report["status"] == "ok"
                assert report["sessions"]["active_count"] == 1
                assert all(set(check) == {"ok"} for check in report["checks"].values())
            report = get(s, path, Authorization=f"Bearer {TOKEN}").json()
            assert report["sessions"]["uuids"] == [call_uuid]
            assert "ms" in report["checks"]["database"]
        assert get(s, "/api/health/live").status_code == 200
        await hang_up(s, call_uuid)

    public.run(scenario())


def test_addresses_come_from_the_settings_and_never_from_the_host_header(public: Shared) -> None:
    s, call_uuid = public.stage, new_uuid()

    async def scenario() -> None:
        for method in ("GET", "POST"):
            url = f"{s.server.url}/webhooks/vonage/answer"
            payload = {"uuid": call_uuid, "from": "447700900123", "to": "442079460000"}
            headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
            reply = await s.vonage.forge(url, payload, method, headers=headers)
            ncco = connects(reply)
            assert media_uri(ncco).startswith("wss://node-7.example.com/media/")
            assert ncco[0]["eventUrl"] == ["https://calls.example.com/webhooks/vonage/event"]
            assert ncco[0]["endpoint"][0]["content-type"] == "audio/l16;rate=8000"
        await hang_up(s, call_uuid)

    public.run(scenario())


def test_webhooks_and_health_are_never_redirected_to_https(public: Shared) -> None:
    s = public.stage
    for path in ("/api/health", "/api/health/live"):
        assert get(s, path).status_code == 200
    for path in ("answer", "event", "fallback"):
        assert get(s, f"/webhooks/vonage/{path}").status_code == 401
    # Everything else is.
    assert get(s, "/admin/").headers.get("location", "").startswith("https://")


# ---------------------------------------------------------------------- what is away


def test_a_provider_that_is_away_is_told_until_it_is_back(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        await s.openai.stop()
        try:
            async with s.call() as phone:
                # In which voice he hears that nobody can be had, others test.
                await phone.wait_ended(30)
            reply, _ = await timed(s)
            assert reply.status_code == 200
            assert reply.json()["status"] == "degraded"
            assert "provider away" in reply.json()["reasons"]
            assert reply.json()["checks"]["provider"]["ok"] is False
            assert s.openai.api_key not in reply.text
        finally:
            await s.openai.start()
        async with s.call() as phone:
            await phone.wait_for_voice(timeout_s=10)
            assert (await timed(s))[0].json()["status"] == "ok"

    shared.run(scenario())


def test_a_drain_is_told_with_503_and_new_callers_hear_words() -> None:
    async def scenario() -> None:
        env = {"HEARTBEAT_SECONDS": "0.3", "LOST_SECONDS": "3", "NODE_NAME": "node-a"}
        async with stage(env=env) as s:
            async with s.call() as phone:
                await phone.wait_for_voice()
                done = await s.server.amanage("drain", "node-a")
                assert done.returncode == 0, done.stderr
                await eventually(
                    "the drain", lambda: get(s).json()["status"] == "draining", every_s=0.1
                )
                reply = get(s)
                assert reply.status_code == 503
                assert get(s, "/api/health?node=self").status_code == 503
                assert get(s, "/api/health/live").status_code == 200
                assert reply.json()["sessions"]["uuids"] == [phone.uuid]
                apologises(await ask_answer(s, new_uuid()))
                # The live call is served as before, its retries too.
                connects(await phone.ask_again())
                heard_s = time.monotonic()
                conn = await s.connection_of(phone)
                await conn.caller_said("Are you still there?")
                await phone.wait_for_voice(since_s=heard_s)
            done = await s.server.amanage("drain", "node-a", "--wait", "--timeout", "10")
            assert done.returncode == 0, done.stderr
            done = await s.server.amanage("drain", "--all", "--undo", "--wait")
            assert done.returncode == 0, done.stderr
            await eventually("calls again", lambda: get(s).status_code == 200, every_s=0.1)
            async with s.call() as phone:
                await phone.wait_for_voice()
            unknown = await s.server.amanage("drain", "node-x")
            assert unknown.returncode != 0 and "node-x" in unknown.stderr
            assert s.violations() == []

    asyncio.run(scenario())


def test_a_database_that_is_locked_holds_up_neither_callers_nor_health(shared: Shared) -> None:
    """SQLite, while somebody else writes for long."""
    s, rows = shared.stage, Rows.of(shared.stage.server)
    path = s.server.env["DATABASE_URL"].removeprefix("sqlite:///")
    uuids = [new_uuid() for _ in range(6)]

    async def scenario() -> None:
        remembered = new_uuid()
        connects(await ask_answer(s, remembered))
        await hang_up(s, remembered)
        await rows.ended(remembered)
        with closing(sqlite3.connect(path, isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")
            async with s.call() as phone:
                await phone.wait_for_voice()
                assert (phone.answer_ms or 9999) < 2500
                replies = await asyncio.gather(*(ask_answer(s, each) for each in uuids))
                for reply in replies:
                    connects(reply)
                    assert reply.elapsed_ms < 2500
                report, took_s = await timed(s)
                assert report.status_code == 200 and took_s < 1.0
                assert (await tell(s, uuids[0], "completed", price="0.5")).status == 204
            busy.execute("ROLLBACK")
        await hang_up(s, *uuids[1:])
        for each in (phone.uuid, *uuids):
            row = await rows.ended(each, timeout_s=15)
            assert row["end_reason"] == "caller_hung_up"
            assert row["agent_name"] == "Receptionist"
        await eventually("nobody is left", lambda: s.server.active_count() == 0)
        assert s.violations() == []

    shared.run(scenario())


@asynccontextmanager
async def _stage_on_a_wire(
    postgres_url: str, **env: str
) -> AsyncIterator[tuple[Stage, Wire, Rows]]:
    """A server whose PostgreSQL can be cut off, and the rows behind its back."""
    with postgres_database(postgres_url) as url, Wire.to(url, 5432) as wire:
        values = {"DATABASE_URL": wire.through(url), "HEARTBEAT_SECONDS": "0.5"}
        async with stage(env={**values, **env}) as s:
            yield s, wire, Rows(url)


@pytest.mark.services
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_calls_go_on_while_postgresql_is_away_and_rows_catch_up(
    postgres_url: str, how: str
) -> None:
    async def scenario() -> None:
        async with _stage_on_a_wire(postgres_url) as (s, wire, rows):
            async with s.call() as before, s.call() as during:
                await asyncio.gather(before.wait_for_voice(), during.wait_for_voice())
                await eventually("its row", lambda: rows.call(during.uuid)["media_opened_at"])
                waiting = new_uuid()
                first = connects(await ask_answer(s, waiting))
                if how == "hangs":
                    wire.hang()
                else:
                    wire.cut()

                # Health.
                for path in ("/api/health", "/api/health?node=self"):
                    report, took_s = await timed(s, path)
                    assert report.status_code == 200, report.text
                    assert took_s < 1.0
                    assert report.json()["status"] == "degraded"
                    assert "database away" in report.json()["reasons"]
                    assert report.json()["checks"]["database"]["ok"] is False
                    assert during.uuid in report.json()["sessions"]["uuids"]
                assert (await timed(s, "/api/health/live"))[0].status_code == 200

                # Live calls go on, and end.
                heard_s = time.monotonic()
                conn = await s.connection_of(during)
                await conn.caller_said("Are you still there?")
                await during.wait_for_voice(since_s=heard_s)
                await before.hang_up()

                # What is known in memory is answered at once, the same as before.
                again = await ask_answer(s, waiting)
                assert connects(again) == first and again.elapsed_ms < 500
                assert (await tell(s, waiting, "completed", price="0.25")).status == 204
                for status in ("failed", "disconnected"):
                    reply = await tell_of_media(s, first, status)
                    assert reply.status == 200 and reply.elapsed_ms < 2500

                # New calls, many at once.
                news = [new_uuid() for _ in range(12)]
                replies = await asyncio.gather(*(ask_answer(s, each) for each in news))
                for reply in replies:
                    connects(reply)
                    assert reply.elapsed_ms < 2500, [each.elapsed_ms for each in replies]
                await hang_up(s, *news)
                async with s.call() as new:
                    await new.wait_for_voice()
                    assert new.answer_ms is not None and new.answer_ms < 2500
                    new_conn = await s.connection_of(new)
                    await new_conn.caller_said("Is this the new call?")
                    await new.wait_for_voice(since_s=time.monotonic())
                report, took_s = await timed(s)
                assert took_s < 1.0 and report.status_code == 200
                await asyncio.sleep(1.0)

                # Back.
                wire.mend()
                await eventually(
                    "a healthy report", lambda: get(s).json()["status"] == "ok", 20, every_s=0.2
                )
                for call_uuid in (before.uuid, new.uuid, waiting, *news):
                    row = await rows.ended(call_uuid, timeout_s=20)
                    assert row["end_reason"] == "caller_hung_up", call_uuid
                    assert row["agent_name"] == "Receptionist"
                await eventually("its price", lambda: rows.call(waiting)["price"] is not None)
                assert float(rows.call(waiting)["price"]) == 0.25
                texts = rows.ask(
                    "SELECT t.text FROM sessions_app_transcriptturn t "
                    "JOIN sessions_app_callrecord c ON c.id = t.call_id WHERE c.uuid = ?",
                    new.uuid,
                )
                assert "Is this the new call?" in [turn["text"] for turn in texts]
                assert rows.call(during.uuid)["ended_at"] is None
                assert during.media.open
            assert (await rows.ended(during.uuid))["end_reason"] == "caller_hung_up"
            assert get(s).json()["sessions"]["active_count"] == 0
            lines = [line.text for line in s.server.log]
            if how == "refuses":  # a short silence is nothing to tell
                assert sum("the database is away" in line for line in lines) == 1
                assert sum("the database is back" in line for line in lines) == 1
            assert not [line for line in lines if "postgres" in line and "@" in line]
            assert s.violations() == []

    asyncio.run(scenario())


def test_a_server_that_never_saw_its_database_still_gives_a_courteous_answer() -> None:
    async def scenario() -> None:
        env = {"DATABASE_URL": "postgres://nobody:pa55word@127.0.0.1:9/none"}
        async with stage(env=env) as s:
            report, took_s = await timed(s)
            assert report.status_code == 200 and took_s < 1.0
            assert report.json()["status"] == "degraded"
            assert "database away" in report.json()["reasons"]
            for method in ("GET", "POST"):
                reply = await ask_answer(s, new_uuid(), method)
                apologises(reply)
                assert reply.elapsed_ms < 2500
            apologises(await s.vonage.forge(f"{s.server.url}/webhooks/vonage/fallback", {}))
            async with s.call() as phone:
                await phone.wait_for_talk()
                await phone.wait_ended()
            assert (await tell(s, phone.uuid, "completed")).status == 204
            assert get(s, "/api/health?node=self").json()["sessions"]["active_count"] == 0
            everything = report.text + "".join(line.text for line in s.server.log)
            assert "pa55word" not in everything
            assert "Traceback" not in everything
            assert s.violations() == []

    asyncio.run(scenario())


@pytest.mark.services
def test_a_server_whose_database_hangs_ends_in_time_when_it_is_asked_to(postgres_url: str) -> None:
    async def scenario() -> None:
        env = {"DRAIN_SECONDS": "2"}
        async with _stage_on_a_wire(postgres_url, **env) as (s, wire, _):
            async with s.call() as phone:
                await phone.wait_for_voice()
                wire.hang()
                await asyncio.gather(*(ask_answer(s, new_uuid()) for _ in range(3)))
                began_s = time.monotonic()
                # The drain, the words in which the caller is told of its end, and the bounds on
                # what waits for the database.
                await s.server.aterminate(timeout_s=40)
                assert time.monotonic() - began_s < 32
            assert s.openai.open_sockets == 0

    asyncio.run(scenario())


@pytest.mark.services
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_without_redis_calls_go_on_and_health_says_so(redis_url: str, how: str) -> None:
    async def scenario() -> None:
        with Wire.to(redis_url, 6379) as wire:
            await on(wire)

    async def on(wire: Wire) -> None:
        async with stage(redis_url=wire.through(redis_url)) as s:
            rows = Rows.of(s.server)
            await eventually("Redis", lambda: get(s).json()["status"] == "ok", every_s=0.2)
            async with s.call() as phone:
                await phone.wait_for_voice()
                if how == "hangs":
                    wire.hang()
                else:
                    wire.cut()
                reply, took_s = await timed(s)
                assert reply.status_code == 200 and took_s < 1.0
                assert reply.json()["status"] == "degraded"
                assert "channel layer away" in reply.json()["reasons"]
                heard_s = time.monotonic()
                conn = await s.connection_of(phone)
                await conn.caller_said("Are you still there?")
                await phone.wait_for_voice(since_s=heard_s)
                async with s.call() as new:
                    await new.wait_for_voice()
            for call_uuid in (phone.uuid, new.uuid):
                assert (await rows.ended(call_uuid, 8))["end_reason"] == "caller_hung_up"
            wire.mend()
            await eventually("Redis", lambda: get(s).json()["status"] == "ok", 15, every_s=0.2)
            assert await s.server.aterminate() == 0
            assert s.violations() == []

    asyncio.run(scenario())
