"""The media WebSocket's wire: what Vonage says in text frames, and what may be said back.

Binary frames are the audio itself and pass through here untouched: signed 16-bit little-endian mono
PCM, exactly one 20 ms frame in each message, both ways (Voice API, "WebSockets" guide). Pure: no
socket.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

FRAME_MS: Final = 20
RATES_HZ: Final = (8000, 16000, 24000)
MAX_TEXT_BYTES: Final = 8 * 1024

_MAX_NAME_CHARS: Final = 64
_MAX_TONE_MS: Final = 60_000
_DIGITS: Final = frozenset("0123456789*#ABCD")
_L16: Final = re.compile(r"\s*audio/l16\s*(?:;[^;]*)*?;\s*rate\s*=\s*([0-9]{1,6})\s*(?:;.*)?", re.I)
_OWN_NAMES: Final = frozenset({"event", "content-type"})
_CLEAR: Final = '{"action":"clear"}'


@dataclass(frozen=True, slots=True)
class Connected:
    """`websocket:connected`, the first text frame: the audio's format and our own NCCO headers.

    Vonage puts the `headers` of the NCCO's endpoint at top level, beside `event`.
    """

    content_type: str
    rate_hz: int
    headers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dtmf:
    """One key pressed by the caller: one of `0-9*#A-D`, and how long it sounded (0: unknown)."""

    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """`websocket:cleared`: our `clear` was carried out. Not to be relied on: it may never come."""


@dataclass(frozen=True, slots=True)
class Notified:
    """`websocket:notify`: all audio queued before our `notify` was played; here is its payload."""

    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MediaUpdate:
    """`websocket:media:update`: while not `active` (muted leg) Vonage forwards no audio to us."""

    active: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a kind not known here, to be passed over."""

    event: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that cannot be understood. The reason never holds any of its content."""

    reason: str


MediaMessage = Connected | Dtmf | Cleared | Notified | MediaUpdate | Unknown | Malformed


def frame_bytes(rate_hz: int) -> int:
    """Bytes of one 20 ms frame at `rate_hz`: 320, 640 or 960. ValueError for any other rate."""
    if rate_hz not in RATES_HZ:
        raise ValueError(f"read a media rate of {rate_hz!r} Hz, wanted one of {RATES_HZ}")
    return rate_hz * FRAME_MS // 1000 * 2


def content_type(rate_hz: int) -> str:
    """How this wire's audio is named in an NCCO. ValueError for a rate Vonage does not offer."""
    if rate_hz not in RATES_HZ:
        raise ValueError(f"read a media rate of {rate_hz!r} Hz, wanted one of {RATES_HZ}")
    return f"audio/l16;rate={rate_hz}"


def decode_text(raw: str) -> MediaMessage:
    """Read one text frame. Never raises: whatever cannot be read is `Malformed`.

    Leading white space is harmless (Vonage's WebSocket leg has put a space before its JSON).
    """
    if len(raw) > MAX_TEXT_BYTES or len(raw.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        return Malformed(f"longer than {MAX_TEXT_BYTES} bytes")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return Malformed("not JSON")
    if not isinstance(message, dict):
        return Malformed("JSON, but not an object")
    return _decode(message)


def clear() -> str:
    """The command that drops what Vonage has queued and stops what it is playing."""
    return _CLEAR


def notify(mark_id: str) -> str:
    """The command that asks for a `Notified` once everything sent so far has been played."""
    return json.dumps({"action": "notify", "payload": {"mark": mark_id}}, separators=(",", ":"))


def mark_of(message: Notified) -> str | None:
    """The mark given to `notify`, or None if this payload is not one of ours."""
    mark = message.payload.get("mark")
    return mark if isinstance(mark, str) else None


def _decode(message: dict[str, Any]) -> MediaMessage:
    event = message.get("event")
    match event:
        case "websocket:connected":
            return _connected(message)
        case "websocket:dtmf":
            return _dtmf(message)
        case "websocket:cleared":
            return Cleared()
        case "websocket:notify":
            payload = message.get("payload")
            if isinstance(payload, dict):
                return Notified(payload)
            return Malformed("notify: no payload")
        case "websocket:media:update":
            active = message.get("active")
            if isinstance(active, bool):
                return MediaUpdate(active)
            return Malformed("media:update: no true or false in `active`")
        case str():
            return Unknown(event[:_MAX_NAME_CHARS])
        case None if isinstance(message.get("dtmf"), dict):
            # Not in Vonage's guide, but seen in the field.
            return _dtmf(message["dtmf"])
    return Malformed("no event name")


def _connected(message: dict[str, Any]) -> Connected | Malformed:
    read = message.get("content-type")
    found = _L16.fullmatch(read) if isinstance(read, str) else None
    if found is None or int(found[1]) not in RATES_HZ:
        return Malformed("connected: content-type is not audio/l16;rate=8000, 16000 or 24000")
    headers = {name: value for name, value in message.items() if name not in _OWN_NAMES}
    return Connected(found[0], int(found[1]), headers)


def _dtmf(message: dict[str, Any]) -> Dtmf | Malformed:
    digit = message.get("digit")
    if not isinstance(digit, str) or digit.upper() not in _DIGITS:
        # The digit itself stays out: what callers type may be a card's number.
        return Malformed("dtmf: no digit of 0-9*#A-D")
    return Dtmf(digit.upper(), _tone_ms(message.get("duration")))


def _tone_ms(duration: object) -> int:
    if isinstance(duration, bool) or not isinstance(duration, int | float):
        return 0
    # The comparison is false for NaN as well, which Python's JSON reader lets through.
    return int(duration) if 0 <= duration <= _MAX_TONE_MS else 0
