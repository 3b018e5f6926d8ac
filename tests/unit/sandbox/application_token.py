"""Application JWTs as a client of Vonage's REST makes them, with a key of our own."""

from __future__ import annotations

import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(**changes: Any) -> str:
    claims = {"application_id": "app-1", "iat": int(time.time()), "jti": str(uuid.uuid4())}
    return jwt.encode(claims | {"exp": int(time.time()) + 900} | changes, PRIVATE, "RS256")
