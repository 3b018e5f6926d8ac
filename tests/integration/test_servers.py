"""Whatever program serves it: a whole call, a quiet log, a clean end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import pytest
from websockets.frames import Frame, Opcode

from tests.fakes.media_leg import Faults
from tests.fakes.openai_script import Refusal, Script
from tests.fakes.server import ServerKind
from tests.fakes.signing import Forgery
from tests.fakes.sockets import connect
from tests.fakes.stage import Stage, stage
from tests.fakes.vonage import RestMode
from tests.fakes.waiting import NeverHappenedError, eventually
from tests.integration.support import (
    CALLER,
    Rows,
    apologises,
    ask_answer,
    bearer,
    call_payload,
    connects,
    flow,
    media_uri,
    new_uuid,
    send,
    tell,
    token,
)

APP = "callcenter.asgi:application"
HEALTH_TOKEN = "the-monitors-own-token-0815"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A server as somebody might start it who has not read our handbook."""

    arguments: tuple[str, ...]

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-m", *(part.format(port=port) for part in self.arguments)]


def line(*arguments: str) -> ServerKind:
    """Stands where a `ServerKind` does: only its command is asked for."""
    return cast(ServerKind, CommandLine(arguments))


_OURS = ("callcenter.server", "-b", "127.0.0.1", "-p", "{port}")
_DAPHNE = ("daphne", "-b", "127.0.0.1", "-p", "{port}")
_UVICORN = ("uvicorn", "--host", "127.0.0.1", "--port", "{port}")
COMMAND_LINES = {
    "callcenter.server": line(*_OURS),
    "callcenter.server -v 2": line(*_OURS, "-v", "2"),
    "callcenter.dense": line("callcenter.dense", "-b", "127.0.0.1", "-p", "{port}"),
    "daphne": line(*_DAPHNE, APP),
    "daphne -v 3": line(*_DAPHNE, "-v", "3", APP),
    "uvicorn": line(*_UVICORN, APP),
    "uvicorn, everything told": line(*_UVICORN, "--log-level", "debug", APP),
}

both_of_ours = pytest.mark.parametrize("kind", [ServerKind.CALLCENTER, ServerKind.DENSE])

END_OF_A_CALL = (
    "🧹 Starting session cleanup...",
    "✓ Closed OpenAI WebSocket",
    "✓ Closed Vonage WebSocket",
    "✅ Session cleanup completed - all resources released",
    "Closing and removing session from SessionManager",
    "Session removed. Active sessions: 0",
)


async def a_rough_day(s: Stage, uris: list[str]) -> None:
    """Calls that go well, calls that go wrong, and people who knock without being asked."""
    done = await s.server.amanage("agent", "Sarah", "--voice", "speechmatics:sarah")
    assert done.returncode == 0, done.stderr
    done = await s.server.amanage("number", "442079460001", "--agent", "Sarah")
    assert done.returncode == 0, done.stderr
    async with s.call(answer_method="POST", called="442079460001") as phone:
        await phone.wait_for_voice(timeout_s=10)
        uris.append(phone.media.uri)
        assert await phone.knock() == 403
        assert await phone.knock(authorization=bearer("not.a.token")) == 403

    async with s.call(caller=None) as phone:
        await phone.wait_for_voice()
        uris.append(phone.media.uri)
        phone.cut_media()
        await phone.wait_for_talk()
    async with s.call(faults=Faults(socket_never_opens=True)) as phone:
        await phone.wait_for_talk()
        uris.append(media_uri(phone.nccos[0]))
    s.openai.next_scripts.append(Script(refuse=Refusal(401, "invalid_api_key")))
    s.vonage.mode = RestMode.BROKEN
    async with s.call() as phone:
        await phone.wait_ended(timeout_s=20)
        uris += [leg.uri for leg in phone.media_legs]
    s.vonage.mode = RestMode.GOOD

    for forgery in Forgery:
        url = f"{s.server.url}/webhooks/vonage/answer"
        reply = await s.vonage.forge(url, call_payload(new_uuid()), "POST", forgery)
        assert reply.status == 401, forgery
    for path in ("answer", "event"):
        signed = bearer(token(s.vonage.credentials))
        query = f"?from={CALLER}&uuid={'u' * 200}"
        await send(s, f"/webhooks/vonage/{path}{query}", method="GET", headers=signed)
        await send(s, f"/webhooks/vonage/{path}", b'{"from": "447700900123", ')
        await send(s, f"/nowhere/{path}?from={CALLER}", method="GET", headers=signed)
    async with httpx.AsyncClient(base_url=s.server.url, trust_env=False) as client:
        await client.get("/api/health", headers=bearer(HEALTH_TOKEN))
        await client.get("/api/health", headers={**bearer("wrong"), "Host": "evil.example"})
        await client.get(f"/admin/?token={HEALTH_TOKEN}", headers={"Host": f"{CALLER}.example"})


