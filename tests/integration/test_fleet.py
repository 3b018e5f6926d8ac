"""Several server processes on one database, with Redis and without."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.fakes.server import RunningServer
from tests.fakes.sockets import Refused, WebSocket, connect
from tests.fakes.stage import Stage
from tests.fakes.waiting import eventually
from tests.integration.support import (
    Rows,
    Shared,
    Wire,
    apologises,
    ask_answer,
    connects,
    flow,
    hang_up,
    media_uri,
    new_uuid,
    postgres_database,
    shared_stage,
    tell,
    tell_of_media,
)

pytestmark = pytest.mark.services

FRAME = b"\0" * 640
BEATS = {"HEARTBEAT_SECONDS": "0.5", "LOST_SECONDS": "3"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Two servers, `a` and `b`, on one PostgreSQL; the stand-ins' webhooks go where a test says."""

    shared: Shared
    b: RunningServer
    redis_url: str

    @property
    def s(self) -> Stage:
        return self.shared.stage

    @property
    def a(self) -> RunningServer:
        return self.s.server

    @property
    def rows(self) -> Rows:
        return Rows.of(self.a)

    def beside(self, name: str, **env: str) -> RunningServer:
        """One more server, to be entered."""
        s = self.s
        return RunningServer(
            s.openai,
            s.speechmatics,
            s.vonage,
            redis_url=self.redis_url,
            beside=self.a,
            env={**BEATS, "NODE_NAME": name, **env},
        )


