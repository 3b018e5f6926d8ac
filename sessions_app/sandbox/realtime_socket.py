"""The server's side of a realtime WebSocket: events out, and the ways in which it can end."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

from sessions_app.sandbox.asgi import Send
from sessions_app.sandbox.checks import WireError

# openai-garbage: what comes before every fifth good event, in turn.
_GARBAGE_EVERY: Final = 5
_GARBAGE: Final[tuple[dict[str, Any], ...]] = (
    {"text": '{"type":"response.hologram.delta","event_id":"event_x","delta":{"depth":3}}'},
    {"text": '{"type": "response.output_audio.delta", "delta": '},
    {"bytes": b"\x00\x01\x02\x03 not json"},
    {"text": '{"event_id":"event_y","note":"no type here"}'},
    {"text": "[1, 2, 3]"},
    {"text": '{"type":"conversation.item.added","event_id":"e","item":{"type":"reasoning"}}'},
)


class ClosingError(Exception):
    """The server ends the connection with this close code."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def new_id(prefix: str) -> str:
    """An id in OpenAI's style; short enough to be given back as a client's own (32 characters)."""
    return f"{prefix}_{secrets.token_hex(10)}"


class EventSocket:
    """Sends JSON events over an accepted ASGI WebSocket, in the order in which they happened."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._garbage: Iterator[dict[str, Any]] | None = None
        self._sent = 0
        self._held_until = 0.0
        self._is_frozen = False
        self._turn = asyncio.Lock()

    def send_garbage(self) -> None:
        """From now on there is garbage among the events."""
        self._garbage = itertools.cycle(_GARBAGE)

    def hold(self, seconds: float) -> None:
        """Nothing leaves for so long; then all of it does."""
        self._held_until = time.monotonic() + seconds

    def freeze(self) -> None:
        """Nothing leaves any more; the connection stays."""
        self._is_frozen = True

    async def emit(self, kind: str, **fields: Any) -> None:
        """Sends one event of this ``type`` with a new ``event_id``."""
        # As it is now: what it tells of may change while it waits for its turn.
        text = json.dumps({"type": kind, "event_id": new_id("event")} | fields)
        async with self._turn:
            await asyncio.sleep(max(0.0, self._held_until - time.monotonic()))
            if self._is_frozen:
                return
            self._sent += 1
            if self._garbage is not None and self._sent % _GARBAGE_EVERY == 0:
                await self._send({"type": "websocket.send"} | next(self._garbage))
            await self._send({"type": "websocket.send", "text": text})

    async def error(self, error: WireError, client_event_id: str | None = None) -> None:
        """Sends an ``error`` event; ``client_event_id`` is that of the event it is about."""
        await self.emit(
            "error",
            error={
                "type": error.kind,
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": client_event_id,
            },
        )

    async def close(self, code: int, reason: str = "") -> None:
        """Closes the WebSocket."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
