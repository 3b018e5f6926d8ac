from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
import pytest

from tests.fakes.vonage import Credentials, FakeVonage, Forgery, PhoneCall, RestMode
from tests.fakes.waiting import eventually
from tests.unit.fakes.scenes import TALK
from tests.unit.fakes.tiny_product import TinyProduct

# ---------------------------------------------------------------- REST


async def rest(
    vonage: FakeVonage, method: str, path: str, body: object = None, token: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or rest_token(vonage.credentials)}"}
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"{vonage.url}{path}", json=body, headers=headers)


def rest_token(credentials: Credentials, **claims: Any) -> str:
    now = int(time.time())
    whole = {
        "application_id": credentials.application_id,
        "iat": now,
        "exp": now + 900,
        "jti": str(uuid.uuid4()),
        **claims,
    }
    return jwt.encode(whole, credentials.private_key_pem, algorithm="RS256")


def with_rest(scene: Callable[[FakeVonage, PhoneCall], Awaitable[None]], **call: Any) -> PhoneCall:
    async def scenario() -> PhoneCall:
        async with FakeVonage() as vonage, TinyProduct() as product:
            product.replies["disconnected"] = TALK
            async with vonage.call(product.addresses, **call) as phone:
                await phone.wait_connected()
                await scene(vonage, phone)
        return phone

    return asyncio.run(scenario())


def test_hanging_up_the_caller_by_rest_ends_everything() -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        path = f"/v1/calls/{phone.uuid}"
        assert (await rest(vonage, "GET", path)).json()["status"] == "answered"
        assert (await rest(vonage, "PUT", path, {"action": "hangup"})).status_code == 204
        await phone.wait_ended()
        assert (await rest(vonage, "GET", path)).json()["status"] == "completed"
        assert (await rest(vonage, "PUT", path, {"action": "hangup"})).status_code == 400

    phone = with_rest(scene)
    assert (phone.ended_by, phone.talked) == ("platform", [])


def test_hanging_up_the_media_leg_by_rest_is_no_mishap() -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        path = f"/v1/calls/{phone.media_uuid}"
        assert (await rest(vonage, "PUT", path, {"action": "hangup"})).status_code == 204
        await phone.wait_ended()

    phone = with_rest(scene)
    assert phone.events("disconnected") == []
    assert phone.talked == []


def test_a_transfer_replaces_the_flow_and_leaves_the_media_leg() -> None:
    ncco = [
        {"action": "talk", "text": "I connect you."},
        {"action": "connect", "endpoint": [{"type": "phone", "number": "447700900456"}]},
    ]

    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        body = {"action": "transfer", "destination": {"type": "ncco", "ncco": ncco}}
        assert (await rest(vonage, "PUT", f"/v1/calls/{phone.uuid}", body)).status_code == 204
        await eventually("the person", lambda: phone.connected_to == ["447700900456"])
        assert phone.talked == ["I connect you."]
        assert phone.media.open
        phone.person_hangs_up()
        await phone.wait_ended()

    with_rest(scene)


def test_talk_and_stream_are_heard_by_the_caller() -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        path = f"/v1/calls/{phone.uuid}"
        assert (await rest(vonage, "PUT", f"{path}/talk", {"text": "Hello"})).status_code == 200
        assert (await rest(vonage, "DELETE", f"{path}/talk")).status_code == 200
        assert phone.talked == ["Hello"]
        assert vonage.violations == []

    with_rest(scene)


@pytest.mark.parametrize(
    ("mode", "status"),
    [(RestMode.RATE_LIMITED, 429), (RestMode.BROKEN, 500), (RestMode.UNKNOWN_LEGS, 404)],
)
def test_rest_has_bad_days(mode: RestMode, status: int) -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        vonage.mode = mode
        reply = await rest(vonage, "PUT", f"/v1/calls/{phone.uuid}", {"action": "hangup"})
        assert reply.status_code == status
        assert phone.media.open
        assert vonage.violations == []

    with_rest(scene)


def test_an_unknown_leg_is_404() -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        assert (await rest(vonage, "GET", "/v1/calls/unknown")).status_code == 404

    with_rest(scene)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "hang up"}, 400),
        ({"action": "hangup", "reason": "x"}, 400),
        ({"action": "transfer"}, 400),
        ({"action": "transfer", "destination": {"type": "ncco", "ncco": [{}]}}, 400),
        (["hangup"], 400),
    ],
)
def test_a_malformed_command_is_refused_and_told(body: object, status: int) -> None:
    async def scene(vonage: FakeVonage, phone: PhoneCall) -> None:
        reply = await rest(vonage, "PUT", f"/v1/calls/{phone.uuid}", body)
        assert reply.status_code == status
        assert len(vonage.violations) == 1

    with_rest(scene)


@pytest.mark.parametrize(
    "claims",
    [
        {"application_id": "another"},
        {"exp": int(time.time()) - 600},
        {"exp": int(time.time()) + 3 * 86_400},
        {"jti": None},
        {"iat": int(time.time()) + 3600},
    ],
)
def test_a_wrong_rest_token_is_refused_and_told(claims: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with FakeVonage() as vonage:
            token = rest_token(vonage.credentials, **claims)
            reply = await rest(vonage, "GET", "/v1/calls/x", token=token)
            assert reply.status_code == 401
            assert "token" in vonage.violations[0]

    asyncio.run(scenario())


def test_a_token_signed_with_the_secret_instead_of_the_key_is_refused() -> None:
    credentials = Credentials.generate()
    claims = {"application_id": credentials.application_id}
    token = jwt.encode(claims, credentials.signature_secret, algorithm="HS256")
    assert credentials.rest_mistake(token) != ""


# ---------------------------------------------------------------- signatures


@pytest.mark.parametrize("forgery", list(Forgery))
def test_each_forgery_differs_from_the_real_thing_in_its_own_way(forgery: Forgery) -> None:
    credentials = Credentials.generate()
    body = b'{"status": "answered"}'

    assert is_genuine(credentials, credentials.authorization(body), body)
    assert not is_genuine(credentials, credentials.authorization(body, forgery), body)


def is_genuine(credentials: Credentials, headers: dict[str, str], body: bytes) -> bool:
    """The documented checks, written down a second time."""
    token = headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(
            token,
            credentials.signature_secret,
            algorithms=["HS256"],
            options={"verify_iat": False},
        )
    except jwt.PyJWTError:
        return False
    return bool(
        claims["iss"] == "Vonage"
        and claims["api_key"] == credentials.api_key
        and claims["application_id"] == credentials.application_id
        and abs(claims["iat"] - time.time()) < 300
        and claims["payload_hash"] == hashlib.sha256(body).hexdigest()
    )


def test_a_forged_webhook_can_be_sent_by_itself() -> None:
    async def scenario() -> None:
        async with FakeVonage() as vonage, TinyProduct() as product:
            sent = await vonage.forge(
                product.addresses.event, {"status": "x"}, forgery=Forgery.UNSIGNED
            )
            assert sent.status == 204
            assert "authorization" not in product.requests[0].headers

    asyncio.run(scenario())
