"""``GET /v1/realtime?model=…``: the WebSocket endpoint, its handshake and its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from sessions_app.sandbox.asgi import (
    CutError,
    Receive,
    Scope,
    Send,
    bearer,
    call_of,
    recorded,
    refuse_handshake,
    wish_of,
)
from sessions_app.sandbox.checks import WireError
from sessions_app.sandbox.conf import Context, Recorded
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.realtime_session import Session
from sessions_app.sandbox.realtime_socket import ClosingError, EventSocket
from sessions_app.sandbox.realtime_trouble import Trouble, is_away
from sessions_app.sandbox.strikes import CallNotes

# Close code of the API for a client that it will not serve, as seen with the beta's header.
_CLOSE_UNSERVED: Final = 4000


class _ClientLeftError(Exception):
    """The client closed the connection."""


def error_body(kind: str, code: str | None, message: str, param: str | None = None) -> Any:
    """The JSON body of a refused request, in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unauthorized(key: str, wanted: str) -> Any | None:
    """The body of the 401 when ``key`` will not do, else ``None``."""
    if not key:
        return error_body(
            "invalid_request_error",
            None,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    if wanted and key != wanted:
        return error_body("invalid_request_error", "invalid_api_key", "Incorrect API key provided.")
    return None


def _refusal(request: Recorded, fault: Fault | None, wanted_key: str) -> tuple[int, Any] | None:
    """The status and body of a refused handshake."""
    if fault is Fault.OPENAI_REFUSED:
        return 503, error_body("server_error", None, "The engine is currently overloaded.")
    if fault is Fault.OPENAI_UNAUTHORIZED:
        return 401, error_body(
            "invalid_request_error", "invalid_api_key", "Incorrect API key provided."
        )
    if fault is Fault.OPENAI_QUOTA:
        message = "You exceeded your current quota, please check your plan and billing details."
        return 429, error_body("insufficient_quota", "insufficient_quota", message)
    body = unauthorized(bearer(request), wanted_key)
    if body is not None:
        return 401, body
    if not request.query.get("model"):
        message = "You must provide a model parameter."
        return 400, error_body("invalid_request_error", "missing_model", message, "model")
    return None


def _unserved(request: Recorded) -> WireError | None:
    """What is refused only after the handshake, by an ``error`` event and a close."""
    if "openai-beta" in request.headers:
        return WireError(
            "beta_api_shape_disabled",
            "The Realtime Beta API is no longer supported. Please use the GA API.",
        )
    model = request.query["model"]
    if not model.startswith("gpt-realtime"):
        return WireError(
            "model_not_found", f"The model '{model}' does not exist or you do not have access."
        )
    return None


async def realtime(scope: Scope, receive: Receive, send: Send, context: Context) -> None:
    """Serves one connection until either side ends it."""
    request = recorded(scope)
    context.requests.append(request)
    wish = wish_of(request)
    notes = context.strikes.of(call_of(request)) if wish is not None else CallNotes()
    away = wish.fault if wish is not None and is_away(wish, notes) else None
    await receive()  # websocket.connect
    refusal = _refusal(request, away, context.keys.openai)
    if refusal is not None:
        await refuse_handshake(send, *refusal)
        return
    await send({"type": "websocket.accept"})
    socket = EventSocket(send)
    trouble = Trouble(wish, notes, socket, context.tempo, context.own_side)
    # ClientDisconnected of the server is an OSError: the client left while we were sending.
    with contextlib.suppress(OSError):
        unserved = _unserved(request)
        if unserved is not None:
            await socket.error(unserved)
            await socket.close(_CLOSE_UNSERVED, unserved.code or "")
        elif away is Fault.OPENAI_HANGS:
            await _hang(receive)
        else:
            await _serve(request, trouble, receive, socket, context)


async def _hang(receive: Receive) -> None:
    """Reads on, so that the client's own sending works, and never answers."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _serve(
    request: Recorded,
    trouble: Trouble,
    receive: Receive,
    socket: EventSocket,
    context: Context,
) -> None:
    dropped = False
    try:
        async with asyncio.TaskGroup() as group:
            session = Session(
                socket,
                group,
                model=request.query["model"],
                tempo=context.tempo,
                trouble=trouble,
            )
            await session.begin()
            await _receive_all(request, receive, session, context)
    except* _ClientLeftError:
        pass
    except* OSError:
        pass
    except* CutError:
        dropped = True
    except* ClosingError as closing:
        first = closing.exceptions[0]
        if isinstance(first, ClosingError):
            with contextlib.suppress(OSError):
                await socket.close(first.code, first.reason)
    if dropped:
        raise CutError


async def _receive_all(
    request: Recorded, receive: Receive, session: Session, context: Context
) -> None:
    call = call_of(request)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise _ClientLeftError
        event = await session.handle(message.get("text"))
        if event is not None and context.on_client_event is not None:
            context.on_client_event(call, event)
