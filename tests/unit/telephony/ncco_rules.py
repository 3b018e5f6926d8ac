"""A strict reader of NCCOs, written from Vonage's reference, sharing nothing with our builders.

`validate` returns one line for each thing Vonage might refuse, ignore or misunderstand; an empty
list means the flow is fit to be sent. For tests only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[Any], bool]

E164 = re.compile(r"[1-9][0-9]{6,14}")
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def validate(ncco: object) -> list[str]:
    """All problems of an NCCO, each with the place where it was found."""
    if not isinstance(ncco, list) or not ncco:
        return ["an NCCO is a list of at least one action"]
    try:
        json.dumps(ncco, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"not JSON: {error}"]
    problems: list[str] = []
    for index, action in enumerate(ncco):
        problems += [f"[{index}] {problem}" for problem in _action(action)]
    return problems + _order([action for action in ncco if isinstance(action, dict)])


def _action(action: object) -> list[str]:
    if not isinstance(action, dict):
        return ["an action is an object"]
    name = action.get("action")
    fields = ACTIONS.get(name) if isinstance(name, str) else None
    if fields is None:
        return [f"unknown action {name!r}"]
    rest = {key: value for key, value in action.items() if key != "action"}
    problems = _fields(rest, fields, REQUIRED.get(str(name), ()))
    problems += [text for wrong, text in RULES.get(str(name), ()) if wrong(rest)]
    if name == "connect" and isinstance(rest.get("endpoint"), list):
        for endpoint in rest["endpoint"]:
            problems += [f"endpoint: {problem}" for problem in _endpoint(endpoint)]
    return problems


def _endpoint(endpoint: object) -> list[str]:
    if not isinstance(endpoint, dict):
        return ["is not an object"]
    kind = endpoint.get("type")
    fields = ENDPOINTS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return [f"unknown type {kind!r}"]
    rest = {key: value for key, value in endpoint.items() if key != "type"}
    return _fields(rest, fields, ENDPOINT_REQUIRED[str(kind)])


def _fields(
    read: dict[str, Any], allowed: dict[str, Check], required: tuple[str, ...]
) -> list[str]:
    problems = [f"{key} is missing" for key in required if key not in read]
    for key, value in read.items():
        if key not in allowed:
            problems.append(f"{key} is not a known key")
        elif not allowed[key](value):
            problems.append(f"{key} has a value out of bounds")
    return problems


def _order(actions: list[dict[str, Any]]) -> list[str]:
    problems = []
    for here, after in pairwise(actions):
        if here.get("action") == "connect" and _is_websocket(here):
            problems.append("an action behind a websocket connect runs as soon as the socket is up")
        barges = here.get("action") in ("talk", "stream") and here.get("bargeIn") is True
        if barges and after.get("action") not in ("input", "talk"):
            problems.append("bargeIn wants an input as the next action that is no talk")
    return problems


def _is_websocket(connect: dict[str, Any]) -> bool:
    endpoints = connect.get("endpoint")
    return isinstance(endpoints, list) and any(
        isinstance(endpoint, dict) and endpoint.get("type") == "websocket" for endpoint in endpoints
    )


# What a value may be.


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(low: float, high: float) -> Check:
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    )


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _one_of(*values: Any) -> Check:
    return lambda value: value in values


def _match(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _url(*schemes: str) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, str) or len(value) > 2048 or any(c.isspace() for c in value):
            return False
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname)

    return check


def _one(check: Check) -> Check:
    return lambda value: isinstance(value, list) and len(value) == 1 and check(value[0])


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def _object(allowed: dict[str, Check], *required: str) -> Check:
    return lambda value: isinstance(value, dict) and not _fields(value, allowed, required)


def _any_object(value: Any) -> bool:
    return isinstance(value, dict)


def _ws_headers(value: Any) -> bool:
    if not isinstance(value, dict) or {"event", "content-type"} & set(value):
        return False
    return all(isinstance(v, str) for v in value.values()) and len(json.dumps(value)) <= 512


def _ws_authorization(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("type") == "vonage":
        return set(value) == {"type"}
    return (
        value.get("type") == "custom"
        and set(value) == {"type", "value"}
        and _match(r"[ -~]{1,8191}")(value["value"])
    )


_HTTP = _url("https", "http")
_EVENTS: dict[str, Check] = {"eventUrl": _one(_HTTP), "eventMethod": _one_of("GET", "POST")}
_LEGS = _list(_text)
_LANGUAGE: Check = _match(LANGUAGE.pattern)
_TRANSCRIPTION = _object(
    {"language": _LANGUAGE, **_EVENTS, "sentimentAnalysis": _flag, "sentiment_analysis": _flag}
)

ACTIONS: dict[str, dict[str, Check]] = {
    "talk": {
        "text": lambda value: _text(value) and len(value) <= 1500,
        "language": _LANGUAGE,
        "style": _whole(0, 100),
        "premium": _flag,
        "level": _number(-1, 1),
        "loop": _whole(0, 10**6),
        "bargeIn": _flag,
    },
    "stream": {
        "streamUrl": _one(_HTTP),
        "level": _number(-1, 1),
        "loop": _whole(0, 10**6),
        "bargeIn": _flag,
    },
    "connect": {
        "endpoint": lambda value: isinstance(value, list) and len(value) == 1,
        "from": _match(E164.pattern),
        "randomFromNumber": _flag,
        "eventType": _one_of("synchronous"),
        "timeout": _whole(3, 7200),
        "limit": _whole(1, 7200),
        "machineDetection": _one_of("continue", "hangup"),
        "advancedMachineDetection": _any_object,
        "ringbackTone": _HTTP,
        **_EVENTS,
    },
    "record": {
        "format": _one_of("mp3", "wav", "ogg"),
        "split": _one_of("conversation"),
        "channels": _whole(1, 32),
        "endOnSilence": _number(3, 10),
        "endOnKey": _match(r"[0-9*#]"),
        "timeOut": _whole(3, 7200),
        "beepStart": _flag,
        "transcription": _TRANSCRIPTION,
        **_EVENTS,
    },
    "conversation": {
        "name": _text,
        "startOnEnter": _flag,
        "endOnExit": _flag,
        "record": _flag,
        "musicOnHoldUrl": _one(_HTTP),
        "canSpeak": _LEGS,
        "canHear": _LEGS,
        "mute": _flag,
        "transcription": _TRANSCRIPTION,
        **_EVENTS,
    },
    "input": {
        "type": lambda value: (
            isinstance(value, list) and bool(value) and set(value) <= {"dtmf", "speech"}
        ),
        "mode": _one_of("synchronous", "asynchronous"),
        "dtmf": _object(
            {"timeOut": _number(0, 10), "maxDigits": _whole(1, 20), "submitOnHash": _flag}
        ),
        "speech": _object(
            {
                "uuid": _one(_text),
                "endOnSilence": _number(0.4, 10),
                "language": _LANGUAGE,
                "context": _list(_text),
                "startTimeout": _number(1, 60),
                "maxDuration": _number(1, 60),
                "saveAudio": _flag,
                "sensitivity": _whole(10, 100),
            }
        ),
        **_EVENTS,
    },
    "notify": {"payload": _any_object, **_EVENTS},
    "wait": {"timeout": _number(0.1, 7200)},
    "transfer": {
        "conversationId": _match(r"CON-.+"),
        "canHear": _LEGS,
        "canSpeak": _LEGS,
        "mute": _flag,
    },
}

REQUIRED: dict[str, tuple[str, ...]] = {
    "talk": ("text",),
    "stream": ("streamUrl",),
    "connect": ("endpoint",),
    "conversation": ("name",),
    "input": ("type",),
    "notify": ("payload", "eventUrl"),
    "transfer": ("conversationId",),
}

RULES: dict[str, tuple[tuple[Callable[[dict[str, Any]], bool], str], ...]] = {
    "connect": (
        (
            lambda a: "from" in a and a.get("randomFromNumber") is True,
            "from and randomFromNumber exclude each other",
        ),
        (
            lambda a: "eventType" in a and "eventUrl" not in a,
            "eventType asks an eventUrl for an NCCO",
        ),
    ),
    "conversation": ((lambda a: "mute" in a and "canSpeak" in a, "mute goes not with canSpeak"),),
    "record": (
        (lambda a: "channels" in a and "split" not in a, "channels want split"),
        (
            lambda a: a.get("channels", 1) > 2 and a.get("format", "wav") != "wav",
            "more than two channels are wav",
        ),
    ),
    "transfer": ((lambda a: "mute" in a and "canSpeak" in a, "mute goes not with canSpeak"),),
}

ENDPOINTS: dict[str, dict[str, Check]] = {
    "phone": {
        "number": _match(E164.pattern),
        "dtmfAnswer": _match(r"[0-9*#p]+"),
        "onAnswer": _object({"url": _HTTP, "ringbackTone": _HTTP}, "url"),
        "shaken": _text,
    },
    "app": {"user": _text},
    "vbc": {"extension": _match(r"[0-9]+")},
    "sip": {
        "uri": _match(r"sips?:\S+"),
        "headers": _any_object,
        "standardHeaders": _object({"User-to-User": _text}),
    },
    "websocket": {
        "uri": _url("wss", "ws"),
        "content-type": _match(r"audio/l16;rate=(8000|16000|24000)"),
        "headers": _ws_headers,
        "authorization": _ws_authorization,
    },
}

ENDPOINT_REQUIRED: dict[str, tuple[str, ...]] = {
    "phone": ("number",),
    "app": ("user",),
    "vbc": ("extension",),
    "sip": ("uri",),
    "websocket": ("uri", "content-type"),
}
