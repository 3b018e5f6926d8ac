"""The WebSocket leg of a simulated call: Vonage is the client, frames are exactly 20 ms, commands
are text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from enum import StrEnum
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from sessions_app.sandbox.ncco import rate_hz
from sessions_app.sandbox.phone import Mark, Phone, frame_bytes

_OPEN_S: Final = 6.0
_SEND_S: Final = 10.0
_CLOSE_S: Final = 2.0
_TEXT_LIMIT: Final = 64 * 1024


class LegEnd(StrEnum):
    """Why a media leg ended."""

    BY_SERVER = "by_server"
    BY_VONAGE = "by_vonage"
    BROKEN = "broken"


class LegRefusedError(Exception):
    """The socket could not be opened; ``status`` is what the event webhook calls it."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class MediaLeg:
    """One media socket between ``open`` and ``close``, and what was counted on it."""

    def __init__(self, socket_: ClientConnection, endpoint: dict[str, Any], phone: Phone) -> None:
        self._socket = socket_
        self._endpoint = endpoint
        self._phone = phone
        self._frame_bytes = frame_bytes(rate_hz(endpoint))
        self._closed_by_us = False
        self.frames_received = 0
        self.clears = 0
        self.violation = ""
        """What the server did that Vonage does not take; empty when nothing."""
        self.is_sending = True
        """False while muted or frozen: then no audio goes to the server."""
        self.is_joined = True
        """False once the caller was transferred away: what it plays is heard by nobody."""
        self.swallows = False
        """Half-dead: what the server sends is lost on the way."""
        self.loses_marks = False
        self.lump_frames = 1
        """The caller's frames are sent so many at once."""
        self.ended = asyncio.Event()
        self._lump: list[bytes] = []
        self._reads = asyncio.Event()
        self._reads.set()

    @classmethod
    async def open(cls, endpoint: dict[str, Any], token: str, phone: Phone) -> MediaLeg:
        """Dials the endpoint's socket. Raises ``LegRefusedError``."""
        authorization = endpoint.get("authorization", {})
        headers = {}
        if authorization.get("type") == "vonage":
            headers["Authorization"] = f"Bearer {token}"
        elif authorization.get("type") == "custom":
            headers["Authorization"] = authorization["value"]
        try:
            opened = await connect(
                endpoint["uri"],
                additional_headers=headers,
                compression=None,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                ping_interval=None,
                max_size=_TEXT_LIMIT,
                proxy=None,
            )
        except InvalidStatus as error:
            raise LegRefusedError("failed", f"HTTP {error.response.status_code}") from error
        except (InvalidHandshake, InvalidURI) as error:
            raise LegRefusedError("failed", type(error).__name__) from error
        except (OSError, TimeoutError) as error:
            raise LegRefusedError("unanswered", type(error).__name__) from error
        phone.set_rate(rate_hz(endpoint))
        return cls(opened, endpoint, phone)

    async def run(self) -> LegEnd:
        """Greets the server, then takes what it sends until either side ends the leg."""
        try:
            return await self._run()
        finally:
            self.ended.set()

    async def _run(self) -> LegEnd:
        connected = {"event": "websocket:connected", "content-type": self._endpoint["content-type"]}
        try:
            await self._send_text(connected | self._endpoint.get("headers", {}))
            async for message in self._socket:
                await self._reads.wait()
                if self.swallows:
                    continue
                if isinstance(message, bytes):
                    self._take_frame(message)
                else:
                    await self._take_command(message)
                if self.violation:
                    self.abort()
                    return LegEnd.BROKEN
        except (ConnectionClosed, TimeoutError, OSError):
            pass
        return LegEnd.BY_VONAGE if self._closed_by_us else LegEnd.BY_SERVER

    def _take_frame(self, frame: bytes) -> None:
        if len(frame) != self._frame_bytes:
            # What Vonage's own log says before it drops the connection (units are samples there).
            self.violation = f"frame of {len(frame)} bytes, wanted {self._frame_bytes}"
            return
        self.frames_received += 1
        if self.is_joined:
            self._phone.queue(frame)

    async def _take_command(self, text: str) -> None:
        try:
            command = json.loads(text)
            action = command["action"]
        except (ValueError, KeyError, TypeError):
            self.violation = "a text message that is no command"
            return
        if action == "clear":
            self.clears += 1
            if self.is_joined:
                self._phone.clear()
            await self._send_text({"event": "websocket:cleared"})
        elif action == "notify" and isinstance(command.get("payload"), dict):
            if self.is_joined:
                self._phone.queue(Mark(command["payload"]))
        else:
            self.violation = f"unknown command {str(action)[:40]!r}"

    # --- from Vonage to the server; a socket that has closed meanwhile is noticed by ``run`` ---

    async def send_frame(self, frame: bytes) -> None:
        """Sends the caller's next 20 ms, unless the leg is muted."""
        if not self.is_sending or len(frame) != self._frame_bytes:
            return
        self._lump.append(frame)
        if len(self._lump) < self.lump_frames:
            return
        lump, self._lump = self._lump, []
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(_SEND_S):
                for each in lump:
                    await self._socket.send(each)

    async def reached(self, mark: Mark) -> None:
        """Tells that everything queued before ``mark`` was played."""
        if self.loses_marks:
            return
        await self._send_event({"event": "websocket:notify", "payload": mark.payload})

    async def dtmf(self, digit: str, duration_ms: int = 260) -> None:
        """Tells that the caller pressed a key."""
        event = {"event": "websocket:dtmf", "digit": digit, "duration": duration_ms}
        await self._send_event(event)

    async def set_active(self, active: bool) -> None:
        """Mutes or unmutes: the server is told, and gets no audio while inactive."""
        self.is_sending = active
        await self._send_event(
            {
                "event": "websocket:media:update",
                "method": "update",
                "active": active,
                "content-type": self._endpoint["content-type"],
            }
        )

    async def _send_event(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            await self._send_text(event)

    async def _send_text(self, event: dict[str, Any]) -> None:
        async with asyncio.timeout(_SEND_S):
            # With a leading space, as Vonage has sent it.
            await self._socket.send(" " + json.dumps(event))

    # --- the end ---

    def freeze(self) -> None:
        """Sends nothing and reads nothing from now on; the connection stays open."""
        self.is_sending = False
        self._reads.clear()

    async def close(self) -> None:
        """Vonage ends the leg; returns when the socket is closed (bounded)."""
        self._closed_by_us = True
        if not self._reads.is_set():
            self.abort()
            self._reads.set()
        await self._socket.close()

    def abort(self) -> None:
        """Drops the connection without a goodbye: the server sees a TCP reset."""
        self._closed_by_us = True
        self.lose()

    def lose(self) -> None:
        """The connection is reset on the way; Vonage learns of it as the server does."""
        transport = self._socket.transport
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
