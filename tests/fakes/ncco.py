"""A strict reader of NCCOs: every key known, every value in its range, or a complaint.

The SDK's models let unknown actions and keys through, so this is written from the reference alone.

    complaints([{"action": "talk", "txt": "hello"}])
    # ["action 0: talk: unknown key 'txt'", "action 0: talk: text is missing"]
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[Any], str]
Action = Mapping[str, Any]

_NUMBER = re.compile(r"[1-9]\d{4,14}")
_CONTENT_TYPE = re.compile(r"audio/l16;rate=(8000|16000|24000)")
_TICKET = re.compile(r"[A-Za-z0-9._~:%+=@-]{8,}")


def complaints(ncco: object) -> list[str]:
    """Everything wrong with an NCCO; an empty list if a strict platform would run it."""
    if not isinstance(ncco, list):
        return ["an NCCO is a JSON array"]
    found: list[str] = []
    for index, action in enumerate(ncco):
        found += (f"action {index}: {text}" for text in _action(action))
        if is_websocket(action) and index != len(ncco) - 1:
            found.append(f"action {index}: what follows a connect to a websocket plays at once")
    return found


def is_websocket(action: object) -> bool:
    """A `connect` to a websocket endpoint."""
    if not isinstance(action, Mapping) or action.get("action") != "connect":
        return False
    endpoint = action.get("endpoint")
    return isinstance(endpoint, list) and bool(endpoint) and endpoint[0].get("type") == "websocket"


def _action(action: object) -> Iterator[str]:
    if not isinstance(action, Mapping):
        yield "is not an object"
        return
    name = action.get("action")
    known = _ACTIONS.get(str(name))
    if known is None:
        yield f"unknown action {name!r}"
        return
    required, checks = known
    for text in _keys(action, required, checks, {"action"}):
        yield f"{name}: {text}"
    if name == "connect":
        for text in _connect(action):
            yield f"connect: {text}"


def _keys(
    value: Action, required: tuple[str, ...], checks: Mapping[str, Check], also: set[str]
) -> Iterator[str]:
    """Complaints about the keys of one object."""
    for key, part in value.items():
        if key in also:
            continue
        if key not in checks:
            yield f"unknown key {key!r}"
        elif problem := checks[key](part):
            yield f"{key} {problem}"
    for key in required:
        if key not in value:
            yield f"{key} is missing"


# ---------------------------------------------------------------- checks of single values


def _text(limit: int) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            return "is no text"
        return f"is longer than {limit}" if len(value) > limit else ""

    return check


def _flag(value: object) -> str:
    return "" if isinstance(value, bool) else "is neither true nor false"


def _range(low: float, high: float, *, whole: bool = True) -> Check:
    def check(value: object) -> str:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return "is not a number"
        return "" if low <= value <= high else f"{value} is not {low} to {high}"

    return check


def _one_of(*values: object) -> Check:
    return lambda value: "" if value in values else f"{value!r} is not one of {values}"


def _one_url(value: object) -> str:
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], str):
        return "is not an array with one URL"
    parts = urlsplit(value[0])
    return "" if parts.scheme in ("http", "https") and parts.netloc else "is no http(s) URL"


def _url(value: object) -> str:
    return _one_url([value])


def _number(value: object) -> str:
    good = isinstance(value, str) and _NUMBER.fullmatch(value)
    return "" if good else "is not E.164 without a plus"


def _texts(value: object) -> str:
    good = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return "" if good else "is not an array of texts"


def _object(value: object) -> str:
    return "" if isinstance(value, Mapping) else "is not an object"


def _nested(required: tuple[str, ...], checks: Mapping[str, Check]) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, Mapping):
            return "is not an object"
        return "; ".join(_keys(value, required, checks, set()))

    return check


_EVENTS: dict[str, Check] = {"eventUrl": _one_url, "eventMethod": _one_of("GET", "POST")}
_TRANSCRIPTION = _nested((), {**_EVENTS, "language": _text(20), "sentimentAnalysis": _flag})
_DTMF = _nested((), {"timeOut": _range(0, 10), "maxDigits": _range(1, 20), "submitOnHash": _flag})
_SPEECH = _nested(
    (),
    {
        "uuid": _texts,
        "endOnSilence": _range(0.4, 10, whole=False),
        "language": _text(20),
        "context": _texts,
        "startTimeout": _range(1, 60),
        "maxDuration": _range(1, 60),
        "saveAudio": _flag,
        "sensitivity": _range(10, 100),
    },
)
_PLAYING: dict[str, Check] = {
    "level": _range(-1, 1, whole=False),
    "loop": _range(0, 10_000),
    "bargeIn": _flag,
}

#: action -> (required keys, key -> check)
_ACTIONS: dict[str, tuple[tuple[str, ...], dict[str, Check]]] = {
    "talk": (
        ("text",),
        {
            **_PLAYING,
            "text": _text(1500),
            "language": _text(20),
            "style": _range(0, 100),
            "premium": _flag,
        },
    ),
    "stream": (("streamUrl",), {**_PLAYING, "streamUrl": _one_url}),
    "record": (
        (),
        {
            **_EVENTS,
            "format": _one_of("mp3", "wav", "ogg"),
            "split": _one_of("conversation"),
            "channels": _range(1, 32),
            "endOnSilence": _range(3, 10),
            "endOnKey": _one_of(*"0123456789*#"),
            "timeOut": _range(3, 7200),
            "beepStart": _flag,
            "transcription": _TRANSCRIPTION,
        },
    ),
    "conversation": (
        ("name",),
        {
            **_EVENTS,
            "name": _text(200),
            "startOnEnter": _flag,
            "endOnExit": _flag,
            "record": _flag,
            "musicOnHoldUrl": _one_url,
            "canSpeak": _texts,
            "canHear": _texts,
            "mute": _flag,
            "transcription": _TRANSCRIPTION,
        },
    ),
    "connect": (
        ("endpoint",),
        {
            **_EVENTS,
            "endpoint": lambda value: (
                "" if isinstance(value, list) and len(value) == 1 else "is not an array of one"
            ),
            "from": _number,
            "randomFromNumber": _flag,
            "eventType": _one_of("synchronous"),
            "timeout": _range(3, 7200),
            "limit": _range(1, 7200),
            "machineDetection": _one_of("continue", "hangup"),
            "advancedMachineDetection": _object,
            "ringbackTone": _url,
        },
    ),
    "input": (
        ("type",),
        {
            **_EVENTS,
            "type": lambda value: (
                "" if value in (["dtmf"], ["speech"], ["dtmf", "speech"], ["speech", "dtmf"])
                else f"{value!r} is not an array of dtmf and speech"
            ),
            "mode": _one_of("synchronous", "asynchronous"),
            "dtmf": _DTMF,
            "speech": _SPEECH,
        },
    ),
    "notify": (("payload", "eventUrl"), {**_EVENTS, "payload": _object}),
    "wait": ((), {"timeout": _range(0.1, 7200, whole=False)}),
    "transfer": (
        ("conversationId",),
        {"conversationId": _text(100), "canHear": _texts, "canSpeak": _texts, "mute": _flag},
    ),
}  # fmt: skip

# ---------------------------------------------------------------- connect and its endpoints


def _connect(action: Action) -> Iterator[str]:
    if "from" in action and action.get("randomFromNumber"):
        yield "from and randomFromNumber exclude each other"
    endpoints = action.get("endpoint")
    if not isinstance(endpoints, list) or len(endpoints) != 1:
        return
    endpoint = endpoints[0]
    if not isinstance(endpoint, Mapping):
        yield "endpoint is not an object"
        return
    known = _ENDPOINTS.get(str(endpoint.get("type")))
    if known is None:
        yield f"unknown endpoint type {endpoint.get('type')!r}"
        return
    required, checks = known
    yield from (f"endpoint: {text}" for text in _keys(endpoint, required, checks, {"type"}))
    if endpoint["type"] == "websocket":
        # Without both, nobody is asked what to do when the socket fails: the caller hears nothing.
        if action.get("eventType") != "synchronous":
            yield "eventType is not synchronous, so a failed socket leaves the caller in silence"
        if "eventUrl" not in action:
            yield "eventUrl is missing, so a failed socket leaves the caller in silence"
        if "authorization" not in endpoint:
            yield "endpoint: authorization is missing, so the handshake cannot be told from a guess"


def _websocket_uri(value: object) -> str:
    if not isinstance(value, str) or len(value) > 2048:
        return "is no text of at most 2048"
    parts = urlsplit(value)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        return "is no ws(s) address"
    if parts.query or parts.fragment:
        return "has a query or fragment; proxies log those, the ticket belongs into the path"
    ticket = parts.path.rpartition("/")[2]
    return "" if _TICKET.fullmatch(ticket) else "has no ticket as its last segment"


def _headers(value: object) -> str:
    if not isinstance(value, Mapping):
        return "is not an object"
    if len(json.dumps(value).encode()) > 512:
        return "is larger than 512 bytes"
    if value.keys() & {"event", "content-type"}:
        return "names event or content-type, which the first message overwrites"
    return ""


def _authorization(value: object) -> str:
    if not isinstance(value, Mapping):
        return "is not an object"
    if value == {"type": "vonage"}:
        return ""
    custom = value.keys() == {"type", "value"} and value["type"] == "custom"
    return "" if custom and 1 <= len(str(value["value"])) <= 8191 else "is of no known form"


_ENDPOINTS: dict[str, tuple[tuple[str, ...], dict[str, Check]]] = {
    "phone": (
        ("number",),
        {
            "number": _number,
            "dtmfAnswer": _text(100),
            "onAnswer": _nested(("url",), {"url": _url, "ringbackTone": _url, "ringback": _url}),
            "shaken": _text(4000),
        },
    ),
    "app": (("user",), {"user": _text(200)}),
    "vbc": (("extension",), {"extension": _text(20)}),
    "sip": (
        ("uri",),
        {"uri": _text(2048), "headers": _object, "standardHeaders": _object},
    ),
    "websocket": (
        ("uri", "content-type"),
        {
            "uri": _websocket_uri,
            "content-type": lambda value: (
                "" if isinstance(value, str) and _CONTENT_TYPE.fullmatch(value)
                else f"{value!r} is not audio/l16;rate=8000, 16000 or 24000"
            ),
            "headers": _headers,
            "authorization": _authorization,
        },
    ),
}  # fmt: skip
