"""A stand-in for OpenAI, stricter than the original: Realtime WebSocket and `POST /v1/responses`.

    async with FakeOpenAI() as openai:
        openai.script.replies.append(Reply(text="A long answer.", audio_ms=10_000))
        ...start the product with OPENAI_BASE_URL=openai.base_url, make a call...
        conn = await openai.connection()            # the newest one; .connections has all
        await conn.wait_for("response.create")      # the greeting was asked for
        at_s = await conn.speech_started()          # the caller interrupts
        await conn.caller_said("Stop, please.")     # …and is answered by the next Reply
        call_id = await conn.call_tool("lookup", {"number": "12"})
        assert await conn.tool_output(call_id)
        assert conn.truncations[0].audio_end_ms <= phone_heard_ms
        conn.freeze()                               # or .deaf = True, .abort(), .fall_dumb()
        assert newer.told == [("assistant", "Good day."), ("user", "Stop, please.")]
        assert openai.violations == []              # always assert this

With `Script(listens=True)` a connection finds the caller's turns in his audio by itself.

What is a violation: an event that the published types or the documented ranges refuse, audio or a
greeting before `session.updated`, a commit while the server detects turns, a tool call answered
twice or never asked for, a response asked for while one is unanswered, an item without words, a
binary frame, the dead beta header, a missing or wrong key. What is a counted error in
`conn.errors[code]`, since races make some unavoidable: `conversation_already_has_active_response`,
`response_cancel_not_active`, `invalid_value` (truncated beyond the end), `item_*`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from tests.fakes.openai_connection import RealtimeConnection
from tests.fakes.openai_script import Refusal, Reply, Script, ToolCall
from tests.fakes.oracle import responses_mistakes
from tests.fakes.waiting import eventually
from tests.fakes.web import Exchange, Upgrade, WebServer

__all__ = [
    "FakeOpenAI",
    "HttpReply",
    "RealtimeConnection",
    "Refusal",
    "Reply",
    "Script",
    "SummaryRequest",
    "ToolCall",
]


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer to `POST /v1/responses` other than a good one. `stall_s`: says nothing so long."""

    status: int = 500
    body: object = field(default_factory=lambda: {"error": {"type": "server_error", "code": None}})
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """One `POST /v1/responses`."""

    at_s: float
    body: Mapping[str, Any]


