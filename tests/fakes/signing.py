"""Credentials of a made-up Vonage account: signed webhooks (HS256) and the checked REST token.

Facts: a webhook carries `Authorization: Bearer` with `iss`, `iat`, `jti`, `api_key`,
`application_id` and, when there is a body, its SHA-256 as `payload_hash`, signed with the account's
signature secret; the REST API wants RS256 with `application_id`, `iat`, `exp` and `jti`, signed
with the application's private key.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_CLOCK_SKEW_S = 30
_LONGEST_LIFE_S = 24 * 3600


class Forgery(StrEnum):
    """Ways in which a webhook or handshake can fail to be Vonage's."""

    UNSIGNED = "unsigned"
    NOT_A_TOKEN = "not a token"
    WRONG_SECRET = "wrong secret"
    NO_ALGORITHM = "alg none"
    OTHER_ISSUER = "other issuer"
    OTHER_KEY = "other api_key"
    OTHER_APPLICATION = "other application"
    TOO_OLD = "too old"
    FROM_THE_FUTURE = "from the future"
    OTHER_BODY = "other body"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the product is configured with, and what the stand-in checks and signs with."""

    api_key: str
    application_id: str
    signature_secret: str
    private_key_pem: str
    public_key_pem: str

    @classmethod
    def generate(cls) -> Self:
        """New ones; the RSA pair is made once per process, since that is slow."""
        private, public = _key_pair()
        return cls(
            api_key=uuid.uuid4().hex[:8],
            application_id=str(uuid.uuid4()),
            signature_secret=uuid.uuid4().hex + uuid.uuid4().hex,
            private_key_pem=private,
            public_key_pem=public,
        )

    def authorization(self, body: bytes = b"", forgery: Forgery | None = None) -> dict[str, str]:
        """The `Authorization` header of a webhook with this body, or of a media handshake."""
        if forgery is Forgery.UNSIGNED:
            return {}
        if forgery is Forgery.NOT_A_TOKEN:
            return {"Authorization": "Bearer not-a-token"}
        claims = self._claims(body, forgery)
        secret, algorithm = self.signature_secret, "HS256"
        if forgery is Forgery.WRONG_SECRET:
            secret = "x" * 64
        if forgery is Forgery.NO_ALGORITHM:
            secret, algorithm = "", "none"
        return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm=algorithm)}"}

    def _claims(self, body: bytes, forgery: Forgery | None) -> dict[str, Any]:
        shift_s = (forgery is Forgery.FROM_THE_FUTURE) * 3600 - (forgery is Forgery.TOO_OLD) * 3600
        other = str(uuid.uuid4())
        claims: dict[str, Any] = {
            "iss": "Mallory" if forgery is Forgery.OTHER_ISSUER else "Vonage",
            "iat": int(time.time()) + shift_s,
            "jti": str(uuid.uuid4()),
            "api_key": "abcd1234" if forgery is Forgery.OTHER_KEY else self.api_key,
            "application_id": (
                other if forgery is Forgery.OTHER_APPLICATION else self.application_id
            ),
        }
        if body:
            signed = b"another body" if forgery is Forgery.OTHER_BODY else body
            claims["payload_hash"] = hashlib.sha256(signed).hexdigest()
        return claims

    def rest_mistake(self, token: str) -> str:
        """What is wrong with the token of a REST request; nothing if it is good."""
        try:
            if jwt.get_unverified_header(token).get("typ") != "JWT":
                return "typ is not JWT"
            claims = jwt.decode(
                token,
                self.public_key_pem,
                algorithms=["RS256"],
                leeway=_CLOCK_SKEW_S,
                options={"require": ["iat", "exp", "jti", "application_id"]},
            )
        except jwt.PyJWTError as error:
            return str(error)
        if claims["application_id"] != self.application_id:
            return "application_id is another application's"
        if claims["exp"] - claims["iat"] > _LONGEST_LIFE_S:
            return "it lives longer than a day"
        return ""


@lru_cache(maxsize=1)
def _key_pair() -> tuple[str, str]:
    """(private PKCS#8 PEM, public PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()
