"""Builders of NCCOs, the JSON call flows that Vonage runs.

They return plain lists of dicts, ready for JSON. The SDK's models are not used: they insist on a
`from` and leave addresses unchecked. An NCCO that Vonage cannot read is a caller listening to
silence, so where an operator's words are wrong (language, length, a person's number) the builders
mend or leave out; only what the program itself decides (addresses, headers, rate) is refused with
ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from .wire import content_type

Ncco = list[dict[str, Any]]

DEFAULT_LANGUAGE: Final = "en-US"
APOLOGY: Final = "Sorry, we cannot take your call right now. Please try again in a few minutes."
APOLOGY_WITH_PERSON: Final = "Sorry to keep you. I am putting you through to one of our team."
NOBODY: Final = "Sorry, nobody can take your call right now. Please call again later. Goodbye."
GOODBYE: Final = "Thank you for calling. Goodbye."

MAX_TALK_CHARS: Final = 1500
MAX_HEADERS_BYTES: Final = 512
MAX_URI_CHARS: Final = 2048
MAX_LIMIT_S: Final = 7200
PERSON_RING_S: Final = 30

_E164: Final = re.compile(r"\+?([1-9][0-9]{6,14})")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
# They stand beside our headers in `websocket:connected`: one of ours by that name would be lost.
_RESERVED_HEADERS: Final = frozenset({"event", "content-type"})


def connect_media(
    *,
    uri: str,
    rate_hz: int,
    event_url: str,
    headers: Mapping[str, str],
    caller_id: str | None,
    limit_s: int,
) -> Ncco:
    """Connect the caller to our media WebSocket.

    `event_url` may answer `unanswered`, `failed` and `disconnected` with another NCCO, which is why
    the connect is synchronous. Nothing stands behind the connect: Vonage would run it as soon as
    the socket is up. `headers` come back in `websocket:connected`, at most 512 bytes of JSON.
    `caller_id` is one of our numbers; it is left out unless it is E.164. `limit_s` is kept within
    Vonage's 1 to 7200 seconds.
    """
    endpoint = {
        "type": "websocket",
        "uri": _url(uri, schemes=("wss", "ws")),
        "content-type": content_type(rate_hz),
        "headers": _headers(headers),
        # Asks for a handshake signed like the webhooks.
        "authorization": {"type": "vonage"},
    }
    connect: dict[str, Any] = {
        "action": "connect",
        "eventType": "synchronous",
        "eventUrl": [_url(event_url, schemes=("https", "http"))],
        "eventMethod": "POST",
        "limit": max(1, min(limit_s, MAX_LIMIT_S)),
        "endpoint": [endpoint],
    }
    return [connect | _from(caller_id)]


@dataclass(frozen=True, slots=True)
class Person:
    """A human to be rung for 30 s. `event_url` is asked what comes next if nobody answers."""

    number: str
    #: The number of ours that the person sees; left out unless it is E.164.
    caller_id: str
    event_url: str


def apology(text: str, language: str, person: Person | None) -> Ncco:
    """Say `text`; then, if there is a person whose number is E.164, ring them."""
    number = e164(person.number) if person else None
    talk = _talk(text.strip() or (APOLOGY_WITH_PERSON if number else APOLOGY), language)
    if person is None or number is None:
        return [talk]
    connect: dict[str, Any] = {
        "action": "connect",
        # Words behind it in the flow would be spoken as soon as the person answers.
        "eventType": "synchronous",
        "eventUrl": [_url(person.event_url, schemes=("https", "http"))],
        "eventMethod": "POST",
        "timeout": PERSON_RING_S,
        "endpoint": [{"type": "phone", "number": number}],
    }
    return [talk, connect | _from(person.caller_id)]


def say(text: str, language: str) -> Ncco:
    """Say `text`, which must not be empty, and go on."""
    return [_talk(text, language)]


def notify(event_url: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Ask `event_url` what comes next: an NCCO in its reply takes the place of this one, without
    any the flow goes on.
    """
    return {
        "action": "notify",
        "payload": dict(payload),
        "eventUrl": [_url(event_url, schemes=("https", "http"))],
        "eventMethod": "POST",
    }


def goodbye(text: str, language: str) -> Ncco:
    """Say `text` and let the flow run out, which ends the call: NCCOs have no hang-up action."""
    return [_talk(text.strip() or GOODBYE, language)]


def e164(number: str | None) -> str | None:
    """`number` the way Vonage wants it, E.164 without its "+"; None if it is not E.164 at all."""
    found = _E164.fullmatch(number or "")
    return found[1] if found else None


def _talk(text: str, language: str) -> dict[str, Any]:
    """Say plain words, at most 1500 characters; a language that is no BCP-47 tag becomes en-US."""
    spoken = language if _LANGUAGE.fullmatch(language) else DEFAULT_LANGUAGE
    return {"action": "talk", "text": text[:MAX_TALK_CHARS], "language": spoken}


def _from(number: str | None) -> dict[str, str]:
    valid = e164(number)
    return {"from": valid} if valid else {}


def _url(url: str, *, schemes: tuple[str, ...]) -> str:
    # The address itself stays out of the error: its path may be a ticket.
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or len(url) > MAX_URI_CHARS:
        raise ValueError(
            f"read an address of scheme {parts.scheme!r} and {len(url)} characters, "
            f"wanted {' or '.join(schemes)}, a host and at most {MAX_URI_CHARS} characters"
        )
    return url


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    reserved = _RESERVED_HEADERS.intersection(headers)
    if reserved:
        raise ValueError(f"read headers named {sorted(reserved)}, which Vonage uses itself")
    # Measured in the longest spelling (spaces, escapes), so that it holds whoever writes the JSON.
    size = len(json.dumps(dict(headers)))
    if size > MAX_HEADERS_BYTES:
        raise ValueError(f"read headers of {size} bytes, wanted at most {MAX_HEADERS_BYTES}")
    return dict(headers)
