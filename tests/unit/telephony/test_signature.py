"""Vonage's signature: who is let in and who is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions_app.telephony.vonage.signature import (
    Claims,
    SignatureRefused,
    verify,
    verify_handshake,
)

SECRET = "an-account-signature-secret-of-some-length"
NOW_S = 1_800_000_000.0
BODY = b'{"status":"ringing","uuid":"0779a56d"}'
OURS: dict[str, str] = {"secret": SECRET, "api_key": "abcd1234", "application_id": "aaaa-bbbb"}
CLAIMS: dict[str, Any] = {
    "iss": "Vonage",
    "iat": int(NOW_S),
    "jti": "c5ba8f24-1a14-4c10-bfdf-3fbe8ce511b5",
    "api_key": "abcd1234",
    "application_id": "aaaa-bbbb",
    "payload_hash": hashlib.sha256(BODY).hexdigest(),
}


def bearer(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return f"Bearer {jwt.encode(claims, secret, algorithm=algorithm)}"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


def accepted(
    authorization: str, body: bytes = BODY, now_s: float = NOW_S, secret: str = SECRET
) -> Claims:
    return verify(authorization, body, **OURS | {"secret": secret}, now_s=now_s)


def refusal(
    authorization: str | None,
    body: bytes = BODY,
    now_s: float = NOW_S,
    ours: dict[str, str] = OURS,
) -> str:
    with pytest.raises(SignatureRefused) as caught:
        verify(authorization, body, **ours, now_s=now_s)
    assert caught.value.reason == str(caught.value)
    return caught.value.reason


def test_a_webhook_signed_by_vonage_is_let_in() -> None:
    assert accepted(bearer(CLAIMS)) == Claims(iat_s=NOW_S, jti=CLAIMS["jti"])


def test_the_same_token_again_is_a_retry_and_let_in_again() -> None:
    header = bearer(CLAIMS)
    assert accepted(header) == accepted(header)


def test_the_scheme_is_read_in_any_case() -> None:
    assert accepted("bearer" + bearer(CLAIMS)[6:]).iat_s == NOW_S


def test_a_token_without_jti_is_let_in() -> None:
    assert accepted(bearer(without("jti"))).jti == ""


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer not-a-token",
        "Bearer a.b.c",
        "Bearer ...",
    ],
)
def test_what_is_no_bearer_token_is_refused(header: str | None) -> None:
    refusal(header)


def test_a_token_signed_with_another_secret_is_refused() -> None:
    refusal(bearer(CLAIMS, secret="another-secret-of-about-the-same-length-as-ours"))


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_only_hs256_is_accepted_even_with_our_secret(algorithm: str) -> None:
    refusal(bearer(CLAIMS, algorithm=algorithm))


def test_an_unsigned_token_is_refused() -> None:
    refusal(f"Bearer {jwt.encode(CLAIMS, '', algorithm='none')}")


def test_a_changed_payload_is_refused() -> None:
    head, _, mac = jwt.encode(CLAIMS, SECRET, algorithm="HS256").split(".")
    forged = base64.urlsafe_b64encode(json.dumps(CLAIMS | {"iat": 1}).encode()).decode()
    refusal(f"Bearer {head}.{forged.rstrip('=')}.{mac}")


def test_without_a_secret_nobody_is_let_in() -> None:
    head, payload, _ = jwt.encode(CLAIMS, SECRET, algorithm="HS256").split(".")
    mac = hmac.digest(b"", f"{head}.{payload}".encode(), "sha256")
    header = f"Bearer {head}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert "no signature secret" in refusal(header, ours=OURS | {"secret": ""})


@pytest.mark.parametrize("name", ["api_key", "application_id"])
def test_without_our_own_identity_nobody_is_let_in(name: str) -> None:
    reason = refusal(bearer(CLAIMS | {name: ""}), ours=OURS | {name: ""})
    assert reason == f"no {name} is configured"


@pytest.mark.parametrize("name", ["iss", "api_key", "application_id", "iat", "payload_hash"])
@pytest.mark.parametrize(
    "value", [..., None, "", "vonage", "somebody-else", "é", 5, ["x"], {}, True]
)
def test_each_claim_must_be_there_and_be_ours(name: str, value: object) -> None:
    claims = without(name) if value is ... else CLAIMS | {name: value}
    reason = refusal(signed_anyhow(json.dumps(claims).encode()))
    assert name in reason


@pytest.mark.parametrize("age_s", [-300, -30, 0, 30, 300])
def test_five_minutes_either_way_are_near_enough(age_s: int) -> None:
    assert accepted(bearer(CLAIMS), now_s=NOW_S + age_s).iat_s == NOW_S


@pytest.mark.parametrize("age_s", [-86400, -301, 301, 86400])
def test_more_than_five_minutes_either_way_are_refused(age_s: int) -> None:
    assert "iat" in refusal(bearer(CLAIMS), now_s=NOW_S + age_s)


def test_iat_may_have_fractions() -> None:
    assert accepted(bearer(CLAIMS | {"iat": NOW_S + 0.25})).iat_s == NOW_S + 0.25


@pytest.mark.parametrize("iat", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400])
def test_an_iat_beyond_all_clocks_is_refused(iat: str) -> None:
    text = json.dumps(CLAIMS).replace(str(int(NOW_S)), iat)
    assert "iat" in refusal(signed_anyhow(text.encode()))


def test_exp_is_honoured_where_there_is_one() -> None:
    assert accepted(bearer(CLAIMS | {"exp": NOW_S + 1})).iat_s == NOW_S
    assert "expired" in refusal(bearer(CLAIMS | {"exp": NOW_S}))
    assert "expired" in refusal(signed_anyhow(json.dumps(CLAIMS | {"exp": "soon"}).encode()))


def test_another_body_than_the_signed_one_is_refused() -> None:
    assert "payload_hash" in refusal(bearer(CLAIMS), body=BODY + b" ")


def test_the_hash_may_be_in_capitals() -> None:
    capitals = CLAIMS | {"payload_hash": CLAIMS["payload_hash"].upper()}
    assert accepted(bearer(capitals)).iat_s == NOW_S


def test_without_a_body_the_hash_does_not_matter() -> None:
    for claims in (without("payload_hash"), CLAIMS, CLAIMS | {"payload_hash": "x"}):
        assert accepted(bearer(claims), body=b"").iat_s == NOW_S


def test_a_handshake_is_checked_the_same_way_without_a_body() -> None:
    header = bearer(without("payload_hash"))
    assert verify_handshake(header, **OURS, now_s=NOW_S).jti == CLAIMS["jti"]
    for wrong in (None, bearer(without("iss")), bearer(CLAIMS | {"api_key": "other"})):
        with pytest.raises(SignatureRefused):
            verify_handshake(wrong, **OURS, now_s=NOW_S)


@pytest.mark.parametrize("payload", [b"[]", b"3", b"null", b"not json", b"\xff", b"[" * 5000])
def test_a_signed_token_that_holds_no_claims_is_refused(payload: bytes) -> None:
    refusal(signed_anyhow(payload))


def test_a_token_of_absurd_length_is_refused_before_it_is_read() -> None:
    assert "longer" in refusal("Bearer " + "a" * 9000)


def test_a_short_secret_works_and_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        header = bearer(CLAIMS, secret="short")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert accepted(header, secret="short").iat_s == NOW_S


@settings(deadline=None)
@given(st.text())
@example("Bearer \ud800")
@example("Bearer eyJhbGciOltdfQ.e30.AA")
def test_no_header_whatever_gets_in_or_raises_anything_else(header: str) -> None:
    for authorization in (header, f"Bearer {header}"):
        with pytest.raises(SignatureRefused):
            verify(authorization, BODY, **OURS, now_s=NOW_S)


@settings(deadline=None)
@given(st.binary())
def test_no_payload_whatever_raises_anything_else(payload: bytes) -> None:
    refusal(signed_anyhow(payload))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_no_single_changed_character_is_let_in(place: int, character: str) -> None:
    token = bearer(without("jti")).removeprefix("Bearer ")
    place %= len(token)
    changed = token[:place] + character + token[place + 1 :]
    if changed.strip() != token:
        refusal(f"Bearer {changed}")


def test_no_reason_repeats_secret_or_token() -> None:
    header = bearer(CLAIMS | {"api_key": "someone-elses-key"})
    reasons = refusal(header) + refusal(header + "x") + refusal("Token " + header)
    for private in (SECRET, header.split(".")[1], "someone-elses-key", "abcd1234"):
        assert private not in reasons


def signed_anyhow(payload: bytes) -> str:
    """A token with our signature over bytes that no JWT library would sign."""
    return f"Bearer {jwt.PyJWS().encode(payload, SECRET, algorithm='HS256')}"
