"""The rules themselves must be able to fail."""

from __future__ import annotations

from typing import Any

import pytest

from .ncco_rules import validate

TALK: dict[str, Any] = {"action": "talk", "text": "Hello"}
WEBSOCKET: dict[str, Any] = {
    "type": "websocket",
    "uri": "wss://calls.example/media",
    "content-type": "audio/l16;rate=16000",
}
CONNECT: dict[str, Any] = {"action": "connect", "endpoint": [WEBSOCKET]}
PHONE: dict[str, Any] = {"type": "phone", "number": "447700900123"}


@pytest.mark.parametrize(
    "flow",
    [
        [TALK],
        [TALK | {"language": "en-GB", "style": 2, "premium": True, "level": 0.5, "loop": 0}],
        [{"action": "record", "split": "conversation", "channels": 2, "format": "mp3"}, CONNECT],
        [TALK, CONNECT],
        [CONNECT | {"endpoint": [WEBSOCKET | {"authorization": {"type": "vonage"}}]}],
        [CONNECT | {"endpoint": [PHONE], "from": "442079460000", "timeout": 30}],
        [TALK | {"bargeIn": True}, {"action": "input", "type": ["dtmf"]}],
        [{"action": "wait", "timeout": 0.5}],
        [{"action": "notify", "payload": {}, "eventUrl": ["https://calls.example/e"]}],
        [{"action": "conversation", "name": "c", "endOnExit": True}],
        [{"action": "transfer", "conversationId": "CON-1"}],
    ],
)
def test_what_the_reference_allows_passes(flow: list[Any]) -> None:
    assert validate(flow) == []


@pytest.mark.parametrize(
    ("flow", "problem"),
    [
        ([], "at least one"),
        ({"action": "talk"}, "list"),
        (["talk"], "object"),
        ([{"action": "hangup"}], "unknown action"),
        ([{"action": "pay"}], "unknown action"),
        ([{"action": "talk"}], "text is missing"),
        ([TALK | {"txt": "typo"}], "txt is not a known key"),
        ([TALK | {"text": "x" * 1501}], "text has a value"),
        ([TALK | {"language": "en_GB"}], "language"),
        ([TALK | {"level": 2}], "level"),
        ([CONNECT, TALK], "as soon as the socket is up"),
        ([CONNECT | {"from_": "442079460000"}], "from_ is not a known key"),
        ([CONNECT | {"from": "+442079460000"}], "from has a value"),
        ([CONNECT | {"limit": 7201}], "limit"),
        ([CONNECT | {"eventType": "synchronous"}], "eventType asks"),
        ([CONNECT | {"eventUrl": "https://calls.example/e"}], "eventUrl"),
        ([CONNECT | {"endpoint": WEBSOCKET}], "endpoint"),
        ([CONNECT | {"endpoint": [WEBSOCKET, PHONE]}], "endpoint"),
        ([CONNECT | {"endpoint": [WEBSOCKET | {"uri": "https://x.example"}]}], "uri"),
        ([CONNECT | {"endpoint": [WEBSOCKET | {"contentType": "x"}]}], "contentType"),
        ([CONNECT | {"endpoint": [WEBSOCKET | {"content-type": "audio/l16"}]}], "content-type"),
        ([CONNECT | {"endpoint": [WEBSOCKET | {"headers": {"k": "v" * 600}}]}], "headers"),
        ([CONNECT | {"endpoint": [WEBSOCKET | {"authorization": {"type": "x"}}]}], "authoriz"),
        ([CONNECT | {"endpoint": [{"type": "fax"}]}], "unknown type"),
        ([CONNECT | {"endpoint": [PHONE | {"number": "07700"}]}], "number"),
        ([TALK | {"bargeIn": True}, CONNECT], "bargeIn"),
        ([{"action": "record", "channels": 3}], "channels want split"),
        ([{"action": "wait", "timeout": 0}], "timeout"),
        ([{"action": "input", "type": "dtmf"}], "type"),
        ([{"action": "notify", "payload": {}}], "eventUrl is missing"),
        ([TALK | {"level": float("nan")}], "not JSON"),
    ],
)
def test_what_it_does_not_allow_is_told(flow: Any, problem: str) -> None:
    assert any(problem in line for line in validate(flow)), validate(flow)
