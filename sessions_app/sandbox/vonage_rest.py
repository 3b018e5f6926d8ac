"""Vonage's Calls REST (``/v1/calls/{uuid}``), and the sandbox's own surface on which callers keep
their legs.

A simulated caller may live in another process, so it registers its legs over a WebSocket,
``/sandbox/legs``, and learns on it what REST asked of them::

    caller -> {"register": {"uuid": "…", "conversation_uuid": "CON-…",
                            "from": "…", "to": "…", "direction": "inbound"}}
    caller <- {"registered": "…"}
    caller <- {"uuid": "…", "action": "hangup", "body": {"action": "hangup"}}
    caller -> {"completed": "…"}

When that socket closes, its legs are completed: nothing is left behind by a caller that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import jwt

from sessions_app.sandbox.asgi import (
    Receive,
    Scope,
    Send,
    bearer,
    call_of,
    read_body,
    recorded,
    refuse_handshake,
    reply,
    reply_json,
    wish_of,
)
from sessions_app.sandbox.conf import Context, Keys, Recorded
from sessions_app.sandbox.faults import Fault

_KEPT_COMPLETED: Final = 1000
_KEPT_ORDERS: Final = 100
_SIMPLE_ACTIONS: Final = ("hangup", "mute", "unmute", "earmuff", "unearmuff")
_IAT_LEEWAY_S: Final = 60
_TALK_LIMIT: Final = 1500
_DTMF: Final = frozenset("0123456789*#p")

Order = dict[str, Any]


@dataclass(slots=True)
class Leg:
    """One side of a simulated conversation."""

    uuid: str
    conversation_uuid: str
    from_number: str
    to_number: str
    direction: str
    orders: asyncio.Queue[Order]
    status: str = "answered"
    started: float = field(default_factory=time.time)
    ended: float | None = None

    def wire(self) -> dict[str, Any]:
        """The leg as ``GET /v1/calls/{uuid}`` shows it; figures of money and time are strings."""
        duration_s = int((self.ended or time.time()) - self.started)
        shown: dict[str, Any] = {
            "_links": {"self": {"href": f"/v1/calls/{self.uuid}"}},
            "uuid": self.uuid,
            "conversation_uuid": self.conversation_uuid,
            "to": {"type": "phone", "number": self.to_number},
            "from": {"type": "phone", "number": self.from_number},
            "status": self.status,
            "direction": self.direction,
            "network": None,
            "start_time": _iso(self.started),
        }
        if self.ended is not None:
            shown |= {
                "end_time": _iso(self.ended),
                "duration": str(duration_s),
                "rate": "0.00720000",
                "price": f"{duration_s * 0.0072 / 60:.8f}",
            }
        return shown


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Legs:
    """The legs that exist; completed ones are remembered for a while, as Vonage does."""

    def __init__(self) -> None:
        self._legs: OrderedDict[str, Leg] = OrderedDict()

    def add(self, leg: Leg) -> None:
        """Registers a leg; one of the same uuid is replaced."""
        self._legs[leg.uuid] = leg
        self._legs.move_to_end(leg.uuid)

    def get(self, uuid: str) -> Leg | None:
        """The leg of that uuid, completed or not."""
        return self._legs.get(uuid)

    def complete(self, leg: Leg) -> None:
        """Marks a leg as over and forgets the oldest of those that are."""
        if leg.ended is None:
            leg.status, leg.ended = "completed", time.time()
        over = [known.uuid for known in self._legs.values() if known.ended is not None]
        for uuid in over[:-_KEPT_COMPLETED]:
            del self._legs[uuid]


# --- the caller's surface ----------


async def legs_socket(scope: Scope, receive: Receive, send: Send, legs: Legs) -> None:
    """Serves one caller's WebSocket: registers its legs, tells it the orders that came by REST."""
    await receive()  # websocket.connect
    if "origin" in recorded(scope).headers:
        # A browser names its page; no page has business here, and any could reach 127.0.0.1.
        await refuse_handshake(send, 403, {"error": "not for browsers"})
        return
    await send({"type": "websocket.accept"})
    orders: asyncio.Queue[Order] = asyncio.Queue(_KEPT_ORDERS)
    own: dict[str, Leg] = {}
    with contextlib.suppress(OSError):
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(_tell(orders, send))
            try:
                while (message := await receive())["type"] != "websocket.disconnect":
                    await _take(message.get("text") or "", own, orders, send, legs)
            finally:
                teller.cancel()
                for leg in own.values():
                    legs.complete(leg)


async def _tell(orders: asyncio.Queue[Order], send: Send) -> None:
    with contextlib.suppress(OSError):
        while True:
            order = await orders.get()
            await send({"type": "websocket.send", "text": json.dumps(order)})


async def _take(
    text: str, own: dict[str, Leg], orders: asyncio.Queue[Order], send: Send, legs: Legs
) -> None:
    try:
        message = json.loads(text)
        if "completed" in message:
            leg = own.get(message["completed"])
            if leg is not None:
                legs.complete(leg)
            return
        told = message["register"]
        leg = Leg(
            uuid=told["uuid"],
            conversation_uuid=told["conversation_uuid"],
            from_number=told.get("from", ""),
            to_number=told.get("to", ""),
            direction=told.get("direction", "inbound"),
            orders=orders,
        )
    except (ValueError, KeyError, TypeError):
        error = {"error": "wanted {'register': {'uuid': …, …}} or {'completed': uuid}"}
        await send({"type": "websocket.send", "text": json.dumps(error)})
        return
    own[leg.uuid] = leg
    legs.add(leg)
    await send({"type": "websocket.send", "text": json.dumps({"registered": leg.uuid})})


# --- REST ----------


