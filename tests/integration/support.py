"""What the black-box tests of webhooks, sockets and rows share.

A server takes seconds to start, so tests share one per module: `with shared_stage() as shared:` in
a module's fixture, then `shared.run(scenario())` in each test.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import hashlib
import hmac
import json
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import jwt

from tests.fakes import product
from tests.fakes.ncco import complaints, is_websocket
from tests.fakes.server import RunningServer, ServerKind
from tests.fakes.signing import Credentials
from tests.fakes.stage import BackgroundLoop, Stage, stage
from tests.fakes.waiting import eventually
from tests.fakes.webhooks import Delivery, Method

T = TypeVar("T")
Ncco = Sequence[Mapping[str, Any]]
Row = dict[str, Any]
CALLER = "447700900123"
CALLED = "442079460000"

# ---------------------------------------------------------------------- one server for a module


@dataclass(frozen=True, slots=True)
class Shared:
    """A stage whose stand-ins live on a loop in a thread; tests come and go."""

    stage: Stage
    loop: BackgroundLoop

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        return self.loop.run(work, timeout_s)


@contextmanager
def shared_stage(
    *,
    kind: ServerKind = ServerKind.CALLCENTER,
    database: str = "",
    redis_url: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Shared]:
    """As `stage`, for tests that are functions of their own."""
    with BackgroundLoop() as loop:
        where = stage(kind=kind, database=database, redis_url=redis_url, env=env)
        yield Shared(loop.enter(where), loop)


# ---------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Rows:
    """The product's tables, read the way an operator's SQL client would."""

    database_url: str

    @classmethod
    def of(cls, server: RunningServer) -> Rows:
        return cls(server.env["DATABASE_URL"])

    def ask(self, sql: str, *values: object) -> list[Row]:
        """`sql` has `?` for values on either database."""
        if self.database_url.startswith("sqlite:"):
            path = self.database_url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as lite:
                lite.row_factory = sqlite3.Row
                return [dict(row) for row in lite.execute(sql, values)]
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(self.database_url, autocommit=True, connect_timeout=5) as server:
            cursor = server.cursor(row_factory=dict_row)
            cursor.execute(sql.replace("?", "%s").encode(), values)
            return cursor.fetchall() if cursor.description else []

    def call(self, call_uuid: str) -> Row:
        """The one row of a call; there must be one and only one."""
        found = self.ask("SELECT * FROM sessions_app_callrecord WHERE uuid = ?", call_uuid)
        assert len(found) == 1, f"{len(found)} rows of {call_uuid}"
        return found[0]

    def knows(self, call_uuid: str) -> bool:
        return bool(self.ask("SELECT 1 FROM sessions_app_callrecord WHERE uuid = ?", call_uuid))

    def count(self) -> int:
        return int(self.ask("SELECT count(*) AS n FROM sessions_app_callrecord")[0]["n"])

    def events(self, call_uuid: str) -> list[str]:
        """`kind detail` of every event of a call, oldest first."""
        found = self.ask(
            "SELECT e.kind, e.detail FROM sessions_app_callevent e "
            "JOIN sessions_app_callrecord c ON c.id = e.call_id "
            "WHERE c.uuid = ? ORDER BY e.at, e.id",
            call_uuid,
        )
        return [f"{row['kind']} {row['detail']}".strip() for row in found]

    async def ended(self, call_uuid: str, timeout_s: float = 5.0) -> Row:
        """The row once it has ended; rows of callers who were turned away come a little later."""

        def probe() -> Row | None:
            if not self.knows(call_uuid):
                return None
            row = self.call(call_uuid)
            return row if row["ended_at"] is not None else None

        found = await eventually(f"the end of {call_uuid}", probe, timeout_s, every_s=0.05)
        assert found is not None
        return found


# ---------------------------------------------------------------------- webhooks


def new_uuid() -> str:
    """A call's uuid as it looks on the PSTN."""
    return uuid.uuid4().hex


def call_payload(call_uuid: str, **changes: object) -> dict[str, Any]:
    """The parameters of an answer webhook; a field that is None here is left out."""
    payload: dict[str, Any] = {
        "from": CALLER,
        "to": CALLED,
        "uuid": call_uuid,
        "conversation_uuid": f"CON-{call_uuid}",
        "endpoint_type": "phone",
        **changes,
    }
    return {name: value for name, value in payload.items() if value is not None}


