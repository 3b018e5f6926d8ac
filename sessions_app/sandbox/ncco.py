"""Reading an NCCO as strictly as its documents allow: what real Vonage might forgive is an error
here.

The sandbox has its own reader on purpose: one shared with the product would share its mistakes.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sessions_app.sandbox.checks import (
    Check,
    WireError,
    array,
    boolean,
    either,
    free_object,
    integer,
    nullable,
    number,
    one_of,
    record,
    string,
    tagged,
)

Action = dict[str, Any]

RATES_HZ: Final = (8000, 16000, 24000)
_HEADERS_BYTES: Final = 512
_RESERVED_HEADERS: Final = frozenset({"event", "content-type"})
_TEXT: Final = string(1, 1500)
_METHOD: Final = one_of("GET", "POST")


class NccoError(Exception):
    """The NCCO is not one: says where and what was wanted."""


def _url(*schemes: str) -> Check:
    def check(value: Any, path: str) -> None:
        string(1, 2048)(value, path)
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise WireError("", f"'{path}': wanted a URL of {'/'.join(schemes)}")

    return check


def _number(value: Any, path: str) -> None:
    string(3, 15)(value, path)
    if not value.isdigit():
        raise WireError("", f"'{path}': wanted E.164 digits without '+'")


def _one(check: Check) -> Check:
    def checked(value: Any, path: str) -> None:
        array(check, 1)(value, path)
        if not value:
            raise WireError("", f"'{path}': wanted an array of one")

    return checked


def _headers(value: Any, path: str) -> None:
    free_object(value, path)
    if len(json.dumps(value).encode()) > _HEADERS_BYTES:
        raise WireError("", f"'{path}': more than {_HEADERS_BYTES} bytes")
    if _RESERVED_HEADERS & value.keys():
        raise WireError("", f"'{path}': 'event' and 'content-type' are Vonage's own")


_HTTP = _one(_url("http", "https"))
_EVENTS: Final[dict[str, Check]] = {"eventUrl": _HTTP, "eventMethod": _METHOD}
_ENDPOINT = tagged(
    {
        "websocket": record(
            {
                "type": string(),
                "uri": _url("ws", "wss"),
                "content-type": one_of(*(f"audio/l16;rate={rate}" for rate in RATES_HZ)),
                "headers": _headers,
                "authorization": tagged(
                    {
                        "vonage": record({"type": string()}),
                        "custom": record({"type": string(), "value": string(1, 8191)}, ("value",)),
                    }
                ),
            },
            required=("uri", "content-type"),
        ),
        "phone": record(
            {"type": string(), "number": _number, "dtmfAnswer": string(), "onAnswer": free_object},
            required=("number",),
        ),
        "sip": record(
            {
                "type": string(),
                "uri": _url("sip", "sips"),
                "headers": free_object,
                "standardHeaders": free_object,
            },
            required=("uri",),
        ),
        "app": record({"type": string(), "user": string(1)}, required=("user",)),
        "vbc": record({"type": string(), "extension": string(1)}, required=("extension",)),
    }
)
_SPEECH: Final[dict[str, Check]] = {
    "level": number(-1, 1),
    "loop": integer(0, 1000),
    "bargeIn": boolean,
}
_ACTION: Final[dict[str, Check]] = {"action": string()}


def _action(fields: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    return record(_ACTION | fields, required)


_ACTIONS = tagged(
    {
        "talk": _action(
            {
                "text": _TEXT,
                "language": string(2, 20),
                "style": integer(0, 100),
                "premium": boolean,
            }
            | _SPEECH,
            ("text",),
        ),
        "stream": _action({"streamUrl": _HTTP} | _SPEECH, ("streamUrl",)),
        "wait": _action({"timeout": number(0.1, 7200)}),
        "connect": _action(
            {
                "endpoint": _one(_ENDPOINT),
                "from": _number,
                "randomFromNumber": boolean,
                "eventType": one_of("synchronous"),
                "timeout": integer(1, 7200),
                "limit": integer(1, 7200),
                "machineDetection": one_of("continue", "hangup"),
                "advancedMachineDetection": free_object,
                "ringbackTone": _url("http", "https"),
            }
            | _EVENTS,
            ("endpoint",),
        ),
        "record": _action(
            {
                "format": one_of("mp3", "wav", "ogg"),
                "split": one_of("conversation"),
                "channels": integer(1, 32),
                "endOnSilence": number(3, 10),
                "endOnKey": string(1, 1),
                "timeOut": integer(3, 7200),
                "beepStart": boolean,
                "transcription": free_object,
            }
            | _EVENTS
        ),
        "conversation": _action(
            {
                "name": string(1, 200),
                "startOnEnter": boolean,
                "endOnExit": boolean,
                "record": boolean,
                "musicOnHoldUrl": _HTTP,
                "canSpeak": array(string()),
                "canHear": array(string()),
                "mute": boolean,
                "transcription": free_object,
            }
            | _EVENTS,
            ("name",),
        ),
        "input": _action(
            {
                "type": array(one_of("dtmf", "speech"), 2),
                "mode": one_of("synchronous", "asynchronous"),
                "dtmf": free_object,
                "speech": free_object,
            }
            | _EVENTS,
            ("type",),
        ),
        "notify": _action({"payload": free_object} | _EVENTS, ("payload", "eventUrl")),
        "transfer": _action(
            {
                "conversationId": string(1),
                "canSpeak": array(string()),
                "canHear": array(string()),
                "mute": boolean,
            },
            ("conversationId",),
        ),
    },
    tag="action",
)
_NCCO = either((list, array(_ACTIONS, 100)))


def read(body: bytes | str) -> list[Action]:
    """The actions of an NCCO. Raises ``NccoError``."""
    try:
        ncco = json.loads(body)
    except ValueError as error:
        raise NccoError("the NCCO is not JSON") from error
    return checked(ncco)


def checked(ncco: Any) -> list[Action]:
    """The same for an NCCO that is already parsed (as in a transfer by REST)."""
    try:
        nullable(_NCCO)(ncco, "ncco")
    except WireError as error:
        raise NccoError(error.message) from error
    return list(ncco or [])


def rate_hz(endpoint: dict[str, Any]) -> int:
    """The sample rate of a websocket endpoint."""
    return int(endpoint["content-type"].rpartition("=")[2])
