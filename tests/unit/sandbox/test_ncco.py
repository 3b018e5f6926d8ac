from __future__ import annotations

import json
from typing import Any

import pytest

from sessions_app.sandbox.ncco import NccoError, checked, rate_hz, read

SOCKET: dict[str, Any] = {
    "type": "websocket",
    "uri": "wss://app.example/media/ticket",
    "content-type": "audio/l16;rate=16000",
    "headers": {"call": "abc"},
    "authorization": {"type": "vonage"},
}
CONNECT: dict[str, Any] = {
    "action": "connect",
    "eventType": "synchronous",
    "eventUrl": ["https://app.example/event"],
    "eventMethod": "POST",
    "from": "447700900000",
    "limit": 3300,
    "endpoint": [SOCKET],
}


def connect(**changes: Any) -> dict[str, Any]:
    return CONNECT | {"endpoint": [SOCKET | changes]}


@pytest.mark.parametrize(
    "action",
    [
        CONNECT,
        {"action": "talk", "text": "Hello", "language": "en-GB", "premium": True},
        {"action": "stream", "streamUrl": ["https://app.example/a.mp3"], "loop": 0},
        {"action": "wait", "timeout": 0.5},
        {"action": "record", "format": "mp3", "split": "conversation", "channels": 2},
        {"action": "conversation", "name": "room", "endOnExit": True},
        {"action": "notify", "payload": {"a": 1}, "eventUrl": ["https://app.example/e"]},
        CONNECT | {"endpoint": [{"type": "phone", "number": "442079460001"}]},
        connect(authorization={"type": "custom", "value": "Bearer x"}),
    ],
)
def test_documented_actions_are_taken(action: dict[str, Any]) -> None:
    assert read(json.dumps([action])) == [action]


@pytest.mark.parametrize(
    ("action", "where"),
    [
        ({"action": "hangup"}, "hangup"),
        ({"action": "talk", "txt": "typo"}, "ncco[0].text"),
        ({"action": "talk", "text": "a", "voiceName": "Amy"}, "voiceName"),
        ({"action": "talk", "text": "a" * 1501}, "ncco[0].text"),
        ({"action": "stream", "streamUrl": "https://x/y"}, "streamUrl"),
        (CONNECT | {"endpoint": [SOCKET, SOCKET]}, "endpoint"),
        (CONNECT | {"endpoint": []}, "endpoint"),
        (CONNECT | {"limit": 7201}, "limit"),
        (CONNECT | {"from": "+447700900000"}, "from"),
        (CONNECT | {"eventUrl": "https://x/y"}, "eventUrl"),
        (connect(uri="http://app.example/media"), "uri"),
        (connect(**{"content-type": "audio/l16;rate=44100"}), "44100"),
        (connect(contentType="audio/l16;rate=16000"), "contentType"),
        (connect(headers={"k": "v" * 512}), "512 bytes"),
        (connect(headers={"event": "x"}), "headers"),
        (connect(authorization={"type": "basic"}), "basic"),
        ({"text": "no action"}, "action"),
        ("talk", "ncco[0]"),
    ],
)
def test_anything_else_is_refused_and_says_where(action: Any, where: str) -> None:
    with pytest.raises(NccoError) as caught:
        checked([action])
    assert where in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'"talk"'])
def test_what_is_no_array_is_no_ncco(body: bytes) -> None:
    with pytest.raises(NccoError):
        read(body)


def test_the_rate_is_that_of_the_content_type() -> None:
    assert rate_hz(SOCKET) == 16000