async def ask_answer(
    s: Stage,
    call_uuid: str,
    method: Method = "GET",
    *,
    server: RunningServer | None = None,
    **changes: object,
) -> Delivery:
    """The answer webhook of a call, outside any simulated phone."""
    url = f"{(server or s.server).url}/webhooks/vonage/answer"
    return await s.vonage.forge(url, call_payload(call_uuid, **changes), method)


async def tell(
    s: Stage,
    call_uuid: str,
    status: str,
    method: Method = "POST",
    *,
    server: RunningServer | None = None,
    **extra: object,
) -> Delivery:
    """An event about the caller's leg."""
    payload = {
        **call_payload(call_uuid),
        "status": status,
        "direction": "inbound",
        "timestamp": "2026-11-22T12:00:00.123Z",
        **extra,
    }
    return await s.vonage.forge(
        f"{(server or s.server).url}/webhooks/vonage/event", payload, method
    )


async def tell_of_media(
    s: Stage,
    ncco: Ncco,
    status: str,
    *,
    leg: str = "",
    server: RunningServer | None = None,
    **extra: object,
) -> Delivery:
    """An event about the media leg that this NCCO led to."""
    endpoint = ncco[-1]["endpoint"][0]
    payload = {
        "from": CALLED,
        "to": endpoint["uri"],
        "uuid": leg or str(uuid.uuid4()),
        "conversation_uuid": f"CON-{endpoint['headers'].get('call_uuid', '')}",
        "status": status,
        "headers": endpoint["headers"],
        "direction": "outbound",
        "timestamp": "2026-11-22T12:00:00.123Z",
        **extra,
    }
    url = f"{(server or s.server).url}/webhooks/vonage/event"
    return await s.vonage.forge(url, payload, "POST")


async def hang_up(s: Stage, *call_uuids: str) -> None:
    """Ends calls that never opened a socket, so that they hold no slot for the next test."""
    for call_uuid in call_uuids:
        await tell(s, call_uuid, "completed")


async def model_is_up(s: Stage, timeout_s: float = 30.0) -> None:
    """Five calls in a row that could not reach the model mean that it is down, and until a look has
    found it back no call is taken in: for tests that come after such calls.
    """

    def probe() -> bool:
        said = ("is down, callers are led elsewhere", "is back, calls are taken again")
        told = [line.text for line in s.server.log if any(text in line.text for text in said)]
        return not told or said[1] in told[-1]

    await eventually("the model's service to be back", probe, timeout_s)


def connects(delivery: Delivery) -> Ncco:
    """The NCCO of a reply that leads to the media socket, read strictly."""
    ncco = flow(delivery)
    assert len(ncco) == 1 and is_websocket(ncco[0]), ncco
    return ncco


def apologises(delivery: Delivery) -> Ncco:
    """The NCCO of a reply that says something and opens no socket, read strictly."""
    ncco = flow(delivery)
    assert ncco and ncco[0]["action"] == "talk" and not any(map(is_websocket, ncco)), ncco
    return ncco


def flow(delivery: Delivery) -> Ncco:
    """Any NCCO, read strictly."""
    assert delivery.status == 200, (delivery.status, delivery.body[:200])
    assert delivery.content_type.startswith("application/json"), delivery.content_type
    ncco = delivery.ncco()
    assert ncco is not None, "an empty reply"
    assert complaints(ncco) == []
    return ncco


def media_uri(ncco: Ncco) -> str:
    return str(ncco[-1]["endpoint"][0]["uri"])


# ---------------------------------------------------------------------- signatures by hand


def claims(credentials: Credentials, body: bytes = b"", **changes: object) -> dict[str, Any]:
    """Vonage's claims for a request with this body; a claim that is None here is left out."""
    good = {
        "iss": "Vonage",
        "iat": int(time.time()),
        "jti": str(uuid.uuid4()),
        "api_key": credentials.api_key,
        "application_id": credentials.application_id,
        "payload_hash": hashlib.sha256(body).hexdigest() if body else None,
        **changes,
    }
    return {name: value for name, value in good.items() if value is not None}


