"""The little of ASGI that the stand-ins need: bounded bodies, JSON replies, refused handshakes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from sessions_app.sandbox.conf import Recorded
from sessions_app.sandbox.faults import CALL_HEADER, HEADER, Wish

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_LIMIT: Final = 1 << 20


class BodyTooLargeError(Exception):
    """The request's body went over ``BODY_LIMIT``."""


class ClientGoneError(Exception):
    """The client left before its request was complete."""


class CutError(Exception):
    """Raised through the server, which then drops the connection without a goodbye."""


async def read_body(receive: Receive) -> bytes:
    """The whole body, at most ``BODY_LIMIT`` bytes. Raises ``BodyTooLargeError``,
    ``ClientGoneError``.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return bytes(body)


def recorded(scope: Scope, body: bytes = b"") -> Recorded:
    """The request of ``scope`` as plain values; header names in lower case."""
    return Recorded(
        method=scope.get("method", "GET"),
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers={k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]},
        body=body,
    )


def wish_of(request: Recorded) -> Wish | None:
    """The fault that this request asks for."""
    return Wish.read(request.headers.get(HEADER, ""))


def call_of(request: Recorded) -> str:
    """The uuid of the call that this request is made for, ``""`` when it does not say."""
    return request.headers.get(CALL_HEADER, "")


def bearer(request: Recorded) -> str:
    """The Bearer token of the request, ``""`` when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def reply(
    send: Send, status: int, body: bytes = b"", content_type: str = "application/json"
) -> None:
    """Sends a whole HTTP response."""
    headers = [(b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", content_type.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def reply_json(send: Send, status: int, content: Any) -> None:
    """Sends a whole HTTP response with a JSON body."""
    await reply(send, status, json.dumps(content).encode())


async def refuse_handshake(send: Send, status: int, content: Any) -> None:
    """Refuses a WebSocket handshake with an HTTP status and a JSON body (extension of ASGI 2.4)."""
    body = json.dumps(content).encode()
    await send(
        {
            "type": "websocket.http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "websocket.http.response.body", "body": body})