def leaks(s: Stage, uris: list[str]) -> dict[str, list[str]]:
    """What must never be read in any output, and the lines where it was."""
    account = s.vonage.credentials
    secret = {
        "the caller's number": CALLER,
        "the OpenAI key": s.openai.api_key,
        "the Speechmatics key": s.speechmatics.api_key,
        "the Vonage key": account.api_key,
        "the signature secret": account.signature_secret,
        "the private key": account.private_key_pem.splitlines()[3],
        "the secret key": s.server.env["SECRET_KEY"],
        "the health token": HEALTH_TOKEN,
        "a token": "eyJhbGciOi",
        # Its parts, since a colon may be written in two ways.
        **{
            f"ticket {n}, part {m}": part
            for n, uri in enumerate(uris)
            for m, part in enumerate(uri.rpartition("/")[2].split(":"))
        },
    }
    texts = [line.text for line in (*s.server.process.lines, *s.server.process.output)]
    found = {name: [text for text in texts if part in text] for name, part in secret.items()}
    return {name: lines[:2] for name, lines in found.items() if lines}


def children(pid: int) -> list[str]:
    """What still runs in the session that the server began (it leads one of its own)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(f"{entry.name}: {(entry / 'cmdline').read_text()[:100]!r}")
    return found


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_a_whole_call_and_nothing_secret_in_any_output(name: str) -> None:
    async def scenario() -> None:
        env = {"HEALTH_TOKEN": HEALTH_TOKEN}
        async with stage(kind=COMMAND_LINES[name], env=env) as s:
            async with s.call() as phone:
                await phone.wait_for_voice()
                conn = await s.connection_of(phone)
                await conn.caller_said("Hello?")
                await phone.wait_for_voice(since_s=time.monotonic())
                uris = [phone.media.uri]
            assert s.violations() == []
            await Rows.of(s.server).ended(phone.uuid)
            said = s.server.lines_of(phone.uuid)
            for text in END_OF_A_CALL:
                assert f"[{phone.uuid}] {text}" in said, (text, said)

            await a_rough_day(s, uris)
            await eventually("nothing open at the model", lambda: s.openai.open_sockets == 0)
            pid = s.server.pid
            await s.server.aterminate(timeout_s=15)
            assert leaks(s, uris) == {}
            everything = "\n".join(each.text for each in s.server.log)
            assert "non-existent session" not in everything
            assert children(pid) == []

    asyncio.run(scenario())


def test_a_log_in_json_is_json_and_just_as_discreet() -> None:
    async def scenario() -> None:
        env = {"LOG_FORMAT": "json", "HEALTH_TOKEN": HEALTH_TOKEN}
        async with stage(env=env) as s:
            uris: list[str] = []
            async with s.call() as phone:
                await phone.wait_for_voice()
                uris.append(phone.media.uri)
            await a_rough_day(s, uris)
            assert await s.server.aterminate() == 0
            entries = [json.loads(each.text) for each in s.server.process.lines]
            of_call = [entry["message"] for entry in entries if entry.get("call") == phone.uuid]
            for text in END_OF_A_CALL:
                assert any(text in message for message in of_call), text
            assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
            assert leaks(s, uris) == {}

    asyncio.run(scenario())


@both_of_ours
def test_a_frame_that_comes_in_pieces_is_read_as_one_whatever_its_pieces_look_like(
    kind: ServerKind,
) -> None:
    """The servers' short way for a phone's audio takes whole frames only: the second packet here is
    the rest of a frame twice as long, and looks like a whole one.
    """
    looks_whole = Frame(Opcode.BINARY, bytes(640)).serialize(mask=True)
    size = 640 + len(looks_whole)
    begins = struct.pack("!BBH", 0x82, 0xFE, size) + bytes(4) + bytes(640)

    async def scenario() -> None:
        async with stage(kind=kind) as s:
            uuid = new_uuid()
            # A socket that nobody else writes to: nothing may come between the pieces.
            socket = await connect(media_uri(connects(await ask_answer(s, uuid))))
            connected = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000"}
            await socket.send(json.dumps(connected))
            writer = socket._writer
            for packet in (begins, looks_whole):
                writer.write(packet)
                await writer.drain()
                await asyncio.sleep(0.05)  # that each comes alone is what could go wrong
            rows = Rows.of(s.server)
            told = f"bad_media_frame {size} bytes, wanted 640"
            await eventually("what was wrong", lambda: told in rows.events(uuid), every_s=0.1)
            # Fragments of a message are no frames of their own either.
            writer.write(Frame(Opcode.BINARY, bytes(300), fin=False).serialize(mask=True))
            writer.write(Frame(Opcode.CONT, bytes(340)).serialize(mask=True))
            await socket.close()
            await rows.ended(uuid)
            assert "media_broke" not in rows.events(uuid)
            assert [each for each in rows.events(uuid) if "bad_media" in each] == [told]

    asyncio.run(scenario())


# ---------------------------------------------------------------------- the end


@asynccontextmanager
async def _draining(drain_s: str, kind: ServerKind) -> AsyncIterator[Stage]:
    async with stage(env={"DRAIN_SECONDS": drain_s}, kind=kind) as s:
        yield s


async def _gone(s: Stage, timeout_s: float) -> int:
    """The exit code of a server that is about to end."""
    code = await eventually(
        "the server's end",
        lambda: None if s.server.process.exit_code is None else (s.server.process.exit_code, 1),
        timeout_s,
        every_s=0.05,
    )
    assert code is not None
    return code[0]


@both_of_ours
def test_a_drain_lets_the_live_call_finish_and_ends_with_0(kind: ServerKind) -> None:
    async def scenario() -> None:
        async with _draining("60", kind) as s:
            waiting = new_uuid()
            async with s.call() as phone:
                await phone.wait_for_voice()
                ncco = connects(await ask_answer(s, waiting))
                s.server.process.signal(signal.SIGTERM)
                await s.server.wait_for_log("draining")
                async with httpx.AsyncClient(base_url=s.server.url, trust_env=False) as client:
                    reply = await client.get("/api/health")
                    assert reply.status_code == 503 and reply.json()["status"] == "draining"
                    assert (await client.get("/api/health/live")).status_code == 200
                apologises(await ask_answer(s, new_uuid()))
                # The one that was answered before still gets its socket and its retries.
                assert flow(await ask_answer(s, waiting)) == ncco
                assert await phone.knock(media_uri(ncco)) == 101
                heard_s = time.monotonic()
                conn = await s.connection_of(phone)
                await conn.caller_said("Are you still there?")
                await phone.wait_for_voice(since_s=heard_s)
                await asyncio.sleep(1.0)
                assert s.server.process.exit_code is None
                pid = s.server.pid
            rows = Rows.of(s.server)
            assert await _gone(s, 10) == 0
            assert rows.call(phone.uuid)["end_reason"] == "caller_hung_up"
            assert children(pid) == []
            assert s.openai.open_sockets == 0
            assert s.openai.violations == []

    asyncio.run(scenario())


@both_of_ours
def test_an_idle_server_ends_at_once_with_0(kind: ServerKind) -> None:
    async def scenario() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            async with _draining("60", kind) as s:
                began_s = time.monotonic()
                s.server.process.signal(number)
                assert await _gone(s, 8) == 0
                assert time.monotonic() - began_s < 5
                with pytest.raises(httpx.ConnectError):
                    await s.server.ahealth()

    asyncio.run(scenario())


@both_of_ours
@pytest.mark.parametrize("how", ["a second signal", "DRAIN_SECONDS"])
def test_calls_that_outlast_the_drain_are_cut_and_the_exit_code_says_so(
    how: str, kind: ServerKind
) -> None:
    async def scenario() -> None:
        async with _draining("1" if how == "DRAIN_SECONDS" else "60", kind) as s:
            waiting = new_uuid()
            async with s.call() as phone, s.call() as other:
                await asyncio.gather(phone.wait_for_voice(), other.wait_for_voice())
                connects(await ask_answer(s, waiting))
                rows, pid = Rows.of(s.server), s.server.pid
                s.server.process.signal(signal.SIGTERM)
                await s.server.wait_for_log("draining")
                if how == "a second signal":
                    await asyncio.sleep(0.5)
                    assert phone.media.open
                    s.server.process.signal(signal.SIGTERM)
                assert await _gone(s, 12) == 3
                assert not phone.media.open and not other.media.open
                await asyncio.gather(phone.wait_ended(8), other.wait_ended(8))
            for call_uuid in (phone.uuid, other.uuid, waiting):
                row = rows.call(call_uuid)
                assert row["end_reason"] == "drained"
                assert row["ended_at"] is not None
            # The callers' legs were ended at Vonage, so nobody listens to silence.
            ended = {each.path.rpartition("/")[2] for each in s.vonage.rest if each.status == 204}
            assert {phone.uuid, other.uuid} <= ended
            assert children(pid) == []
            assert s.openai.open_sockets == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [ServerKind.DAPHNE, ServerKind.UVICORN])
def test_other_servers_end_on_a_signal_and_leave_nothing(kind: ServerKind) -> None:
    """They have no drain; what they must not do is hang, or leave a process or a socket."""

    async def scenario() -> None:
        env = {"HEARTBEAT_SECONDS": "0.5", "LOST_SECONDS": "2"}
        async with stage(kind=kind, env=env) as s:
            async with s.call() as phone:
                await phone.wait_for_voice()
                pid = s.server.pid
                await s.server.aterminate(timeout_s=15)
                assert children(pid) == []
                await eventually("the model's socket", lambda: s.openai.open_sockets == 0)
                await eventually("the phone's socket", lambda: not phone.media.open)
            # Its row is closed at the latest by the next life of the same server.
            await asyncio.to_thread(s.server.restart)
            row = await Rows.of(s.server).ended(phone.uuid, timeout_s=20)
            assert row["end_reason"] in ("shutdown", "lost", "media_lost", "caller_hung_up")

    asyncio.run(scenario())


def test_a_killed_server_that_comes_back_closes_the_rows_of_its_former_life() -> None:
    async def scenario() -> None:
        env = {"HEARTBEAT_SECONDS": "0.3", "LOST_SECONDS": "1", "NODE_NAME": "node-a"}
        async with stage(env=env) as s:
            rows, waiting = Rows.of(s.server), new_uuid()
            connects(await ask_answer(s, waiting))
            async with s.call() as phone:
                await phone.wait_for_voice()
                await eventually(
                    "its row", lambda: rows.call(phone.uuid)["media_opened_at"] is not None
                )
                s.server.kill()
                await asyncio.to_thread(s.server.restart)
                for call_uuid in (phone.uuid, waiting):
                    row = await rows.ended(call_uuid, timeout_s=10)
                    assert row["end_reason"] == "lost"
                sessions = s.server.health()["sessions"]
                assert sessions["active_count"] == 0 and sessions["uuids"] == []
                # Late words about the former life.
                assert (await tell(s, phone.uuid, "completed", price="0.1")).status == 204
                apologises(await ask_answer(s, phone.uuid))
            async with s.call() as phone:
                await phone.wait_for_voice()

    try:
        asyncio.run(scenario())
    except NeverHappenedError as error:
        error.add_note("rows of a former life stay open")
        raise
