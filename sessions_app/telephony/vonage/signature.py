"""Who may speak to our webhooks and media sockets: the JWT with which Vonage signs its requests.

Rules: Vonage, "Signed webhooks" (HS256 over the account's signature secret; `iss`, `iat`,
`api_key`, `application_id`, `payload_hash`). Pure: the clock comes in as an argument. The same
token twice is no attack but a retry, so it is accepted again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Final

from jwt import PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

WINDOW_S: Final = 300
MAX_TOKEN_CHARS: Final = 8 * 1024


class SignatureRefused(Exception):
    """The request is not provably Vonage's. The reason is fit for a log: no secret, no token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token said: when it was made (Unix seconds) and its id ("" without one)."""

    iat_s: float
    jti: str


class _AccountSecret(HMACAlgorithm):
    """HS256 without PyJWT's warning about short keys: the account decides the secret's length."""

    def check_key_length(self, key: bytes) -> None:
        return None


_JWS: Final = PyJWS(algorithms=[])
_JWS.register_algorithm("HS256", _AccountSecret(HMACAlgorithm.SHA256))


def verify(
    authorization: str | None,
    body: bytes,
    *,
    secret: str,
    api_key: str,
    application_id: str,
    now_s: float,
) -> Claims:
    """Check a webhook's `Authorization` header against its raw `body`.

    Raises SignatureRefused unless the token is Vonage's, for this account and application, made
    within five minutes of `now_s` (Unix seconds) and, where there is a body, for this very body.
    """
    claims = _signed_claims(authorization, secret)
    _require_equal(claims, "iss", "Vonage")
    _require_equal(claims, "api_key", api_key)
    _require_equal(claims, "application_id", application_id)
    iat_s = _require_fresh(claims, now_s)
    if body:
        _require_equal(claims, "payload_hash", hashlib.sha256(body).hexdigest(), fold_case=True)
    jti = claims.get("jti")
    return Claims(iat_s=iat_s, jti=jti if isinstance(jti, str) else "")


def verify_handshake(
    authorization: str | None, *, secret: str, api_key: str, application_id: str, now_s: float
) -> Claims:
    """Check the `Authorization` header of a media WebSocket's handshake, which has no body."""
    return verify(
        authorization,
        b"",
        secret=secret,
        api_key=api_key,
        application_id=application_id,
        now_s=now_s,
    )


def _signed_claims(authorization: str | None, secret: str) -> dict[str, Any]:
    if not secret:
        # An empty HMAC key would verify anybody's token.
        raise SignatureRefused("no signature secret is configured")
    token = _bearer(authorization)
    try:
        claims = json.loads(_JWS.decode(token, secret, algorithms=["HS256"]))
    except (PyJWTError, ValueError, RecursionError):
        raise SignatureRefused("the token is not a JWT signed with HS256 and our secret") from None
    if not isinstance(claims, dict):
        raise SignatureRefused("the token holds no claims")
    return claims


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise SignatureRefused("no Authorization header")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise SignatureRefused("Authorization is not a Bearer token")
    if len(token) > MAX_TOKEN_CHARS:
        raise SignatureRefused(f"the token is longer than {MAX_TOKEN_CHARS} characters")
    return token


def _require_equal(
    claims: dict[str, Any], name: str, wanted: str, *, fold_case: bool = False
) -> None:
    if not wanted:
        raise SignatureRefused(f"no {name} is configured")
    read = claims.get(name)
    if not isinstance(read, str):
        raise SignatureRefused(f"{name} is missing")
    if fold_case:
        read = read.lower()
    # As bytes, since compare_digest takes no text beyond ASCII.
    if not hmac.compare_digest(read.encode("utf-8", "surrogatepass"), wanted.encode()):
        raise SignatureRefused(f"{name} is not the expected one")


def _require_fresh(claims: dict[str, Any], now_s: float) -> float:
    iat_s = claims.get("iat")
    if not isinstance(iat_s, int | float):
        raise SignatureRefused("iat is missing or not a number")
    # Comparing (instead of subtracting) holds for huge integers too, and is false for NaN.
    if not now_s - WINDOW_S <= iat_s <= now_s + WINDOW_S:
        raise SignatureRefused(f"iat is more than {WINDOW_S} s away from our clock")
    exp_s = claims.get("exp")
    if exp_s is not None and not (isinstance(exp_s, int | float) and now_s < exp_s):
        raise SignatureRefused("the token has expired")
    return float(iat_s)