async def calls(scope: Scope, receive: Receive, send: Send, context: Context, legs: Legs) -> None:
    """Serves ``/v1/calls/{uuid}`` and ``/v1/calls/{uuid}/{talk,stream,dtmf}``."""
    body = await read_body(receive)
    request = recorded(scope, body)
    context.requests.append(request)
    wish = wish_of(request)
    fault = wish.fault if wish is not None else None
    if fault in (Fault.REST_REFUSED, Fault.REST_SLOW) and wish is not None:
        context.strikes.of(call_of(request)).take(wish)
    if fault is Fault.REST_REFUSED:
        await _problem(send, 500, "Internal Server Error", "The sandbox was asked to fail.")
        return
    if fault is Fault.REST_SLOW:
        await asyncio.sleep(context.tempo.rest_slow_s)
    trouble = _token_trouble(bearer(request), context.keys)
    if trouble:
        await _problem(send, 401, "Unauthorized", trouble)
        return
    uuid, _, sub = request.path.removeprefix("/v1/calls").lstrip("/").partition("/")
    leg = legs.get(uuid)
    if leg is None or (leg.ended is not None and request.method != "GET"):
        await _problem(send, 404, "Not Found", "No live call with this uuid.")
        return
    if sub:
        await _sub_resource(request, sub, leg, send)
    elif request.method == "GET":
        await reply_json(send, 200, leg.wire())
    elif request.method == "PUT":
        await _modify(request, leg, send)
    else:
        await _problem(send, 405, "Method Not Allowed", request.method)


async def _modify(request: Recorded, leg: Leg, send: Send) -> None:
    body = _json_object(request.body)
    trouble = _order_trouble(body)
    if body is None or trouble:
        await _problem(send, 400, "Bad Request", trouble)
        return
    _order(leg, body["action"], body)
    if body["action"] == "hangup":
        # The rest is the owner's: it learns of it and completes the leg. Nothing else can be asked
        # of it any more.
        leg.status, leg.ended = "completed", time.time()
    await reply(send, 204)


def _order_trouble(body: dict[str, Any] | None) -> str:
    if body is None:
        return "The body must be a JSON object."
    action = body.get("action")
    if action in _SIMPLE_ACTIONS:
        return "" if set(body) == {"action"} else "Unknown field beside 'action'."
    if action != "transfer":
        return f"Unknown action {action!r:.40}."
    destination = body.get("destination")
    if not isinstance(destination, dict) or destination.get("type") != "ncco":
        return "'destination' must be an object of type 'ncco'."
    ncco, url = destination.get("ncco"), destination.get("url")
    if isinstance(ncco, list) == isinstance(url, list):
        return "'destination' must have either 'ncco' or 'url', as an array."
    return ""


async def _sub_resource(request: Recorded, sub: str, leg: Leg, send: Send) -> None:
    names = {"talk": "Talk", "stream": "Stream", "dtmf": "DTMF"}
    allowed = ("PUT",) if sub == "dtmf" else ("PUT", "DELETE")
    if sub not in names:
        await _problem(send, 404, "Not Found", "No such resource.")
        return
    if request.method not in allowed:
        await _problem(send, 405, "Method Not Allowed", request.method)
        return
    if request.method == "DELETE":
        _order(leg, f"stop_{sub}", {})
        await reply_json(send, 200, {"message": f"{names[sub]} stopped", "uuid": leg.uuid})
        return
    body = _json_object(request.body)
    trouble = _sub_trouble(sub, body)
    if body is None or trouble:
        await _problem(send, 400, "Bad Request", trouble)
        return
    _order(leg, sub, body)
    message = "DTMF sent" if sub == "dtmf" else f"{names[sub]} started"
    await reply_json(send, 200, {"message": message, "uuid": leg.uuid})


def _sub_trouble(sub: str, body: dict[str, Any] | None) -> str:
    if body is None:
        return "The body must be a JSON object."
    if sub == "talk":
        text = body.get("text")
        is_good = isinstance(text, str) and 0 < len(text) <= _TALK_LIMIT
        return "" if is_good else f"'text' must have 1 to {_TALK_LIMIT} characters."
    if sub == "stream":
        url = body.get("stream_url")
        is_good = isinstance(url, list) and len(url) == 1 and isinstance(url[0], str)
        return "" if is_good else "'stream_url' must be an array of one URL."
    digits = body.get("digits")
    is_good = isinstance(digits, str) and digits != "" and set(digits) <= _DTMF
    return "" if is_good else "'digits' must be of 0-9, *, # and p."


def _order(leg: Leg, action: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(asyncio.QueueFull):  # an owner that does not read loses orders
        leg.orders.put_nowait({"uuid": leg.uuid, "action": action, "body": body})


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _token_trouble(token: str, keys: Keys) -> str:
    """Why the application JWT will not do; ``""`` when it will."""
    if not token:
        return "Missing Bearer token."
    try:
        if jwt.get_unverified_header(token).get("alg") != "RS256":
            return "The token must be signed with RS256."
        claims = jwt.decode(
            token,
            keys.vonage_public_key,
            algorithms=["RS256"],
            leeway=_IAT_LEEWAY_S,
            options={
                "require": ["application_id", "iat", "jti"],
                "verify_signature": bool(keys.vonage_public_key),
                "verify_exp": True,
                "verify_iat": True,
            },
        )
    except jwt.PyJWTError as error:
        return f"Invalid token: {error}"
    wanted = keys.vonage_application_id
    if wanted and claims["application_id"] != wanted:
        return "The token is of another application."
    return ""


async def _problem(send: Send, status: int, title: str, detail: str) -> None:
    slug = title.lower().replace(" ", "-")
    content = {
        "type": f"https://developer.vonage.com/api-errors#{slug}",
        "title": title,
        "detail": detail,
        "instance": "sandbox",
    }
    await reply_json(send, status, content)
