"""One response of the fake OpenAI: its events, in their documented order, in a burst.

A ten second answer is sent in a fifth of a second, and `response.done` comes long before anybody
has heard it. The voice is `pattern.voice_pcm`, numbered by the item, so that a test can tell from
the phone's audio which item was heard and up to which millisecond.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.fakes.openai_conversation import Conversation, Item
from tests.fakes.openai_script import Reply, ToolCall
from tests.fakes.pattern import VOICE_CYCLE_MS, silence, voice_pcm

Send = Callable[[Mapping[str, Any]], Awaitable[float]]
CHUNK_MS = 100
RATE = 24_000


@lru_cache(maxsize=2048)
def audio_chunk(voice: int, start_ms: int, length_ms: int) -> str:
    """base64 of one delta of a voice."""
    return base64.b64encode(voice_pcm(voice, start_ms, length_ms, RATE)).decode()


@dataclass
class Response:
    """A response in progress. `send` puts one event on the wire."""

    id: str
    reply: Reply
    text: str
    modality: str
    send: Send
    conversation: Conversation
    new_id: Callable[[str], str]
    new_voice: Callable[[], int]
    base: dict[str, Any] = field(default_factory=dict)
    out_of_band: bool = False
    unknown_events: bool = False
    created: bool = False
    #: Set by a cancel; the reason is `client_cancelled` or `turn_detected`.
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    cancel_reason: str = ""
    output: list[dict[str, Any]] = field(default_factory=list)
    audio_ms: int = 0

    def cancel(self, reason: str) -> None:
        if not self.cancelled.is_set():
            self.cancel_reason = reason
            self.cancelled.set()

    async def run(self) -> None:
        """Everything from `response.created` to `response.done`."""
        await asyncio.sleep(self.reply.created_delay_s)
        self.created = True
        await self.send({"type": "response.created", "response": self._wire("in_progress")})
        await self.send(_RATE_LIMITS)
        if self.reply.status != "failed":
            await self._outputs()
        if self.reply.stall:
            await self.cancelled.wait()
        await self.send({"type": "response.done", "response": self._done()})

    async def _outputs(self) -> None:
        if self.unknown_events:
            await self._unknown()
        if self.text:
            for text in _split(self.text, self.reply.messages):
                if not self.cancelled.is_set():
                    await self._message(text)
        for call in self.reply.tools:
            if not self.cancelled.is_set() and self.reply.status == "completed":
                await self._tool(call)

    async def _unknown(self) -> None:
        item = {"id": self.new_id("rs"), "type": "reasoning", "summary": [], "phase": "thinking"}
        keys = {"response_id": self.id, "output_index": 0, "item": item}
        await self.send({"type": "response.output_item.added", **keys})
        await self.send({"type": "response.telepathy.delta", "response_id": self.id, "delta": {}})
        await self.send({"type": "response.output_item.done", **keys})
        self.output.append(item)

    async def _message(self, text: str) -> None:
        spoken = self.modality == "audio"
        part_type = "audio" if spoken else "text"
        voice = self.new_voice() if spoken else None
        data = _message_item(self.new_id("item"), "in_progress", [])
        item = Item(data["id"], data, voice=voice)
        index = len(self.output)
        self.output.append(data)
        keys = {"response_id": self.id, "item_id": item.id, "output_index": index}
        keys["content_index"] = 0
        await self._item_added(item, index)
        part = {"type": part_type, "transcript" if spoken else "text": ""}
        await self.send({"type": "response.content_part.added", **keys, "part": part})
        if spoken:
            whole = await self._speak(item, text, keys)
        else:
            whole = await self._write(item, text, keys)
        kind = "output_audio" if spoken else "output_text"
        content = {"type": kind, "transcript" if spoken else "text": item.text}
        data |= {"status": "completed" if whole else "incomplete", "content": [content]}
        if spoken:
            await self.send({"type": "response.output_audio.done", **keys})
            done = {"type": "response.output_audio_transcript.done", "transcript": item.text}
        else:
            done = {"type": "response.output_text.done", "text": item.text}
        await self.send({**done, **keys})
        part = {"type": part_type, "transcript" if spoken else "text": item.text}
        await self.send({"type": "response.content_part.done", **keys, "part": part})
        await self._item_done(item, index)

    async def _item_added(self, item: Item, index: int) -> None:
        await self.send(
            {
                "type": "response.output_item.added",
                "response_id": self.id,
                "output_index": index,
                "item": item.data,
            }
        )
        if not self.out_of_band:
            self.conversation.add(item)
            await self._conversation_event("conversation.item.added", item)

    async def _item_done(self, item: Item, index: int) -> None:
        if not self.out_of_band and item.id in self.conversation.items:
            await self._conversation_event("conversation.item.done", item)
        await self.send(
            {
                "type": "response.output_item.done",
                "response_id": self.id,
                "output_index": index,
                "item": item.data,
            }
        )

    async def _conversation_event(self, kind: str, item: Item) -> None:
        previous = self.conversation.before(item.id)
        await self.send({"type": kind, "previous_item_id": previous, "item": item.data})

    async def _speak(self, item: Item, text: str, keys: dict[str, Any]) -> bool:
        """Audio and transcript deltas, interleaved; False if it ended early."""
        assert item.voice is not None
        total_ms = self._length_ms(text)
        words = _words(text)
        steps = -(-total_ms // CHUNK_MS)
        for step in range(steps):
            if not await self._may_go_on(step, steps):
                return False
            for word in words[step * len(words) // steps : (step + 1) * len(words) // steps]:
                item.text += word
                await self._delta("response.output_audio_transcript.delta", word, keys)
            length_ms = min(CHUNK_MS, total_ms - step * CHUNK_MS)
            start_ms = step * CHUNK_MS % VOICE_CYCLE_MS
            if self.reply.sound == "none":
                continue
            item.audio_ms += length_ms
            self.audio_ms += length_ms
            if self.reply.sound == "silence":
                audio = base64.b64encode(silence(length_ms, RATE)).decode()
            else:
                audio = audio_chunk(item.voice, start_ms, length_ms)
            await self._delta("response.output_audio.delta", audio, keys)
        return True

    async def _write(self, item: Item, text: str, keys: dict[str, Any]) -> bool:
        """Text deltas, word by word; False if it ended early."""
        words = _words(text)
        for step, word in enumerate(words):
            if not await self._may_go_on(step, len(words)):
                return False
            item.text += word
            await self._delta("response.output_text.delta", word, keys)
        return True

    async def _delta(self, kind: str, delta: str, keys: dict[str, Any]) -> None:
        # The real server pads deltas with this undocumented field.
        await self.send({"type": kind, **keys, "delta": delta, "obfuscation": "x7Kq"})

    async def _may_go_on(self, step: int, steps: int) -> bool:
        """Keeps the pace; False after a cancel (and its late deltas) or where it is to stop."""
        if step == 0:
            self._began_s, self._late = time.monotonic(), self.reply.late_deltas
        half = step * 2 >= steps
        if half and (self.reply.stall or self.reply.status == "incomplete"):
            return False
        if self.cancelled.is_set():
            self._late -= 1
            return self._late >= 0
        ahead_s = self._began_s + self.reply.burst_ms / 1000 * step / steps - time.monotonic()
        await asyncio.sleep(max(ahead_s, 0))
        return True

    def _length_ms(self, text: str) -> int:
        if self.reply.audio_ms is None:
            return max(400, 60 * len(text))
        return self.reply.audio_ms // self.reply.messages

    async def _tool(self, call: ToolCall) -> None:
        call_id = call.call_id or self.new_id("call")
        data: dict[str, Any] = {
            "id": self.new_id("fc"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "in_progress",
            "name": call.name,
            "call_id": call_id,
            "arguments": "",
        }
        item = Item(data["id"], data)
        index = len(self.output)
        self.output.append(data)
        await self._item_added(item, index)
        keys = {"response_id": self.id, "item_id": item.id, "output_index": index}
        keys["call_id"] = call_id
        half = len(call.arguments) // 2
        for part in (call.arguments[:half], call.arguments[half:]):
            await self._delta("response.function_call_arguments.delta", part, keys)
        done = {"type": "response.function_call_arguments.done", **keys}
        await self.send({**done, "name": call.name, "arguments": call.arguments})
        data |= {"status": "completed", "arguments": call.arguments}
        self.conversation.calls[call_id] = None
        await self._item_done(item, index)

    def _done(self) -> dict[str, Any]:
        if self.cancelled.is_set():
            details = {"type": "cancelled", "reason": self.cancel_reason}
            return self._wire("cancelled", details)
        status = self.reply.status
        if status == "failed":
            code = self.reply.code or "rate_limit_exceeded"
            error = {"type": "server_error", "code": code, "message": "It did not work out."}
            return self._wire("failed", {"type": "failed", "error": error})
        if status == "incomplete":
            reason = self.reply.code or "max_output_tokens"
            return self._wire("incomplete", {"type": "incomplete", "reason": reason})
        return self._wire("completed", None)

    def _wire(self, status: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        over = status != "in_progress"
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": list(self.output) if over else [],
            **self.base,
            "usage": self._usage() if over and status != "failed" else None,
        }

    def _usage(self) -> dict[str, Any]:
        """Token counts in the real proportions: 50 ms of its voice is a token."""
        said, text = self.audio_ms // 50, sum(len(str(part)) for part in self.output) // 40
        return {
            "total_tokens": 120 + said + text,
            "input_tokens": 120,
            "output_tokens": said + text,
            "input_token_details": {
                "text_tokens": 100,
                "audio_tokens": 20,
                "image_tokens": 0,
                "cached_tokens": 64,
                "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text, "audio_tokens": said},
        }


_RATE_LIMITS: dict[str, Any] = {
    "type": "rate_limits.updated",
    "rate_limits": [
        {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 60.0},
        {"name": "tokens", "limit": 50_000, "remaining": 49_950, "reset_seconds": 60.0},
    ],
}


def _message_item(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _words(text: str) -> list[str]:
    """Words with the space in front of them, as the models stream them."""
    first, *rest = text.split()
    return [first, *(f" {word}" for word in rest)]


def _split(text: str, messages: int) -> list[str]:
    words = text.split()
    size = -(-len(words) // max(messages, 1))
    return [" ".join(words[at : at + size]) for at in range(0, len(words), max(size, 1))]