#: For what has nothing to do with the channel layer.
either_layer = pytest.mark.parametrize("fleet", ["in memory"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["with Redis", "in memory"])
def fleet(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Fleet]:
    redis_url = request.getfixturevalue("redis_url") if request.param == "with Redis" else ""
    with ExitStack() as stack:
        url = stack.enter_context(postgres_database(postgres_url))
        env = {**BEATS, "NODE_NAME": "node-a", "DATABASE_URL": url}
        shared = stack.enter_context(shared_stage(redis_url=redis_url, env=env))
        first = Fleet(shared, shared.stage.server, redis_url)
        second = stack.enter_context(first.beside("node-b"))
        yield Fleet(shared, second, redis_url)


async def let_in(s: Stage, uri: str) -> WebSocket | int:
    """A socket that carries audio, or the status of its refusal."""
    try:
        socket = await connect(uri, s.vonage.credentials.authorization())
    except Refused as refused:
        return refused.status
    first = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000"}
    await socket.send(json.dumps(first))
    await socket.send(FRAME)
    while not isinstance(await asyncio.wait_for(socket.receive(), 5), bytes):
        pass
    return socket


def at(uri: str, server: RunningServer) -> str:
    """The same ticket at another process's address."""
    return f"ws://127.0.0.1:{server.port}/media/{uri.rpartition('/')[2]}"


def own(server: RunningServer) -> list[str]:
    return list(server.health("/api/health?node=self")["sessions"]["uuids"])


# ---------------------------------------------------------------------- seen and asked from outside


def test_sessions_and_health_tell_of_the_whole_fleet(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        async with s.call(server=a) as one, s.call(server=b) as two:
            await asyncio.gather(one.wait_for_voice(), two.wait_for_voice())
            listed, table = await asyncio.gather(
                a.amanage("sessions", "--json"), b.amanage("sessions")
            )
            told = {row["uuid"]: row["node"] for row in json.loads(listed.stdout)}
            assert told == {one.uuid: "node-a", two.uuid: "node-b"}
            assert one.uuid in table.stdout and "node-b" in table.stdout
            assert "447700900123" not in table.stdout
            for server in (a, b):
                sessions = server.health()["sessions"]
                assert set(sessions["uuids"]) == {one.uuid, two.uuid}
                assert sessions["active_count"] == 2
            assert own(a) == [one.uuid] and own(b) == [two.uuid]
        await fleet.rows.ended(one.uuid)
        await fleet.rows.ended(two.uuid)
        assert a.health()["sessions"]["uuids"] == []
        assert s.violations() == []

    fleet.shared.run(scenario())


def test_a_hang_up_reaches_the_process_that_has_the_call(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        for owner, asked in ((a, b), (b, a)):
            async with s.call(server=owner) as phone:
                await phone.wait_for_voice()
                done = await asked.amanage("hangup", phone.uuid)
                assert done.returncode == 0, done.stderr
                await phone.wait_ended(timeout_s=5)
                assert phone.ended_by == "platform"
            row = await fleet.rows.ended(phone.uuid)
            assert row["end_reason"] == "operator"
            # The caller's leg was hung up at Vonage, not only our socket.
            path = f"/v1/calls/{phone.uuid}"
            assert any(each.path == path and each.method == "PUT" for each in s.vonage.rest)
        # Again, of a call that nobody knows, and of one that has not opened its socket yet.
        waiting = new_uuid()
        connects(await ask_answer(s, waiting, server=a))
        again, unknown, early = await asyncio.gather(
            a.amanage("hangup", phone.uuid),
            a.amanage("hangup", "nobody-knows-me"),
            b.amanage("hangup", waiting),
        )
        assert again.returncode == 0 and "ended" in again.stdout
        assert unknown.returncode == 1 and "nobody-knows-me" in unknown.stderr
        assert early.returncode == 0, early.stderr
        await fleet.rows.ended(waiting)
        assert waiting not in own(a)
        assert s.violations() == []

    fleet.shared.run(scenario())


def test_an_end_reported_to_the_other_process_ends_the_call(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        async with s.call(server=a) as phone:
            await phone.wait_for_voice()
            began_s = time.monotonic()
            for _ in range(3):
                reply = await tell(
                    s, phone.uuid, "completed", server=b, price="0.125", duration="7"
                )
                assert reply.status == 204
            await eventually("the socket's end", lambda: not phone.media.open, 4)
            assert time.monotonic() - began_s < 3
            row = await fleet.rows.ended(phone.uuid)
            assert row["end_reason"] == "caller_hung_up"
            assert float(row["price"]) == 0.125 and row["carrier_duration_s"] == 7
        assert phone.uuid not in own(a)
        assert fleet.rows.events(phone.uuid).count("carrier completed") == 1
        # Before the socket has opened.
        waiting = new_uuid()
        connects(await ask_answer(s, waiting, server=a))
        await tell(s, waiting, "completed", server=b)
        await fleet.rows.ended(waiting)
        await eventually("the slot", lambda: waiting not in own(a))
        assert s.violations() == []

    fleet.shared.run(scenario())


# ---------------------------------------------------------------------- answers here and there


@either_layer
def test_a_retry_at_the_other_process_gets_the_identical_flow(fleet: Fleet) -> None:
    s, a, b, call_uuid = fleet.s, fleet.a, fleet.b, new_uuid()

    async def scenario() -> None:
        first = connects(await ask_answer(s, call_uuid, server=a))
        assert f":{a.port}/" in media_uri(first)
        for method in ("GET", "POST"):
            again = connects(await ask_answer(s, call_uuid, method, server=b))
            # The socket of the first, whoever is asked; the events may go to either.
            assert media_uri(again) == media_uri(first)
            assert {**again[0], "eventUrl": ""} == {**first[0], "eventUrl": ""}
        assert own(a) == [call_uuid] and own(b) == []
        assert fleet.rows.call(call_uuid)["node"] == "node-a"
        await hang_up(s, call_uuid)
        await fleet.rows.ended(call_uuid)
        # After the end an apology, here and there.
        apologises(await ask_answer(s, call_uuid, server=a))
        apologises(await ask_answer(s, call_uuid, server=b))

    fleet.shared.run(scenario())


@either_layer
def test_many_answers_at_once_at_both_processes_make_one_call(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        for _ in range(5):
            call_uuid = new_uuid()
            replies = await asyncio.gather(
                *(ask_answer(s, call_uuid, server=(a, b)[n % 2]) for n in range(12))
            )
            assert len({media_uri(connects(reply)) for reply in replies}) == 1
            owners = [server for server in (a, b) if call_uuid in own(server)]
            assert len(owners) == 1
            assert f":{owners[0].port}/" in media_uri(connects(replies[0]))
            assert fleet.rows.call(call_uuid)["ended_at"] is None
            await tell(s, call_uuid, "completed", server=owners[0])
            await fleet.rows.ended(call_uuid)

    fleet.shared.run(scenario())


@either_layer
def test_a_full_or_draining_process_still_knows_the_calls_of_the_others(fleet: Fleet) -> None:
    """A retry for a call that has its slot elsewhere needs none here."""
    s, a = fleet.s, fleet.a

    async def scenario() -> None:
        async with fleet.beside("node-c", MAX_CONCURRENT_CALLS="1") as c:
            busy, call_uuid = new_uuid(), new_uuid()
            connects(await ask_answer(s, busy, server=c))
            first = connects(await ask_answer(s, call_uuid, server=a))
            again = flow(await ask_answer(s, call_uuid, server=c))
            await tell(s, busy, "completed", server=c)
            await tell(s, call_uuid, "completed", server=a)
            await fleet.rows.ended(call_uuid)
            assert again[0]["action"] == "connect", again
            assert media_uri(again) == media_uri(first)

    fleet.shared.run(scenario())


# ---------------------------------------------------------------------- sockets here and there


def test_a_socket_that_comes_to_the_other_process_is_served_there(fleet: Fleet) -> None:
    s, a, b, call_uuid = fleet.s, fleet.a, fleet.b, new_uuid()

    async def scenario() -> None:
        uri = media_uri(connects(await ask_answer(s, call_uuid, server=a)))
        began_s = time.monotonic()
        socket = await let_in(s, at(uri, b))
        assert isinstance(socket, WebSocket), socket
        assert time.monotonic() - began_s < 4  # a voice is heard
        assert call_uuid in own(b)
        await eventually("the first to let go", lambda: call_uuid not in own(a), every_s=0.1)
        assert fleet.rows.call(call_uuid)["node"] == "node-b"
        assert fleet.rows.call(call_uuid)["ended_at"] is None
        assert not socket.closed.is_set()
        # Spent, wherever it is shown.
        for server in (a, b):
            assert await let_in(s, at(uri, server)) == 403
        assert not socket.closed.is_set()
        # A retry of the answer leads to the process that has the call now.
        for server in (a, b):
            renewed = media_uri(connects(await ask_answer(s, call_uuid, server=server)))
            assert f":{b.port}/" in renewed and renewed.rpartition("/") != uri.rpartition("/")
        await tell(s, call_uuid, "completed", server=a)
        row = await fleet.rows.ended(call_uuid)
        assert row["end_reason"] == "caller_hung_up"
        await socket.close()
        assert call_uuid not in own(b)

    fleet.shared.run(scenario())


@either_layer
def test_a_ticket_that_was_spent_at_one_process_is_refused_at_once_by_the_other(
    fleet: Fleet,
) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        for first, second in ((a, b), (b, a)):
            # Where it was given, then elsewhere; and the other way round.
            for spent_at, shown_at in ((first, second), (second, first)):
                call_uuid = new_uuid()
                uri = media_uri(connects(await ask_answer(s, call_uuid, server=first)))
                socket = await let_in(s, at(uri, spent_at))
                assert isinstance(socket, WebSocket), socket
                again = await let_in(s, at(uri, shown_at))
                if isinstance(again, WebSocket):
                    await again.close()
                await socket.close()
                await tell(s, call_uuid, "completed", server=first)
                where = "where it was given" if spent_at is first else "elsewhere"
                assert again == 403, f"spent {where} and let in again by the other"

    fleet.shared.run(scenario())


@either_layer
def test_of_sockets_that_come_to_both_processes_at_once_one_is_let_in(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        for _ in range(3):
            call_uuid = new_uuid()
            uri = media_uri(connects(await ask_answer(s, call_uuid, server=a)))
            answers = await asyncio.gather(*(let_in(s, at(uri, (a, b)[n % 2])) for n in range(6)))
            sockets = [answer for answer in answers if isinstance(answer, WebSocket)]
            for socket in sockets:
                await socket.close()
            assert len(sockets) == 1, answers
            await fleet.rows.ended(call_uuid)

    fleet.shared.run(scenario())


@either_layer
def test_renewals_through_either_process_are_let_in(fleet: Fleet) -> None:
    s, a, b, call_uuid = fleet.s, fleet.a, fleet.b, new_uuid()

    async def scenario() -> None:
        answers: list[WebSocket | int] = []
        for server in (a, b, a, b, b, a):
            uri = media_uri(connects(await ask_answer(s, call_uuid, server=server)))
            assert f":{a.port}/" in uri
            answers.append(await let_in(s, uri))
            await asyncio.sleep(0.6)  # the rows follow
        sockets = [answer for answer in answers if isinstance(answer, WebSocket)]
        await tell(s, call_uuid, "completed", server=b)
        await fleet.rows.ended(call_uuid)
        for socket in sockets:
            await socket.close(timeout_s=1)
        assert len(sockets) == len(answers), f"refused: {answers}"

    fleet.shared.run(scenario())


@either_layer
def test_a_media_leg_that_fails_is_answered_by_either_process(fleet: Fleet) -> None:
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        call_uuid = new_uuid()
        ncco = connects(await ask_answer(s, call_uuid, server=a))
        first = apologises(await tell_of_media(s, ncco, "failed", server=b))
        assert apologises(await tell_of_media(s, ncco, "failed", server=a)) == first
        await fleet.rows.ended(call_uuid)
        assert apologises(await tell_of_media(s, ncco, "failed", server=b)) == first
        await eventually("the slot", lambda: call_uuid not in own(a))

    fleet.shared.run(scenario())


def test_a_broken_line_is_taken_up_again_by_whichever_process_is_asked(fleet: Fleet) -> None:
    """Vonage's question comes through the balancer, to a process that does not have the call."""
    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        async with s.call(server=a) as phone:
            await phone.wait_for_voice()
            conn = await s.connection_of(phone)
            asked_s = time.monotonic()
            await conn.caller_said("My name is Ann.")
            await phone.wait_for_voice(since_s=asked_s)
            # The flow's own event address is the fleet's; here it leads to the other process.
            phone.nccos[0][0]["eventUrl"][0] = f"{b.url}/webhooks/vonage/event"
            phone.cut_media()
            assert await phone.wait_for_talk() == "One moment, please."
            await eventually("another socket", lambda: len(phone.media_legs) == 2)
            await phone.wait_connected()
            await phone.wait_for_voice(8.0)
            assert f":{b.port}/" in phone.media.uri
            told = s.openai.connections[-1].told
            assert ("user", "My name is Ann.") in told
            await eventually("the first to let go", lambda: phone.uuid not in own(a), every_s=0.1)
            assert own(b) == [phone.uuid]
            row = fleet.rows.call(phone.uuid)
            assert (row["node"], row["ended_at"]) == ("node-b", None)
        row = await fleet.rows.ended(phone.uuid)
        assert (row["node"], row["end_reason"]) == ("node-b", "caller_hung_up")
        assert own(b) == [] and s.violations() == []

    fleet.shared.run(scenario())


# ---------------------------------------------------------------------- one of them dies


def test_the_calls_of_a_process_that_was_killed_are_closed_by_the_others(fleet: Fleet) -> None:
    s, a = fleet.s, fleet.a

    async def scenario() -> None:
        async with fleet.beside("node-d") as d:
            call_uuid = new_uuid()
            connects(await ask_answer(s, call_uuid, server=d))
            async with s.call(server=d) as phone, s.call(server=a) as other:
                await asyncio.gather(phone.wait_for_voice(), other.wait_for_voice())
                await eventually(
                    "its row", lambda: fleet.rows.call(phone.uuid)["media_opened_at"] is not None
                )
                d.kill()
                killed_s = time.monotonic()
                # A retry, while nobody knows yet, and once it is known.
                early = flow(await ask_answer(s, call_uuid, server=a))
                assert early[0]["action"] in ("connect", "talk")
                for lost in (phone.uuid, call_uuid):
                    row = await fleet.rows.ended(lost, timeout_s=10)
                    assert row["end_reason"] == "lost"
                assert time.monotonic() - killed_s < 3 + 2 * 0.5 + 2.5
                assert phone.uuid not in a.health()["sessions"]["uuids"]
                assert other.media.open
                logs = [*a.log, *fleet.b.log]
                assert any(phone.uuid in line.text and "lost" in line.text for line in logs)
                uuids = a.health()["sessions"]["uuids"]
                assert other.uuid in uuids and call_uuid not in uuids
                # What Vonage says later still gets a reply, and the row keeps its price.
                reply = await tell_of_media(s, phone.nccos[0], "disconnected", server=a)
                apologises(reply)
                await tell(s, phone.uuid, "completed", server=a, price="0.5", duration="3")
                await eventually(
                    "the price", lambda: fleet.rows.call(phone.uuid)["price"] is not None
                )
                assert fleet.rows.call(phone.uuid)["end_reason"] == "lost"
            row = await fleet.rows.ended(other.uuid)
            assert row["end_reason"] == "caller_hung_up"

    fleet.shared.run(scenario())


@either_layer
def test_a_process_that_only_slept_does_not_lose_its_call(fleet: Fleet) -> None:
    """Stopped for shorter than LOST_SECONDS, as a noisy machine does."""
    import signal

    s, b = fleet.s, fleet.b

    async def scenario() -> None:
        async with s.call(server=b) as phone:
            await phone.wait_for_voice()
            b.process.signal(signal.SIGSTOP)
            await asyncio.sleep(1.2)
            b.process.signal(signal.SIGCONT)
            await asyncio.sleep(1.5)
            assert phone.media.open
            assert fleet.rows.call(phone.uuid)["ended_at"] is None
        assert (await fleet.rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"

    fleet.shared.run(scenario())


@either_layer
def test_the_caller_of_a_process_that_hangs_is_led_to_words_by_another(fleet: Fleet) -> None:
    """Its sockets stay open, so Vonage notices nothing: the one that closed its row does."""
    import signal

    s, a, b = fleet.s, fleet.a, fleet.b

    async def scenario() -> None:
        async with fleet.beside("node-e") as hung:
            async with s.call(server=hung) as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: fleet.rows.call(phone.uuid)["media_opened_at"])
                hung.process.signal(signal.SIGSTOP)
                try:
                    await phone.wait_for_talk(timeout_s=30)
                finally:
                    hung.process.signal(signal.SIGCONT)
                assert fleet.rows.call(phone.uuid)["end_reason"] == "lost"
                told = [
                    server.health("/api/health?node=self")["reconciliation"]["ghosts"]
                    for server in (a, b)
                ]
                assert sum(each["row_of_lost_process"] for each in told) >= 1
                assert sum(each["leg_without_session"] for each in told) == 1
                await phone.wait_ended(timeout_s=20)
            await eventually("it lets go", lambda: phone.uuid not in own(hung), 10, every_s=0.1)
            # Awake again, it ends what it knows better.
            await fleet.rows.ended(phone.uuid, timeout_s=10)
            assert s.violations() == []

    fleet.shared.run(scenario(), timeout_s=100)


@either_layer
def test_a_call_whose_process_has_only_lost_its_database_is_left_alone(
    fleet: Fleet, postgres_url: str
) -> None:
    """The others must take it for lost; but it answers for itself, and its call is talking."""
    s, a, b = fleet.s, fleet.a, fleet.b
    url = a.env["DATABASE_URL"]

    async def scenario(wire: Wire) -> None:
        async with fleet.beside("node-f", DATABASE_URL=wire.through(url)) as cut:
            async with s.call(server=cut) as phone:
                await phone.wait_for_voice()
                await eventually("its row", lambda: fleet.rows.call(phone.uuid)["media_opened_at"])
                wire.cut()
                assert (await fleet.rows.ended(phone.uuid, 15))["end_reason"] == "lost"

                def answered() -> bool:
                    text = "its process node-f has it after all"
                    return any(text in line.text for each in (a, b) for line in each.log)

                await eventually("the others to ask it", answered, 25, every_s=0.1)
                assert phone.media.open and phone.talked == []
                wire.mend()
                await eventually(
                    "a live row", lambda: fleet.rows.call(phone.uuid)["ended_at"] is None, 15
                )
                await cut.wait_for_log("a ghost (row_closed_too_early)")
                conn = await s.connection_of(phone)
                await conn.caller_said("Still there?")
                await phone.wait_for_voice(since_s=time.monotonic())
            # A process that is slow to come back may be taken for lost once more, and knows better.
            await eventually(
                "the end it had",
                lambda: fleet.rows.call(phone.uuid)["end_reason"] == "caller_hung_up",
                15,
            )
            told = [each for each in fleet.rows.events(phone.uuid) if "lost" in each]
            assert told[:2] == ["lost node node-f", "not_lost node node-f has it"]

    with Wire.to(url, 5432) as wire:
        fleet.shared.run(scenario(wire), timeout_s=100)


@either_layer
def test_a_row_that_a_stopped_process_had_locked_holds_up_nobody(fleet: Fleet) -> None:
    """It stops in the middle of a transaction, and the database keeps its lock for it."""
    import psycopg

    rows, url = fleet.rows, fleet.a.env["DATABASE_URL"]

    def make(call_uuid: str, heard: str) -> None:
        rows.ask(
            "INSERT INTO sessions_app_callrecord (uuid, conversation_uuid, region_url, caller, "
            "called, agent_name, voice, model, node, state, ringing_at, heartbeat_at, end_reason, "
            "ticket_issued_s, ticket_generation, ticket_claimed, connect_delay_ms, hold_round, "
            "usage, summary, summary_state, "
            "summary_attempts, summary_error) VALUES (?, '', '', '', '', '', '', '', 'gone', 30, "
            f"{heard}, {heard}, '', 0, 0, 0, 0, 0, '{{}}', '{{}}', 'none', 0, '')",
            call_uuid,
        )

    def is_silent(call_uuid: str) -> bool:
        query = "SELECT heartbeat_at < now() - interval '3.2 s' AS silent FROM "
        return bool(
            rows.ask(f"{query} sessions_app_callrecord WHERE uuid = ?", call_uuid)[0]["silent"]
        )

    async def scenario() -> None:
        locked, free = new_uuid(), new_uuid()
        make(locked, "now()")
        with psycopg.connect(url, connect_timeout=5) as stopped:
            query = "SELECT 1 FROM sessions_app_callrecord WHERE uuid = %s FOR UPDATE"
            stopped.execute(query, [locked])
            await eventually("nobody to be heard", lambda: is_silent(locked), 10, every_s=0.1)
            # Older, so that it comes after the other one in any list.
            make(free, "now() - interval '1 hour'")
            assert (await rows.ended(free, timeout_s=10))["end_reason"] == "lost"
            for server in (fleet.a, fleet.b):
                assert server.health()["checks"]["database"]["ok"]
            assert rows.call(locked)["ended_at"] is None
            stopped.rollback()
        assert (await rows.ended(locked, timeout_s=10))["end_reason"] == "lost"

    fleet.shared.run(scenario())


def test_a_second_server_without_redis_is_told(fleet: Fleet) -> None:
    if fleet.redis_url:
        assert not [
            line.text for server in (fleet.a, fleet.b) for line in server.log
            if "REDIS_URL" in line.text
        ]  # fmt: skip
        return

    async def scenario() -> None:
        line = await fleet.a.wait_for_log("REDIS_URL")
        assert "WARNING" in line.text
        told = [line for line in fleet.a.log if "REDIS_URL" in line.text]
        assert len(told) == 1
        checked = await fleet.a.amanage("check", "--database", "default")
        assert "REDIS_URL" in checked.stdout + checked.stderr

    fleet.shared.run(scenario())
