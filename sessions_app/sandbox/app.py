"""The sandbox as one small ASGI application: paths to pieces, nothing more."""

from __future__ import annotations

import asyncio
import logging

from sessions_app.sandbox.asgi import (
    BodyTooLargeError,
    ClientGoneError,
    CutError,
    Receive,
    Scope,
    Send,
    recorded,
    refuse_handshake,
    reply_json,
)
from sessions_app.sandbox.conf import Context
from sessions_app.sandbox.openai_realtime import error_body, realtime
from sessions_app.sandbox.openai_responses import responses
from sessions_app.sandbox.speechmatics import generate
from sessions_app.sandbox.vonage_rest import Legs, calls, legs_socket

logger = logging.getLogger(__name__)

_BODY_TIMEOUT_S = 30.0


class App:
    """ASGI 3. Its legs live as long as it does."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._legs = Legs()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "websocket":
                await self._websocket(scope, receive, send)
            elif scope["type"] == "http":
                await self._http(scope, receive, send)
        except ClientGoneError:
            return
        except BodyTooLargeError:
            message = "The body is too large."
            await reply_json(send, 413, error_body("invalid_request_error", None, message))
        except CutError:
            raise  # on purpose: the server drops the connection
        except Exception:
            logger.exception("the sandbox failed on %s", scope["path"])
            raise

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/realtime":
            await realtime(scope, receive, send, self._context)
        elif scope["path"] == "/sandbox/legs":
            await legs_socket(scope, receive, send, self._legs)
        else:
            await refuse_handshake(send, 404, _not_found(scope))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        receive = _bounded(receive)
        if path == "/v1/responses":
            await responses(scope, receive, send, self._context)
        elif path.startswith("/generate/"):
            await generate(scope, receive, send, self._context)
        elif path == "/v1/calls" or path.startswith("/v1/calls/"):
            await calls(scope, receive, send, self._context, self._legs)
        elif path == "/sandbox/health":
            await reply_json(send, 200, {"status": "ok"})
        elif path == "/sandbox/strikes":
            notes = self._context.strikes.look(recorded(scope).query.get("call", ""))
            told = {"struck": notes.struck, "cut": notes.was_cut} if notes else None
            await reply_json(send, 200, told)
        else:
            await reply_json(send, 404, _not_found(scope))


def _bounded(receive: Receive) -> Receive:
    """A client that sends half a body and stops is given up on."""

    async def bounded() -> dict[str, object]:
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                return await receive()
        except TimeoutError:
            raise ClientGoneError from None

    return bounded


def _not_found(scope: Scope) -> object:
    return error_body("invalid_request_error", None, f"Invalid URL ({scope['path']})")