class FakeOpenAI:
    """Listens from `__aenter__` to `__aexit__`; `stop()` and `start()` take it away and back."""

    def __init__(self, api_key: str = "sk-test-key-of-the-stand-in") -> None:
        self.api_key = api_key
        #: How each new connection behaves, unless `next_scripts` has one for it.
        self.script = Script()
        self.next_scripts: deque[Script] = deque()
        #: Every connection there ever was; the handshakes that were refused are only counted.
        self.connections: list[RealtimeConnection] = []
        self.refused = 0
        self.violations: list[str] = []
        self.summaries: list[SummaryRequest] = []
        #: Answers to the next summaries; then good ones.
        self.summary_replies: deque[HttpReply] = deque()
        self._web = WebServer(self._answer, self._converse)

    @property
    def base_url(self) -> str:
        """What belongs into OPENAI_BASE_URL."""
        return f"{self._web.url}/v1"

    @property
    def open_sockets(self) -> int:
        """Realtime connections that are open now."""
        return sum(conn.open for conn in self.connections)

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now, idle HTTP ones included."""
        return self._web.open_connections

    async def connection(
        self, nth: int | None = None, timeout_s: float = 5.0
    ) -> RealtimeConnection:
        """The nth connection ever (from 1), or the newest; waits for it."""
        wanted = nth or 1
        await eventually(
            f"Realtime connection number {wanted}",
            lambda: len(self.connections) >= wanted,
            timeout_s,
        )
        return self.connections[nth - 1 if nth else -1]

    async def connection_of(self, caller: int, timeout_s: float = 5.0) -> RealtimeConnection:
        """The open connection on which this caller's tone (`PhoneCall.tone`) comes in."""

        def probe() -> RealtimeConnection | None:
            return next((c for c in self.connections if c.open and c.caller() == caller), None)

        found = await eventually(f"the tone of caller {caller}", probe, timeout_s, every_s=0.02)
        assert found is not None
        return found

    async def start(self) -> None:
        await self._web.start()

    async def stop(self) -> None:
        """Cuts every connection and refuses new ones, as a supplier's outage would."""
        await self._web.stop()

    async def __aenter__(self) -> Self:
        await self._web.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._web.__aexit__(kind, error, trace)

    def _next_script(self) -> Script:
        if self.next_scripts:
            return self.next_scripts.popleft()
        return replace(self.script, replies=deque(self.script.replies))

    async def _converse(self, upgrade: Upgrade) -> None:
        request = upgrade.request
        script = self._next_script()
        model = request.query.get("model", "")
        if wrong := self._handshake_mistake(upgrade, model):
            self.refused += 1
            self.violations.append(f"handshake: {wrong.code}")
            await upgrade.refuse(wrong.status, wrong.body())
            return
        await asyncio.sleep(script.handshake_delay_s)
        if script.refuse:
            self.refused += 1
            await asyncio.sleep(script.refuse.delay_s)
            await upgrade.refuse(script.refuse.status, script.refuse.body())
            return
        index = len(self.connections)
        conn = RealtimeConnection(index, model, script, request.headers, self.violations)
        socket = await upgrade.accept()
        self.connections.append(conn)
        await conn.run(socket)

    def _handshake_mistake(self, upgrade: Upgrade, model: str) -> Refusal | None:
        request = upgrade.request
        if request.path != "/v1/realtime":
            return Refusal(404, "unknown_path")
        if request.bearer != self.api_key:
            return Refusal(401, "invalid_api_key")
        if "openai-beta" in request.headers:
            return Refusal(400, "beta_api_shape_disabled")
        if not model:
            return Refusal(400, "missing_model")
        return None

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        if (request.method, request.path) != ("POST", "/v1/responses"):
            self.violations.append(f"{request.method} {request.path} does not exist")
            await exchange.reply(404, {"error": {"code": "unknown_path"}})
            return
        if request.bearer != self.api_key:
            self.violations.append("responses: invalid_api_key")
            await exchange.reply(401, {"error": {"code": "invalid_api_key"}})
            return
        try:
            body: Any = request.json()
        except ValueError:
            self.violations.append("responses: the body is no JSON")
            await exchange.reply(400, {"error": {"code": "invalid_json"}})
            return
        self.summaries.append(SummaryRequest(time.monotonic(), body))
        self.violations += (wrong := responses_mistakes(body))
        if wrong:
            error = {"type": "invalid_request_error", "code": "invalid_value", "message": wrong[0]}
            await exchange.reply(400, {"error": error})
            return
        if self.summary_replies:
            reply = self.summary_replies.popleft()
            await exchange.pause(reply.stall_s)
            await exchange.reply(reply.status, reply.body, reply.content_type, reply.headers)
            return
        await exchange.reply(200, summary_response(body))


def summary_response(body: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """A completed response: `text`, or the smallest JSON that the asked-for schema allows."""
    wanted = body.get("text", {}).get("format", {})
    if text is None:
        schema = wanted.get("schema")
        text = json.dumps(_example(schema)) if schema else "A summary of the call."
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    return {
        "id": "resp_summary",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        # Reasoning comes first and must be skipped; `output_text` is no field of the wire.
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {**message, "content": content},
        ],
        "usage": {
            "input_tokens": 200,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 60,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 260,
        },
    }


def _example(schema: Mapping[str, Any]) -> object:
    """The smallest value that a schema allows; null where null is allowed."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][-1])
    kind = schema.get("type")
    if isinstance(kind, list):
        return None if "null" in kind else _example({**schema, "type": kind[0]})
    if kind == "object":
        return {name: _example(part) for name, part in schema.get("properties", {}).items()}
    defaults: dict[str | None, object] = {
        "string": "as discussed", "integer": 1, "number": 1.0, "boolean": False, "array": [],
    }  # fmt: skip
    return defaults.get(kind)
