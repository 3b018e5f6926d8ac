from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.ncco import complaints


def connect(endpoint: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    whole = {
        "type": "websocket",
        "uri": "wss://example.com/media/abcdefgh12345678",
        "content-type": "audio/l16;rate=16000",
        "headers": {"call": "1"},
        "authorization": {"type": "vonage"},
        **(endpoint or {}),
    }
    return {
        "action": "connect",
        "eventType": "synchronous",
        "eventUrl": ["https://example.com/event"],
        "from": "442079460000",
        "endpoint": [{key: value for key, value in whole.items() if value is not None}],
        **more,
    }


TALK = {"action": "talk", "text": "One moment."}


@pytest.mark.parametrize(
    "ncco",
    [
        [connect()],
        [TALK, connect()],
        [{**TALK, "language": "en-GB", "style": 2, "premium": True, "bargeIn": False}],
        [{"action": "connect", "endpoint": [{"type": "phone", "number": "447700900000"}]}],
        [{"action": "stream", "streamUrl": ["https://example.com/hold.mp3"], "loop": 0}],
        [{"action": "record", "format": "mp3", "split": "conversation", "channels": 2}],
        [{"action": "wait", "timeout": 0.5}],
        [{"action": "input", "type": ["dtmf"], "dtmf": {"maxDigits": 1}}],
        [],
    ],
)
def test_documented_nccos_are_clean(ncco: list[dict[str, Any]]) -> None:
    assert complaints(ncco) == []


@pytest.mark.parametrize(
    ("ncco", "part"),
    [
        ({"action": "talk"}, "array"),
        ([{"action": "hangup"}], "unknown action"),
        ([{"action": "talk", "txt": "hello"}], "unknown key 'txt'"),
        ([{"action": "talk", "text": "x" * 1501}], "1500"),
        ([{"action": "talk", "text": " "}], "text"),
        ([connect(), TALK], "plays at once"),
        ([connect({"uri": "wss://example.com/media?ticket=abcdefgh1234"})], "query"),
        ([connect({"uri": "wss://example.com/media/"})], "ticket"),
        ([connect({"uri": "https://example.com/media/abcdefgh"})], "ws(s)"),
        ([connect({"content-type": "audio/l16;rate=44100"})], "content-type"),
        ([connect({"content-type": None})], "content-type is missing"),
        ([connect({"contentType": "audio/l16;rate=16000"})], "contentType"),
        ([connect({"headers": {"k": "x" * 512}})], "512 bytes"),
        ([connect({"headers": {"event": "1"}})], "overwrites"),
        ([connect({"authorization": {"type": "jwt"}})], "no known form"),
        ([connect({"authorization": None})], "authorization is missing"),
        ([connect(eventType="asynchronous")], "eventType"),
        ([connect(eventUrl="https://example.com")], "eventUrl"),
        ([connect(limit=7201)], "limit"),
        ([{**connect(), "from": "+442079460000"}], "without a plus"),
        ([{"action": "connect", "endpoint": [{"type": "fax"}]}], "unknown endpoint"),
        ([{"action": "connect", "endpoint": []}], "array of one"),
    ],
)
def test_everything_else_is_told(ncco: object, part: str) -> None:
    assert part in " ".join(complaints(ncco))
