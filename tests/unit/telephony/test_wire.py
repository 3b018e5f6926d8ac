"""The media WebSocket's wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessions_app.telephony.vonage import wire

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
EVENTS = st.sampled_from(
    ["connected", "dtmf", "cleared", "notify", "media:update", "disconnected", "hangup"]
).map("websocket:{}".format)


def decoded(message: Any) -> wire.MediaMessage:
    return wire.decode_text(json.dumps(message))


@pytest.mark.parametrize(("rate_hz", "size"), [(8000, 320), (16000, 640), (24000, 960)])
def test_a_frame_is_twenty_milliseconds_of_sixteen_bit_mono(rate_hz: int, size: int) -> None:
    assert wire.frame_bytes(rate_hz) == size


@pytest.mark.parametrize("rate_hz", [0, -8000, 11025, 44100, 48000])
def test_a_rate_vonage_does_not_speak_is_refused(rate_hz: int) -> None:
    for function in (wire.frame_bytes, wire.content_type):
        with pytest.raises(ValueError, match=str(rate_hz)):
            function(rate_hz)


def test_connected_brings_the_format_and_our_headers_from_the_top_level() -> None:
    raw = (
        ' {"event":"websocket:connected","content-type":"audio/l16;rate=16000",'
        '"call_id":"abc","tenant":"t1"}'
    )
    assert wire.decode_text(raw) == wire.Connected(
        "audio/l16;rate=16000", 16000, {"call_id": "abc", "tenant": "t1"}
    )


@pytest.mark.parametrize(
    ("content_type", "rate_hz"),
    [
        ("audio/l16;rate=8000", 8000),
        ("audio/l16; rate=24000", 24000),
        ("Audio/L16; channels=1; rate=16000", 16000),
        ("audio/l16;rate=16000;channels=1", 16000),
    ],
)
def test_spellings_of_the_same_format_are_understood(content_type: str, rate_hz: int) -> None:
    message = decoded({"event": "websocket:connected", "content-type": content_type})
    assert isinstance(message, wire.Connected)
    assert message.rate_hz == rate_hz


@pytest.mark.parametrize("rate_hz", wire.RATES_HZ)
def test_the_format_we_ask_for_is_the_format_we_read(rate_hz: int) -> None:
    message = decoded({"event": "websocket:connected", "content-type": wire.content_type(rate_hz)})
    assert message == wire.Connected(wire.content_type(rate_hz), rate_hz, {})


@pytest.mark.parametrize(
    "content_type",
    [None, 16000, "", "audio/l16", "audio/l16;rate=44100", "audio/mulaw;rate=8000", "rate=8000"],
)
def test_connected_with_another_format_is_malformed(content_type: object) -> None:
    message = decoded({"event": "websocket:connected", "content-type": content_type})
    assert isinstance(message, wire.Malformed)
    assert "content-type" in message.reason


@pytest.mark.parametrize("digit", "0123456789*#ABCD")
def test_every_key_of_a_phone_is_read(digit: str) -> None:
    message = {"event": "websocket:dtmf", "digit": digit, "duration": 260}
    assert decoded(message) == wire.Dtmf(digit, 260)


def test_the_shorter_form_of_a_key_press_is_read_too() -> None:
    assert decoded({"dtmf": {"digit": "5"}}) == wire.Dtmf("5", 0)


@pytest.mark.parametrize("duration", [None, "260", True, -1, 10**30, {}])
def test_a_key_press_with_a_strange_duration_still_counts(duration: object) -> None:
    message = {"event": "websocket:dtmf", "digit": "5", "duration": duration}
    assert decoded(message) == wire.Dtmf("5", 0)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_key_press_with_an_endless_duration_still_counts(literal: str) -> None:
    raw = f'{{"event":"websocket:dtmf","digit":"5","duration":{literal}}}'
    assert wire.decode_text(raw) == wire.Dtmf("5", 0)


@pytest.mark.parametrize("digit", ["", "12", "E", "x", "٣", 5, None, ["5"]])
def test_what_is_no_key_is_malformed_and_not_repeated(digit: object) -> None:
    message = decoded({"event": "websocket:dtmf", "digit": digit, "duration": 260})
    assert message == wire.Malformed("dtmf: no digit of 0-9*#A-D")


def test_the_other_known_events_are_read() -> None:
    assert decoded({"event": "websocket:cleared"}) == wire.Cleared()
    assert decoded({"event": "websocket:notify", "payload": {"a": 1}}) == wire.Notified({"a": 1})
    muted = {"event": "websocket:media:update", "method": "update", "active": False}
    assert decoded(muted) == wire.MediaUpdate(active=False)
    assert decoded(muted | {"active": True}) == wire.MediaUpdate(active=True)


@pytest.mark.parametrize(
    "message",
    [
        {"event": "websocket:notify"},
        {"event": "websocket:notify", "payload": "mark"},
        {"event": "websocket:media:update"},
        {"event": "websocket:media:update", "active": "false"},
        {"event": None},
        {"event": 3},
        {},
        {"dtmf": "5"},
        [],
        "websocket:cleared",
        None,
    ],
)
def test_messages_without_what_they_need_are_malformed(message: object) -> None:
    assert isinstance(decoded(message), wire.Malformed)


def test_an_event_of_the_future_is_unknown_and_its_name_kept_short() -> None:
    assert decoded({"event": "websocket:hangup"}) == wire.Unknown("websocket:hangup")
    message = decoded({"event": "x" * 5000})
    assert message == wire.Unknown("x" * 64)


@pytest.mark.parametrize("raw", ["", " ", "{", "\x00", '{"event":', "\ufeff{}"])
def test_what_is_not_json_is_malformed(raw: str) -> None:
    assert wire.decode_text(raw) == wire.Malformed("not JSON")


def test_the_length_is_bounded_in_bytes() -> None:
    def of_length(filler: str, count: int) -> str:
        return json.dumps({"event": "e", "x": filler * count}, ensure_ascii=False)

    frame = len(of_length("", 0))
    assert wire.decode_text(of_length("x", 8192 - frame)) == wire.Unknown("e")
    assert isinstance(wire.decode_text(of_length("x", 8193 - frame)), wire.Malformed)
    assert isinstance(wire.decode_text(of_length("é", 8190 // 2)), wire.Malformed)


def test_deep_nesting_is_malformed_and_no_recursion_error() -> None:
    assert isinstance(wire.decode_text("[" * 8000), wire.Malformed)
    assert isinstance(wire.decode_text('{"a":' * 1600), wire.Malformed)


@settings(deadline=None)
@given(st.text())
@example("\ud800")
@example('{"event":"websocket:dtmf","digit":"5","duration":' + "9" * 5000 + "}")
def test_no_text_whatever_makes_it_raise(raw: str) -> None:
    wire.decode_text(raw)


@settings(deadline=None)
@given(EVENTS, st.dictionaries(st.text() | st.sampled_from(["digit", "payload"]), JSON_VALUES))
def test_no_fields_whatever_make_it_raise(event: str, fields: dict[str, Any]) -> None:
    message = decoded(fields | {"event": event})
    assert not isinstance(message, wire.Unknown) or message.event == event


def test_clear_is_the_documented_command() -> None:
    assert json.loads(wire.clear()) == {"action": "clear"}


@settings(deadline=None)
@given(st.text(max_size=50))
def test_a_mark_comes_back_from_its_echo(mark: str) -> None:
    command = json.loads(wire.notify(mark))
    assert command["action"] == "notify"
    echo = decoded({"event": "websocket:notify", "payload": command["payload"]})
    assert isinstance(echo, wire.Notified)
    assert wire.mark_of(echo) == mark


@pytest.mark.parametrize("payload", [{}, {"mark": 3}, {"mark": None}, {"other": "m"}])
def test_a_payload_that_is_not_ours_has_no_mark(payload: dict[str, Any]) -> None:
    assert wire.mark_of(wire.Notified(payload)) is None
