"""How a sandbox behaves: its keys, its tempo, and what it tells a test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.strikes import Strikes

# Called in the sandbox's own thread with the value of the X-Sandbox-Call header ("" when absent)
# and the event.
ClientEventHook = Callable[[str, dict[str, Any]], None]
# Called in the sandbox's own thread: lets a fault strike the server beside which it runs.
OwnSide = Callable[[Fault], None]

_KEPT_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast the stand-ins are. The defaults are those of the real services, roughly."""

    thinking_s: float = 0.25
    """From ``response.created`` to the first delta."""
    burst: float = 8.0
    """Speech is sent this many times faster than it is heard."""
    transcription_s: tuple[float, ...] = (0.15, 0.9)
    """How late the transcript of a caller's turn comes, in rotation: before and after the answer
    has begun.
    """
    slow_s: float = 3.0
    """``openai-slow``: how long nothing is said, at the start before ``session.created``."""
    expires_s: float = 6.0
    """``openai-expires``: how long a session lives."""
    rest_slow_s: float = 6.0
    """``rest-slow``: the wait before REST does what it was asked."""
    tts_slow_s: float = 6.0
    """``tts-slow``: the wait before the first byte of speech."""
    stall_s: float = 60.0
    """``tts-stalls``: how long the stalled connection is held."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What is accepted. An empty value accepts anything well formed."""

    openai: str = ""
    speechmatics: str = ""
    vonage_application_id: str = ""
    vonage_public_key: str = ""
    """PEM; without it an application JWT is decoded but its signature is not checked."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request (or handshake) as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Context:
    """What every piece of one sandbox shares."""

    tempo: Tempo = field(default_factory=Tempo)
    keys: Keys = field(default_factory=Keys)
    on_client_event: ClientEventHook | None = None
    own_side: OwnSide | None = None
    strikes: Strikes = field(default_factory=Strikes)
    requests: deque[Recorded] = field(default_factory=lambda: deque(maxlen=_KEPT_REQUESTS))