def token(
    credentials: Credentials,
    body: bytes = b"",
    *,
    secret: str = "",
    algorithm: str = "HS256",
    **changes: object,
) -> str:
    """A token as Vonage makes it, or wrong in one way."""
    key = "" if algorithm == "none" else secret or credentials.signature_secret
    return jwt.encode(claims(credentials, body, **changes), key, algorithm=algorithm)


def token_signed_with(
    credentials: Credentials, body: bytes, key: bytes = b"", **changes: object
) -> str:
    """HS256 with any key and any claims, also those that libraries refuse to sign."""
    key = key or credentials.signature_secret.encode()

    def part(value: object) -> bytes:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=")

    held = claims(credentials, body, **changes)
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(held)
    return (signed + b"." + part(hmac.digest(key, signed, "sha256"))).decode()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def send(
    s: Stage,
    path: str,
    content: bytes = b"",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> httpx.Response:
    """Any request at all; signed well for its body unless `headers` say otherwise."""
    signed = bearer(token(s.vonage.credentials, content)) if headers is None else dict(headers)
    if content:
        signed = {"Content-Type": content_type, **signed}
    async with httpx.AsyncClient(
        base_url=s.server.url, trust_env=False, timeout=10, verify=False
    ) as client:
        # As bytes, since a header may hold letters beyond ASCII.
        wire = {name.encode(): value.encode("latin-1") for name, value in signed.items()}
        return await client.request(method, path, content=content, headers=wire)


# ---------------------------------------------------------------------- a wire that can be cut


class Wire:
    """A TCP proxy: `cut()` breaks every connection and refuses new ones, `hang()` swallows what is
    sent, `mend()` lets everything through again.

    It has a loop of its own, so that a test may block while what it waits for goes through here.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = BackgroundLoop()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._joins: set[asyncio.Task[None]] = set()
        self._passing = threading.Event()
        self._passing.set()

    @classmethod
    def to(cls, url: str, default_port: int) -> Wire:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or default_port)

    def through(self, url: str) -> str:
        """The URL with this wire in the place of its host and port."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self._port}").geturl()

    def __enter__(self) -> Self:
        self._loop.__enter__()
        self._loop.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.cut()
        finally:
            self._loop.__exit__(None, None, None)

    def cut(self) -> None:
        self._loop.run(self._cut())

    def hang(self) -> None:
        self._passing.clear()

    def mend(self) -> None:
        self._passing.set()
        if self._server is None:
            self._loop.run(self._listen())

    async def _cut(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        joins = list(self._joins)
        for join in joins:
            join.cancel()
        await asyncio.gather(*joins, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        join = asyncio.create_task(self._join(reader, writer))
        self._joins.add(join)
        join.add_done_callback(self._joins.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
        except* (OSError, _OneSideLeft):
            pass
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            while not self._passing.is_set():  # noqa: ASYNC110  # set by another thread
                await asyncio.sleep(0.01)
            writer.write(data)
            await writer.drain()
        raise _OneSideLeft


class _OneSideLeft(Exception):
    """Ends the other direction too."""


# ---------------------------------------------------------------------- services


def service(name: str, what: str) -> str:
    """The address of a service that tests may use; skips, or fails where CI must have it."""
    import pytest

    url = os.environ.get(name, "")
    if not url:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(f"{name} is not set, and REQUIRE_SERVICES=1 wants {what}")
        pytest.skip(f"{name} is not set: no {what} to test with")
    return url


# ---------------------------------------------------------------------- PostgreSQL


@lru_cache(maxsize=1)
def _postgres_template(server_url: str) -> str:
    """The name of a migrated database, made once per test process and dropped when it ends."""
    life = ExitStack()
    atexit.register(life.close)
    url = life.enter_context(product.postgres_database(server_url))
    values = {"DATABASE_URL": url, "AI_PROVIDER": "sandbox"}
    directory = Path(life.enter_context(tempfile.TemporaryDirectory("", "callcenter-")))
    env = product.clean_environment(directory, values)
    product.must_manage(env, "migrate", "--no-input", "-v", "0")
    return urlsplit(url).path.lstrip("/")


@contextmanager
def postgres_database(server_url: str) -> Iterator[str]:
    """The URL of a migrated database of one's own, dropped on leaving; cheaper than migrating."""
    import psycopg

    template, name = _postgres_template(server_url), f"callcenter_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
