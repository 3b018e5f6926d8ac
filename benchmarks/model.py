"""A stand-in for OpenAI Realtime that costs next to nothing and knows when everything happened.

It speaks the GA wire's events in their documented order, judges nothing, and keeps a timetable of
its own: some seconds after the first audio the caller speaks, is answered, interrupts, is answered,
and so on. Answers come four times as fast as they sound, in deltas of 100 ms, begun 150 ms after
they were asked for. Where a session wants text they are written, word by word, and their first
sentence tells the caller's number. (`tests.fakes.openai` is the strict one; here it would be what
is measured.)
"""

from __future__ import annotations

import asyncio
import binascii
import json
import math
import re
import time
from array import array
from collections.abc import Callable
from typing import Any

from benchmarks import sockets, stamps

DELTA_MS = 100
SPEED = 4.0
LATENCY_S = 0.15
#: What an answer sounds for; the caller interrupts every second one in its middle.
ANSWER_MS = 6000
GREETING_MS = 3000
INTERRUPTED_AT_S = 3.0
#: From the end of an answer, or of the greeting, to the caller's next words; and their length.
THINKS_S = 0.6
SPEAKS_S = 1.0
#: From the end of his words to the answer's beginning is `LATENCY_S`, as for every answer.
FIRST_TURN_S = GREETING_MS / 1000 + LATENCY_S + THINKS_S

_SESSION = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "sess_bench",
    "model": "gpt-realtime",
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "audio": {
        "input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None},
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
    },
}
_USAGE = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64},
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
_EXACTLY = re.compile(r"Say exactly:\s*(.+)", re.DOTALL)
_MS_PER_LETTER = 60
_APPEND = b"input_audio_buffer.append"
_WORDS = "of course I can tell you all about that right away "
#: A written answer: its first sentence tells whose it is, and twenty words come each second.
FIRST_SENTENCE = "Caller {} wants to know that."
_SENTENCES = FIRST_SENTENCE + " I can tell you all about it. It is as simple as this. Ask me more."
_WORD_S = 0.05


