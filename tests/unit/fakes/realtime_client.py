"""A plain Realtime client and the scenes it plays with the stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.fakes.openai import FakeOpenAI, RealtimeConnection, Script
from tests.fakes.oracle import server_event_mistakes


class Client:
    """A plain client that keeps every event it was sent."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **more: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **more}))

    async def configure(self, **session: Any) -> None:
        await self.send("session.update", session={"type": "realtime", **session})
        await self.until("session.updated")

    async def until(self, kind: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """Reads up to the next event of this type."""
        async with asyncio.timeout(timeout_s):
            while True:
                event = json.loads(await self.socket.recv())
                assert server_event_mistakes(event) == [] or "reasoning" in str(event)
                self.events.append(event)
                if event["type"] == kind:
                    return dict(event)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


Scene = Callable[[FakeOpenAI, RealtimeConnection, Client], Awaitable[None]]


def headers(openai: FakeOpenAI) -> dict[str, str]:
    return {"Authorization": f"Bearer {openai.api_key}"}


def address(openai: FakeOpenAI) -> str:
    return openai.base_url.replace("http", "ws") + "/realtime?model=gpt-realtime-2.1"


def play(scene: Scene, script: Script | None = None) -> FakeOpenAI:
    """Opens a connection and plays a scene on it; the stand-in with what it has noticed."""

    async def scenario() -> FakeOpenAI:
        async with FakeOpenAI() as openai:
            openai.script = script or Script()
            async with connect(
                address(openai), additional_headers=headers(openai), compression=None
            ) as socket:
                conn = await openai.connection()
                await scene(openai, conn, Client(socket))
            await conn.wait_closed()
            assert openai.open_sockets == 0
        return openai

    return asyncio.run(scenario())
