"""A caller's side of ``/sandbox/legs``: it registers legs and hears what REST asks of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

_TIMEOUT_S: Final = 5.0


class LegControl:
    """One WebSocket to the sandbox that serves REST; an async context manager.

    The sandbox completes the legs of a control that closes, so nothing is left behind.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: ClientConnection | None = None
        self._registered: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        self._socket = await connect(
            self._url,
            compression=None,
            open_timeout=_TIMEOUT_S,
            close_timeout=1.0,
            ping_interval=None,
            proxy=None,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def register(
        self, uuid: str, conversation_uuid: str, from_number: str, to_number: str, direction: str
    ) -> None:
        """Makes the leg known to REST; returns when it is. ``orders`` must be running."""
        known = self._registered[uuid] = asyncio.Event()
        leg = {
            "uuid": uuid,
            "conversation_uuid": conversation_uuid,
            "from": from_number,
            "to": to_number,
            "direction": direction,
        }
        await self._send({"register": leg})
        async with asyncio.timeout(_TIMEOUT_S):
            await known.wait()

    async def completed(self, uuid: str) -> None:
        """Tells that the leg is over."""
        await self._send({"completed": uuid})

    async def orders(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """What REST asks: (leg uuid, action, body), until the socket closes."""
        assert self._socket is not None
        try:
            async for text in self._socket:
                message = json.loads(text)
                if "registered" in message:
                    self._registered.pop(message["registered"]).set()
                elif "action" in message:
                    yield message["uuid"], message["action"], message["body"]
        except ConnectionClosed:
            return

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        async with asyncio.timeout(_TIMEOUT_S):
            await self._socket.send(json.dumps(message))