def tone(rate_hz: int, length_ms: int) -> bytes:
    """A voice for machines, s16le: 400 Hz, well audible. Pieces of 100 ms hold forty turns of it,
    so one follows the other without a gap.
    """
    turn = 2 * math.pi * 400 / rate_hz
    wave = (int(6000 * math.sin(turn * n)) for n in range(rate_hz * length_ms // 1000))
    return array("h", wave).tobytes()


_DELTA = binascii.b2a_base64(tone(stamps.MODEL_HZ, DELTA_MS), newline=False).decode()


class Conversation:
    """One connection. `on_stamp` is told the numbers of the caller's frames as their middles come,
    `on_event` what was sent that the phone's side is to react to.
    """

    def __init__(self, socket: sockets.Socket, on_known: Callable[[Conversation], None]) -> None:
        self.socket = socket
        self.reader = stamps.Reader()
        #: Only where it is looked at; the others' audio is counted.
        self.read_stamps = True
        self.on_stamps: Callable[[list[int], float], None] = lambda numbers, now: None
        self.on_first_delta: Callable[[float], None] = lambda now: None
        self.on_speech_started: Callable[[float, bool], None] = lambda now, speaking: None
        #: The first sentence of a written answer is complete: the next one has begun.
        self.on_first_sentence: Callable[[float], None] = lambda now: None
        self.appends = 0
        self._on_known = on_known
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._ids = 0
        self._turns = 0
        self._answers = 0
        self._auto = True
        self._writes = False
        self._item = ""
        self._previous: str | None = None
        self._sounds_until_s = -math.inf
        socket.on_message, socket.on_closed = self._take, self._closed
        self._send({"type": "session.created", "session": _SESSION})

    # ------------------------------------------------------------------ in

    def _take(self, opcode: int, payload: bytes) -> None:
        if _APPEND in payload[:160]:
            self._append(payload)
            return
        event = json.loads(payload)
        match event.get("type"):
            case "session.update":
                self._configure(event["session"])
            case "response.create":
                self._asked(event.get("response") or {})
            case "conversation.item.create":
                self._add(event["item"])
            case "conversation.item.truncate":
                told = {"item_id": event["item_id"], "content_index": 0}
                told["audio_end_ms"] = event["audio_end_ms"]
                self._send({"type": "conversation.item.truncated", **told})
            case "conversation.item.delete":
                told = {"item_id": event["item_id"]}
                self._send({"type": "conversation.item.deleted", **told})

    def _asked(self, response: dict[str, Any]) -> None:
        metadata, said = response.get("metadata"), _EXACTLY.search(response.get("instructions", ""))
        text = said[1].strip() if said else ""
        if text:
            answer_ms = DELTA_MS * (1 + len(text) * _MS_PER_LETTER // DELTA_MS)
        else:
            answer_ms = ANSWER_MS if self._answers else GREETING_MS
        self._after(LATENCY_S, lambda: self._answer(answer_ms, text, metadata))

    def _configure(self, session: dict[str, Any]) -> None:
        detection = session.get("audio", {}).get("input", {}).get("turn_detection") or {}
        self._auto = detection.get("create_response") is not False
        self._writes = session.get("output_modalities") == ["text"]
        self._send({"type": "session.updated", "session": _merged(_SESSION, session)})

    def _append(self, payload: bytes) -> None:
        now = time.perf_counter()
        self.appends += 1
        if self.appends == 1:
            self._after(FIRST_TURN_S, self._caller_speaks)
        if self.read_stamps:
            start = payload.index(b'"', payload.index(b'"audio"') + 7) + 1
            pcm = binascii.a2b_base64(payload[start : payload.index(b'"', start)])
            known = self.reader.phone is not None
            numbers = self.reader.numbers(pcm)
            if not known and self.reader.phone is not None:
                self._on_known(self)
            elif numbers:
                self.on_stamps(numbers, now)

    # ------------------------------------------------------------------ the timetable

    def _caller_speaks(self) -> None:
        self._turns += 1
        item_id = self._new_id("item")
        now = time.perf_counter()
        self.on_speech_started(now, now < self._sounds_until_s)
        self._send(
            {"type": "input_audio_buffer.speech_started", "audio_start_ms": 0, "item_id": item_id}
        )
        self._item = ""
        self._sounds_until_s = now
        self._after(SPEAKS_S, lambda: self._caller_stops(item_id))

    def _caller_stops(self, item_id: str) -> None:
        spoken = {"type": "input_audio", "transcript": None}
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed"}
        item["content"] = [spoken]  # type: ignore[assignment]
        self._send(
            {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 0, "item_id": item_id}
        )
        self._send({"type": "input_audio_buffer.committed", **self._follows(), "item_id": item_id})
        self._tell_item(item)
        self._send(
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": item_id,
                "content_index": 0,
                "transcript": "And what else can you tell me?",
                "usage": {"type": "tokens", **_USAGE},
            }
        )
        if self._auto:
            self._after(LATENCY_S, lambda: self._answer(ANSWER_MS))

    def _answer(self, answer_ms: int, text: str = "", metadata: object = None) -> None:
        self._answers += 1
        response = {
            "object": "realtime.response",
            "id": self._new_id("resp"),
            "status": "in_progress",
            "status_details": None,
            "conversation_id": "conv_bench",
            "output": [],
            "output_modalities": ["text" if self._writes else "audio"],
            "max_output_tokens": "inf",
            "usage": None,
            "metadata": metadata,
        }
        item_id = self._item = self._new_id("item")
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        at = {"response_id": response["id"], "item_id": item_id}
        at |= {"output_index": 0, "content_index": 0}
        of_response = {"response_id": response["id"], "output_index": 0}
        self._send({"type": "response.created", "response": response})
        self._send({"type": "response.output_item.added", **of_response, "item": item})
        self._send({"type": "conversation.item.added", **self._follows(), "item": item})
        self._previous = item_id
        part = {"type": "text", "text": ""} if self._writes else {"type": "audio", "transcript": ""}
        self._send({"type": "response.content_part.added", **at, "part": part})
        self._sounds_until_s = time.perf_counter() + answer_ms / 1000
        if self._writes:
            self._write(response, item, at, text or _SENTENCES.format(self.reader.phone))
        else:
            self._speak(response, item, at, answer_ms, text)
        interrupted = self._answers % 2 == 0
        due_s = INTERRUPTED_AT_S if interrupted else answer_ms / 1000 + THINKS_S
        if self._turns:
            self._after(due_s, self._caller_speaks)

    def _write(
        self, response: dict[str, Any], item: dict[str, Any], at: dict[str, Any], text: str
    ) -> None:
        words = re.findall(r"\s*\S+", text)
        second_sentence = len(FIRST_SENTENCE.split())

        def write(sent: int) -> None:
            if self._item != item["id"]:
                return
            if sent == second_sentence:
                self.on_first_sentence(time.perf_counter())
            self._send({"type": "response.output_text.delta", **at, "delta": words[sent]})
            if sent + 1 < len(words):
                self._after(_WORD_S, lambda: write(sent + 1))
            else:
                self._send({"type": "response.output_text.done", **at, "text": text})
                part = {"type": "text", "text": text}
                self._finish(response, item, at, part, {"type": "output_text", "text": text})

        write(0)

    def _speak(
        self,
        response: dict[str, Any],
        item: dict[str, Any],
        at: dict[str, Any],
        answer_ms: int,
        text: str,
    ) -> None:
        self.on_first_delta(time.perf_counter())
        # Frames that repeat are made once.
        delta = self._made({"type": "response.output_audio.delta", **at, "delta": _DELTA})
        deltas = answer_ms // DELTA_MS
        # What was asked for word for word is told at once, all else word by word.
        every = deltas if text else 5
        words = self._made(
            {"type": "response.output_audio_transcript.delta", **at, "delta": text or _WORDS}
        )
        transcript = text or _WORDS * (-(-deltas // every))

        def speak(sent: int) -> None:
            if self._item != item["id"]:
                return
            self.socket.write(words + delta if sent % every == 0 else delta)
            if sent + 1 < deltas:
                self._after(DELTA_MS / 1000 / SPEED, lambda: speak(sent + 1))
            else:
                self._send({"type": "response.output_audio.done", **at})
                said = {"transcript": transcript}
                self._send({"type": "response.output_audio_transcript.done", **at, **said})
                part = {"type": "audio", **said}
                self._finish(response, item, at, part, {"type": "output_audio", **said})

        speak(0)

    def _finish(
        self,
        response: dict[str, Any],
        item: dict[str, Any],
        at: dict[str, Any],
        part: dict[str, Any],
        whole: dict[str, Any],
    ) -> None:
        item = {**item, "status": "completed", "content": [whole]}
        of_response = {"response_id": response["id"], "output_index": 0}
        self._send({"type": "response.content_part.done", **at, "part": part})
        self._send({"type": "conversation.item.done", **self._follows(), "item": item})
        self._send({"type": "response.output_item.done", **of_response, "item": item})
        done = {**response, "status": "completed", "output": [item], "usage": _USAGE}
        self._send({"type": "response.done", "response": done})

    # ------------------------------------------------------------------ small things

    def _add(self, item: dict[str, Any]) -> None:
        self._tell_item({"id": self._new_id("item"), "status": "completed", **item})

    def _tell_item(self, item: dict[str, Any]) -> None:
        told = {**self._follows(), "item": {"object": "realtime.item", **item}}
        self._send({"type": "conversation.item.added", **told})
        self._send({"type": "conversation.item.done", **told})
        self._previous = item["id"]

    def _follows(self) -> dict[str, str | None]:
        return {"previous_item_id": self._previous}

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._ids}"

    def _made(self, event: dict[str, Any]) -> bytes:
        text = json.dumps({"event_id": self._new_id("event"), **event}, separators=(",", ":"))
        return sockets.frame(sockets.TEXT, text.encode(), masked=False)

    def _send(self, event: dict[str, Any]) -> None:
        self.socket.write(self._made(event))

    def _after(self, delay_s: float, what: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(handle)
            what()

        handle = self._loop.call_later(delay_s, due)
        self._timers.add(handle)

    def _closed(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class Model:
    """Listens on a free port from `start` to `stop`; `url` is what belongs into OPENAI_BASE_URL."""

    def __init__(self, on_known: Callable[[Conversation], None]) -> None:
        self._on_known = on_known
        self._server: asyncio.Server | None = None
        self.conversations: list[Conversation] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_conversations(self) -> int:
        return sum(not each.socket.closed for each in self.conversations)

    def forget(self) -> None:
        """Those that are over."""
        self.conversations = [each for each in self.conversations if not each.socket.closed]

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: sockets.Socket(client=False, on_handshake=self._shaken),
            "127.0.0.1",
            0,
            backlog=512,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for each in self.conversations:
            each.socket.abort_soon()

    def _shaken(self, socket: sockets.Socket, head: bytes) -> None:
        if b"upgrade: websocket" not in head.lower():
            # Its other addresses are not what is measured.
            socket.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            socket.abort_soon()
            return
        sockets.accept(socket, head)
        self.conversations.append(Conversation(socket, self._on_known))


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, object by object."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result
