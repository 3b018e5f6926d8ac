"""One response of the scripted model, from ``response.created`` to ``response.done``.

Audio is sent in bursts, several times faster than it is heard, as the real service does:
``response.done`` usually comes long before the caller has heard the end.
"""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass, field
from typing import Any, Final

from sessions_app.sandbox.conf import Tempo
from sessions_app.sandbox.faults import Fault, Phase
from sessions_app.sandbox.mind import Plan, sentences
from sessions_app.sandbox.realtime_config import RATE_HZ
from sessions_app.sandbox.realtime_conversation import Conversation, Item
from sessions_app.sandbox.realtime_socket import EventSocket, new_id
from sessions_app.sandbox.realtime_trouble import Trouble
from sessions_app.sandbox.realtime_usage import Tokens, output_tokens, usage
from sessions_app.sandbox.voice import duration_ms, synthesise

_CHUNK_MS: Final = 200
_CHUNK_BYTES: Final = _CHUNK_MS * RATE_HZ // 1000 * 2
# In text the model writes words far faster than they can be said.
_WORD_S: Final = 0.012
_SENTENCE_CHARS: Final = 2000
_ARGUMENT_CHARS: Final = 12

_SERVER_ERROR: Final = {
    "type": "server_error",
    "code": "server_error",
    "message": "The server had an error while processing your request. Sorry about that!",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force for one response: the session's configuration under the request's."""

    modality: str
    voice: Any
    speed: float
    max_output_tokens: int | str
    metadata: dict[str, str] | None
    in_conversation: bool

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else "en"

    @property
    def token_limit(self) -> float:
        return float(self.max_output_tokens)


@dataclass(slots=True)
class Response:
    """Produces one response. ``cancel`` may be called at any time while ``run`` runs."""

    plan: Plan
    settings: Settings
    conversation: Conversation
    socket: EventSocket
    tempo: Tempo
    read: Tokens
    cached: Tokens
    trouble: Trouble
    phase: Phase
    fault: Fault | None = None
    id: str = field(default_factory=lambda: new_id("resp"))
    audio_ms: int = 0
    first_delta_at: float | None = None
    status: str = "in_progress"
    _reason: str | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _output: list[Item] = field(default_factory=list)
    _text: str = ""
    _has_passed_middle: bool = False

    def cancel(self, reason: str) -> None:
        """Asks for the end (``turn_detected``, ``client_cancelled``); ``response.done`` follows
        shortly.
        """
        if self.status == "in_progress":
            self._end("cancelled", reason)

    def playback_left_s(self) -> float:
        """How much longer a listener hears it, if played from its first delta on."""
        if self.first_delta_at is None:
            return 0.0
        return max(0.0, self.first_delta_at + self.audio_ms / 1000 - time.monotonic())

    async def run(self) -> None:
        """Emits the whole response."""
        await self.socket.emit("response.created", response=self._wire())
        await self._rate_limits()
        await self._pause(self.tempo.thinking_s)
        if self.fault in (Fault.OPENAI_FAILS, Fault.OPENAI_FAILS_ONCE):
            self._end("failed", None)
        if self._going_on() and (self.plan.text or self.plan.call is None):
            await self._message()
        if self._going_on() and self.plan.call is not None:
            await self._function_call(*self.plan.call)
        if self._going_on():
            self.status = "completed"
        await self.socket.emit("response.done", response=self._wire())

    # --- the pieces of a response ---

    async def _message(self) -> None:
        audio = self.settings.modality == "audio"
        kind = "output_audio" if audio else "output_text"
        said = "transcript" if audio else "text"
        item = await self._begin_item({"type": "message", "role": "assistant", "content": []})
        where = self._where(item) | {"content_index": 0}
        part: dict[str, Any] = {"type": "audio" if audio else "text", said: ""}
        await self.socket.emit("response.content_part.added", **where, part=part)
        item.wire["content"] = [{"type": kind, said: ""}]
        await (self._speak(item, where) if audio else self._write(item, where))
        if audio:
            await self.socket.emit("response.output_audio.done", **where)
            await self.socket.emit(
                "response.output_audio_transcript.done", **where, transcript=item.said
            )
        else:
            await self.socket.emit("response.output_text.done", **where, text=item.said)
        part[said] = item.said
        await self.socket.emit("response.content_part.done", **where, part=part)
        # A client may have cut the item already: then its transcript is gone and stays so.
        if said in item.wire["content"][0]:
            item.wire["content"][0][said] = item.said
        await self._finish_item(item)

    async def _speak(self, item: Item, where: dict[str, Any]) -> None:
        for number, sentence in enumerate(sentences(self.plan.text)):
            pcm = await asyncio.to_thread(
                synthesise,
                sentence[:_SENTENCE_CHARS],
                RATE_HZ,
                voice=self.settings.voice_name,
                speed=self.settings.speed,
            )
            if self.fault is Fault.OPENAI_SILENT:
                pcm = bytes(len(pcm))
            words = _words(sentence, first=number == 0)
            chunks = [pcm[at : at + _CHUNK_BYTES] for at in range(0, len(pcm), _CHUNK_BYTES)]
            for index, chunk in enumerate(chunks):
                share = words[_part(index, chunks, words) : _part(index + 1, chunks, words)]
                if not self._going_on():
                    return
                await self._transcript_delta(item, where, "".join(share))
                await self._audio_delta(item, where, chunk)
                await self._pass_middle(index >= len(chunks) // 2)
                await self._pause(duration_ms(chunk, RATE_HZ) / 1000 / self.tempo.burst)

    async def _transcript_delta(self, item: Item, where: dict[str, Any], delta: str) -> None:
        if delta:
            self._grow(item, delta)
            await self.socket.emit(
                "response.output_audio_transcript.delta",
                **where,
                delta=delta,
                obfuscation=_padding(delta),
            )

    async def _audio_delta(self, item: Item, where: dict[str, Any], chunk: bytes) -> None:
        self.first_delta_at = self.first_delta_at or time.monotonic()
        self.audio_ms += duration_ms(chunk, RATE_HZ)
        item.audio_ms += duration_ms(chunk, RATE_HZ)
        delta = base64.b64encode(chunk).decode()
        await self.socket.emit("response.output_audio.delta", **where, delta=delta)

    async def _write(self, item: Item, where: dict[str, Any]) -> None:
        words = _words(self.plan.text, first=True)
        for index, word in enumerate(words):
            if not self._going_on():
                return
            self._grow(item, word)
            await self.socket.emit(
                "response.output_text.delta", **where, delta=word, obfuscation=_padding(word)
            )
            await self._pass_middle(index >= len(words) // 2)
            await self._pause(_WORD_S)

    async def _function_call(self, name: str, arguments: str) -> None:
        call_id = new_id("call")
        wire = {"type": "function_call", "name": name, "call_id": call_id, "arguments": ""}
        item = await self._begin_item(wire)
        where = self._where(item) | {"call_id": call_id}
        hangs = self.trouble.with_tool()
        for at in range(0, len(arguments), _ARGUMENT_CHARS):
            if hangs:
                await self._stop.wait()
            if not self._going_on():
                break
            delta = arguments[at : at + _ARGUMENT_CHARS]
            item.wire["arguments"] += delta
            self._grow(item, delta)
            await self.socket.emit(
                "response.function_call_arguments.delta",
                **where,
                delta=delta,
                obfuscation=_padding(delta),
            )
        await self.socket.emit(
            "response.function_call_arguments.done",
            **where,
            name=name,
            arguments=item.wire["arguments"],
        )
        await self._finish_item(item)
        await self.trouble.at(Phase.TOOL_RUNNING)

    # --- items ---

    async def _begin_item(self, wire: dict[str, Any]) -> Item:
        prefix = "fc" if wire["type"] == "function_call" else "item"
        head = {"id": new_id(prefix), "object": "realtime.item", "status": "in_progress"}
        item = Item(head | wire)
        self._output.append(item)
        await self.socket.emit(
            "response.output_item.added",
            response_id=self.id,
            output_index=len(self._output) - 1,
            item=item.wire,
        )
        if self.settings.in_conversation:
            previous = self.conversation.append(item)
            await self.socket.emit(
                "conversation.item.added", previous_item_id=previous, item=item.wire
            )
        return item

    async def _finish_item(self, item: Item) -> None:
        item.wire["status"] = "completed" if self._going_on() else "incomplete"
        if self.settings.in_conversation:
            ids = [known.id for known in self.conversation.items]
            at = ids.index(item.id) if item.id in ids else 0
            await self.socket.emit(
                "conversation.item.done",
                previous_item_id=ids[at - 1] if at else None,
                item=item.wire,
            )
        await self.socket.emit(
            "response.output_item.done",
            response_id=self.id,
            output_index=len(self._output) - 1,
            item=item.wire,
        )

    def _where(self, item: Item) -> dict[str, Any]:
        return {
            "response_id": self.id,
            "item_id": item.id,
            "output_index": len(self._output) - 1,
        }

    # --- state ---

    def _going_on(self) -> bool:
        return self.status == "in_progress"

    def _end(self, status: str, reason: str | None) -> None:
        self.status = status
        self._reason = reason
        self._stop.set()

    def _grow(self, item: Item, delta: str) -> None:
        item.said += delta
        self._text += delta
        if output_tokens(self._text, self.audio_ms).total >= self.settings.token_limit:
            self._end("incomplete", "max_output_tokens")

    async def _pass_middle(self, is_middle: bool) -> None:
        """Where a fault strikes into what is being said: the middle of its first sentence."""
        if not is_middle or self._has_passed_middle:
            return
        self._has_passed_middle = True
        if self.fault is Fault.OPENAI_INCOMPLETE:
            self.trouble.cut_short()
            self._end("incomplete", "max_output_tokens")
        await self.trouble.at(self.phase, in_speech=True)

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not on after the end was asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _rate_limits(self) -> None:
        left = 200_000 - self.read.total
        await self.socket.emit(
            "rate_limits.updated",
            rate_limits=[
                {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 0.06},
                {"name": "tokens", "limit": 200_000, "remaining": left, "reset_seconds": 1.2},
            ],
        )

    def _wire(self) -> dict[str, Any]:
        done = self.status != "in_progress"
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self._status_details(),
            "output": [item.wire for item in self._output] if done else [],
            "conversation_id": self.conversation.id if self.settings.in_conversation else None,
            "output_modalities": [self.settings.modality],
            "max_output_tokens": self.settings.max_output_tokens,
            "audio": {
                "output": {
                    "format": {"type": "audio/pcm", "rate": RATE_HZ},
                    "voice": self.settings.voice_name,
                }
            },
            "usage": self._usage() if done else None,
            "metadata": self.settings.metadata,
        }

    def _status_details(self) -> dict[str, Any] | None:
        if self.status == "failed":
            return {"type": "failed", "error": _SERVER_ERROR}
        if self.status in ("cancelled", "incomplete"):
            return {"type": self.status, "reason": self._reason}
        return None

    def _usage(self) -> dict[str, Any]:
        if self.status == "failed":
            return usage(Tokens(), Tokens(), Tokens())
        return usage(self.read, self.cached, output_tokens(self._text, self.audio_ms))


def _words(text: str, *, first: bool) -> list[str]:
    """The words of ``text``, each but the very first with the space before it."""
    words = [f" {word}" for word in text.split()]
    if first and words:
        words[0] = words[0].lstrip()
    return words


def _part(index: int, chunks: list[bytes], words: list[str]) -> int:
    """How many words are told by the beginning of chunk ``index``: the transcript runs ahead."""
    return -(-len(words) * index // max(len(chunks), 1))


def _padding(delta: str) -> str:
    """The undocumented ``obfuscation`` that evens out the length of events on the wire."""
    return "x" * (16 - len(delta) % 16)
