from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sessions_app.sandbox.conf import Keys
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.leg_control import LegControl
from sessions_app.sandbox.server import Sandbox, serve
from tests.unit.sandbox.application_token import PRIVATE, PUBLIC, token

Order = tuple[str, str, dict[str, Any]]


def with_a_leg(
    sandbox: Sandbox,
    scenario: Callable[[httpx.AsyncClient, asyncio.Queue[Order]], Awaitable[None]],
) -> None:
    """Runs ``scenario`` with leg ``leg-1`` registered, a REST client and the leg's orders."""

    async def run() -> None:
        orders: asyncio.Queue[Order] = asyncio.Queue()

        async def listen(control: LegControl) -> None:
            async for order in control.orders():
                orders.put_nowait(order)

        async with (
            httpx.AsyncClient(base_url=sandbox.vonage_api_url, trust_env=False) as client,
            LegControl(sandbox.control_url) as control,
            asyncio.TaskGroup() as group,
        ):
            listener = group.create_task(listen(control))
            await control.register("leg-1", "CON-1", "447700900123", "442079460000", "inbound")
            client.headers["Authorization"] = f"Bearer {token()}"
            async with asyncio.timeout(20):
                await scenario(client, orders)
            listener.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    "body",
    [
        *({"action": action} for action in ("hangup", "mute", "unmute", "earmuff", "unearmuff")),
        {"action": "transfer", "destination": {"type": "ncco", "ncco": [{"action": "talk"}]}},
        {"action": "transfer", "destination": {"type": "ncco", "url": ["https://x/ncco"]}},
    ],
    ids=lambda body: body["action"],
)
def test_an_order_is_taken_with_204_and_reaches_the_caller(
    sandbox: Sandbox, body: dict[str, Any]
) -> None:
    async def scenario(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        reply = await client.put("/v1/calls/leg-1", json=body)
        assert (reply.status_code, reply.content) == (204, b"")
        assert await orders.get() == ("leg-1", body["action"], body)

    with_a_leg(sandbox, scenario)


@pytest.mark.parametrize(
    ("sub", "body", "message"),
    [
        ("talk", {"text": "Hello", "loop": 1}, "Talk started"),
        ("stream", {"stream_url": ["https://x/hold.mp3"]}, "Stream started"),
        ("dtmf", {"digits": "1p2#"}, "DTMF sent"),
    ],
)
def test_sounds_are_played_into_a_leg(
    sandbox: Sandbox, sub: str, body: dict[str, Any], message: str
) -> None:
    async def scenario(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        reply = await client.put(f"/v1/calls/leg-1/{sub}", json=body)
        assert reply.json() == {"message": message, "uuid": "leg-1"}
        assert await orders.get() == ("leg-1", sub, body)
        if sub != "dtmf":
            reply = await client.delete(f"/v1/calls/leg-1/{sub}")
            assert reply.json()["message"].endswith("stopped")

    with_a_leg(sandbox, scenario)


def test_a_leg_that_was_hung_up_is_shown_completed_and_takes_no_more_orders(
    sandbox: Sandbox,
) -> None:
    async def scenario(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        shown = (await client.get("/v1/calls/leg-1")).json()
        assert (shown["status"], shown["conversation_uuid"]) == ("answered", "CON-1")
        assert "price" not in shown
        await client.put("/v1/calls/leg-1", json={"action": "hangup"})
        shown = (await client.get("/v1/calls/leg-1")).json()
        assert shown["status"] == "completed"
        assert isinstance(shown["price"], str)
        assert isinstance(shown["duration"], str)
        again = await client.put("/v1/calls/leg-1", json={"action": "hangup"})
        assert again.status_code == 404

    with_a_leg(sandbox, scenario)


def test_the_legs_of_a_caller_that_died_are_completed(sandbox: Sandbox) -> None:
    async def nothing(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        return

    with_a_leg(sandbox, nothing)
    headers = {"Authorization": f"Bearer {token()}"}
    url = f"{sandbox.vonage_api_url}/v1/calls/leg-1"
    deadline = time.monotonic() + 10
    while httpx.get(url, headers=headers, trust_env=False).json()["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/calls/nobody", {"action": "hangup"}, 404),
        ("/v1/calls/leg-1/video", {}, 404),
        ("/v1/calls/leg-1", {"action": "explode"}, 400),
        ("/v1/calls/leg-1", {"action": "hangup", "reason": "x"}, 400),
        ("/v1/calls/leg-1", ["hangup"], 400),
        ("/v1/calls/leg-1", {"action": "transfer", "destination": {"type": "ncco"}}, 400),
        ("/v1/calls/leg-1", {"action": "transfer", "destination": [{"type": "ncco"}]}, 400),
        ("/v1/calls/leg-1/talk", {"text": "a" * 1501}, 400),
        ("/v1/calls/leg-1/dtmf", {"digits": "12a"}, 400),
        ("/v1/calls/leg-1/stream", {"stream_url": "https://x/y"}, 400),
    ],
)
def test_wrong_orders_are_refused_and_reach_nobody(
    sandbox: Sandbox, path: str, body: Any, status: int
) -> None:
    async def scenario(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        reply = await client.put(path, json=body)
        assert reply.status_code == status
        assert {"type", "title"} <= reply.json().keys()
        assert orders.empty()

    with_a_leg(sandbox, scenario)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        jwt.encode({"application_id": "app-1"}, "s" * 32, "HS256"),
        token(exp=int(time.time()) - 3600, iat=int(time.time()) - 7200),
        jwt.encode({"iat": int(time.time()), "jti": "1"}, PRIVATE, "RS256"),
    ],
    ids=["none", "nonsense", "HS256", "expired", "no application"],
)
def test_without_a_good_application_token_nothing_is_done(sandbox: Sandbox, bad: str) -> None:
    headers = {"Authorization": f"Bearer {bad}"} if bad else {}
    url = f"{sandbox.vonage_api_url}/v1/calls/leg-1"
    reply = httpx.put(url, json={"action": "hangup"}, headers=headers, trust_env=False)
    assert reply.status_code == 401


def test_the_signature_and_application_are_checked_where_they_are_known() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = {"application_id": "app-1", "iat": int(time.time()), "jti": "1"}
    forged = jwt.encode(claims, other, "RS256")
    keys = Keys(vonage_application_id="app-1", vonage_public_key=PUBLIC)
    with serve(keys=keys) as strict:
        for bearer, status in ((forged, 401), (token(application_id="app-2"), 401), (token(), 404)):
            headers = {"Authorization": f"Bearer {bearer}"}
            url = f"{strict.vonage_api_url}/v1/calls/nobody"
            assert httpx.get(url, headers=headers, trust_env=False).status_code == status


def test_rest_faults(sandbox: Sandbox) -> None:
    async def scenario(client: httpx.AsyncClient, orders: asyncio.Queue[Order]) -> None:
        async def hang_up(fault: Fault) -> int:
            headers = {"X-Sandbox-Fault": fault.value}
            body = {"action": "hangup"}
            return (await client.put("/v1/calls/leg-1", json=body, headers=headers)).status_code

        assert await hang_up(Fault.REST_REFUSED) == 500
        assert orders.empty()
        began = time.monotonic()
        assert await hang_up(Fault.REST_SLOW) == 204
        assert time.monotonic() - began >= 0.3

    with_a_leg(sandbox, scenario)


def test_a_page_in_a_browser_cannot_register_legs(sandbox: Sandbox) -> None:
    async def run() -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(sandbox.control_url, origin="http://evil.example", proxy=None):
                pass
        assert caught.value.response.status_code == 403

    asyncio.run(run())


def test_nonsense_on_the_control_socket_is_answered_and_registers_nothing(sandbox: Sandbox) -> None:
    async def run() -> None:
        async with connect(sandbox.control_url, proxy=None) as socket:
            for nonsense in ("x", "[]", "{}", '{"register": {"uuid": "u"}}'):
                await socket.send(nonsense)
                assert "error" in json.loads(await socket.recv())

    asyncio.run(run())
