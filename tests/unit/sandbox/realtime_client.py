"""A plain client of the realtime socket: every event that it receives is judged by the oracle."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from sessions_app.sandbox.faults import Fault, Wish
from sessions_app.sandbox.server import Sandbox
from sessions_app.sandbox.voice import CALLER, synthesise
from tests.unit.sandbox.oracle import check_server_event

MODEL = "gpt-realtime-2.1"
PATIENCE_S = 20.0


def address(sandbox: Sandbox, query: str = f"?model={MODEL}") -> str:
    return sandbox.openai_base_url.replace("http", "ws") + "/realtime" + query


class RealtimeClient:
    """Keeps all events; ``until`` reads on to one of a type."""

    def __init__(self, socket: ClientConnection, *, judged: bool) -> None:
        self._socket = socket
        self._judged = judged
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind} | fields))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            event = json.loads(await self._socket.recv())
        if self._judged:
            check_server_event(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.next())["type"] != kind:
            if event["type"] == "error" and kind != "error":
                raise AssertionError(event)
        return event

    async def configure(self, **session: Any) -> dict[str, Any]:
        await self.send("session.update", session={"type": "realtime"} | session)
        return (await self.until("session.updated"))["session"]

    async def greet(self, text: str = "Hello, this is the front desk.") -> dict[str, Any]:
        response = {"instructions": f"Be kind. Say exactly: {text}", "tool_choice": "none"}
        await self.send("response.create", response=response)
        return (await self.until("response.done"))["response"]

    async def append(self, pcm: bytes) -> None:
        """Appends audio at once, in events of 100 ms."""
        for at in range(0, len(pcm), 4800):
            piece = base64.b64encode(pcm[at : at + 4800]).decode()
            await self.send("input_audio_buffer.append", audio=piece)

    async def say(self, text: str, silence_s: float = 0.8) -> None:
        """The caller says ``text`` and is then silent."""
        speech = synthesise(text, 24000, voice=CALLER)
        await self.append(speech + bytes(int(silence_s * 24000) * 2))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def order(self) -> list[str]:
        """The types of all events, runs of the same one shortened to one."""
        types = [event["type"] for event in self.events]
        return [kind for at, kind in enumerate(types) if at == 0 or types[at - 1] != kind]


@asynccontextmanager
async def session(
    sandbox: Sandbox,
    *,
    model: str = MODEL,
    fault: Fault | Wish | None = None,
    call: str = "",
    judged: bool = True,
    created: bool = True,
) -> AsyncIterator[RealtimeClient]:
    """An open session whose ``session.created`` has been read."""
    headers = {"Authorization": "Bearer test-key"}
    if fault is not None:
        headers["X-Sandbox-Fault"] = str(fault)
    if call:
        headers["X-Sandbox-Call"] = call
    uri = address(sandbox, f"?model={model}")
    async with connect(
        uri, additional_headers=headers, compression=None, max_size=None, proxy=None
    ) as socket:
        client = RealtimeClient(socket, judged=judged)
        if created:
            await client.until("session.created")
        yield client
