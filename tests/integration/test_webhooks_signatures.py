"""Nobody but Vonage is listened to, and Vonage may say everything twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.signing import Credentials
from tests.integration.support import (
    Rows,
    Shared,
    apologises,
    ask_answer,
    bearer,
    call_payload,
    connects,
    hang_up,
    new_uuid,
    send,
    shared_stage,
    tell,
    token,
    token_signed_with,
)

ANSWER = "/webhooks/vonage/answer"
EVENT = "/webhooks/vonage/event"
FALLBACK = "/webhooks/vonage/fallback"
Forge = Callable[[Credentials, bytes], dict[str, str]]


def _token(**wrong: object) -> Forge:
    return lambda account, body: bearer(token(account, body, **wrong))  # type: ignore[arg-type]


def _any_claims(**wrong: object) -> Forge:
    return lambda account, body: bearer(token_signed_with(account, body, **wrong))  # type: ignore[arg-type]


def _now(shift_s: float) -> int:
    return int(time.time() + shift_s)


FORGERIES: dict[str, Forge] = {
    "no header": lambda account, body: {},
    "an empty header": lambda account, body: {"Authorization": ""},
    "no token": lambda account, body: {"Authorization": "Bearer"},
    "another scheme": lambda account, body: {"Authorization": f"Basic {token(account, body)}"},
    "the bare token": lambda account, body: {"Authorization": token(account, body)},
    "not a token": lambda account, body: bearer("not-a-token"),
    "a token cut short": lambda account, body: bearer(token(account, body)[:-4]),
    "a token of three dots": lambda account, body: bearer("..."),
    "a huge token": lambda account, body: bearer("a" * 12_000),
    "letters beyond ASCII": lambda account, body: bearer("t\u00f6ken.t\u00f6ken.t\u00f6ken"),
    "another secret": _token(secret="another-secret-of-quite-sufficient-length"),
    "alg none": lambda account, body: bearer(token(account, body, algorithm="none")),
    "HS512 with our secret": _token(algorithm="HS512"),
    "RS256 with our own key": lambda account, body: bearer(
        token(account, body, secret=account.private_key_pem, algorithm="RS256")
    ),
    "HS256 keyed with our public key": lambda account, body: bearer(
        token_signed_with(account, body, account.public_key_pem.encode())
    ),
    "HS256 keyed with a zero byte": lambda account, body: bearer(
        token_signed_with(account, body, b"\0")
    ),
    "another issuer": _token(iss="Mallory"),
    "no issuer": _token(iss=None),
    "an issuer that is a list": _any_claims(iss=["Vonage"]),
    "another api_key": _token(api_key="abcd1234"),
    "no api_key": _token(api_key=None),
    "another application": _token(application_id="aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab"),
    "no application": _token(application_id=None),
    "six minutes old": lambda account, body: bearer(token(account, body, iat=_now(-360))),
    "six minutes early": lambda account, body: bearer(token(account, body, iat=_now(360))),
    "no iat": _token(iat=None),
    "an iat of text": _any_claims(iat="soon"),
    "an iat that is true": _any_claims(iat=True),
    "an iat beyond all clocks": _any_claims(iat=10**300),
    "an iat that is no number": _any_claims(iat=float("nan")),
}

BODY_FORGERIES: dict[str, Forge] = {
    "the hash of another body": _token(payload_hash="0" * 64),
    "no hash of the body": _token(payload_hash=None),
    "an empty hash": _token(payload_hash=""),
    "a hash that is a number": _token(payload_hash=0),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as running:
        yield running


def _signed_for(account: Credentials, body: bytes, name: str) -> dict[str, str]:
    return {**FORGERIES, **BODY_FORGERIES}[name](account, body)


@pytest.mark.parametrize("name", [*FORGERIES, *BODY_FORGERIES])
def test_a_forged_post_gets_401_and_changes_nothing(shared: Shared, name: str) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()
    body = json.dumps(call_payload(call_uuid)).encode()
    headers = _signed_for(s.vonage.credentials, body, name)
    before = rows.count()

    for path in (ANSWER, EVENT, FALLBACK):
        reply = shared.run(send(s, path, body, headers=headers))
        assert reply.status_code == 401, (path, reply.text[:200])
        assert "secret" not in reply.text and "action" not in reply.text

    assert rows.count() == before
    assert not rows.knows(call_uuid)
    assert call_uuid not in s.server.health("/api/health?node=self")["sessions"]["uuids"]


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_get_gets_401_and_changes_nothing(shared: Shared, name: str) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()
    headers = _signed_for(s.vonage.credentials, b"", name)
    query = f"?uuid={call_uuid}&from=447700900123&to=442079460000&status=completed"

    for path in (ANSWER, EVENT, FALLBACK):
        reply = shared.run(send(s, path + query, method="GET", headers=headers))
        assert reply.status_code == 401, (path, reply.text[:200])

    assert not rows.knows(call_uuid)
    assert call_uuid not in s.server.health("/api/health?node=self")["sessions"]["uuids"]


GOOD: dict[str, Forge] = {
    "four minutes old": lambda account, body: bearer(token(account, body, iat=_now(-240))),
    "four minutes early": lambda account, body: bearer(token(account, body, iat=_now(240))),
    "without jti": _token(jti=None),
    "with claims nobody announced": _token(region="eu", exp=_now(900)),
    "with a fraction in iat": _token(iat=time.time()),
    "scheme in small letters": lambda account, body: {
        "Authorization": f"bearer {token(account, body)}"
    },
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", GOOD)
def test_what_the_contract_does_not_forbid_is_accepted(
    shared: Shared, name: str, method: str
) -> None:
    s, call_uuid = shared.stage, new_uuid()
    body = b"" if method == "GET" else json.dumps(call_payload(call_uuid)).encode()
    query = f"?uuid={call_uuid}&from=447700900123&to=442079460000" if method == "GET" else ""
    headers = GOOD[name](s.vonage.credentials, body)

    reply = shared.run(send(s, ANSWER + query, body, method=method, headers=headers))

    assert reply.status_code == 200, reply.text
    assert reply.json()[0]["action"] == "connect"
    shared.run(hang_up(s, call_uuid))


def test_the_identical_request_again_gets_the_identical_reply_and_changes_nothing(
    shared: Shared,
) -> None:
    s, rows, call_uuid = shared.stage, Rows.of(shared.stage.server), new_uuid()
    body = json.dumps(call_payload(call_uuid)).encode()
    headers = bearer(token(s.vonage.credentials, body))

    async def scenario() -> None:
        first = await send(s, ANSWER, body, headers=headers)
        before = rows.count(), await s.server.ahealth("/api/health?node=self")
        again = [await send(s, ANSWER, body, headers=headers) for _ in range(3)]
        assert {reply.content for reply in again} == {first.content}
        assert first.json()[0]["action"] == "connect"
        after = rows.count(), await s.server.ahealth("/api/health?node=self")
        assert after[0] == before[0]
        assert after[1]["sessions"] == before[1]["sessions"]

        done = json.dumps({**call_payload(call_uuid), "status": "completed"}).encode()
        headers_of_done = bearer(token(s.vonage.credentials, done))
        for _ in range(3):
            reply = await send(s, EVENT, done, headers=headers_of_done)
            assert (reply.status_code, reply.content) == (204, b"")
        await rows.ended(call_uuid)
        await asyncio.sleep(0.6)  # what is written twice would be written by now
        assert rows.events(call_uuid).count("carrier completed") == 1

    shared.run(scenario())


def test_a_forged_end_leaves_a_live_call_alone(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            body = json.dumps({**call_payload(phone.uuid), "status": "completed"}).encode()
            for name in ("no header", "another secret", "the hash of another body"):
                headers = _signed_for(s.vonage.credentials, body, name)
                assert (await send(s, EVENT, body, headers=headers)).status_code == 401
            # Signed well, for another body than the one that came.
            headers = bearer(token(s.vonage.credentials, b'{"status": "ringing"}'))
            assert (await send(s, EVENT, body, headers=headers)).status_code == 401
            await asyncio.sleep(1.0)
            assert phone.media.open
            assert phone.uuid in s.server.health("/api/health?node=self")["sessions"]["uuids"]
        assert s.violations() == []

    shared.run(scenario())


def test_the_fallback_webhook_apologises_from_memory_however_it_is_asked(shared: Shared) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        before = rows.count()
        url = f"{s.server.url}{FALLBACK}"
        more = {
            "reason": "Connection closed.",
            "original_request": {"url": "https://example.com/answer", "type": "event"},
        }
        for method in ("GET", "POST"):
            first = await s.vonage.forge(url, call_payload(new_uuid()) | more, method)
            apologises(first)
            assert first.elapsed_ms < 2000
        for empty in ({}, {"reason": "Connection closed."}):
            apologises(await s.vonage.forge(url, empty, "POST"))
        assert rows.count() == before

    shared.run(scenario())


def test_a_wrong_signature_is_told_in_the_log_without_the_token(shared: Shared) -> None:
    s = shared.stage
    forged = token(s.vonage.credentials, iss="Mallory")

    async def scenario() -> None:
        reply = await send(s, f"{ANSWER}?uuid=x", method="GET", headers=bearer(forged))
        assert reply.status_code == 401
        await s.server.wait_for_log("a webhook was refused")

    shared.run(scenario())
    everything = "\n".join(line.text for line in s.server.log)
    assert forged not in everything and forged.rpartition(".")[2] not in everything
    assert s.vonage.credentials.signature_secret not in everything


def test_an_honest_call_still_gets_through_after_all_that(shared: Shared) -> None:
    s = shared.stage

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
        assert s.violations() == []
        call_uuid = new_uuid()
        connects(await ask_answer(s, call_uuid))
        await tell(s, call_uuid, "completed")

    shared.run(scenario())
