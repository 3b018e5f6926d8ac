"""One Realtime connection of the fake OpenAI: judges what comes in, says what it is told to say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.openai_commands import obey
from tests.fakes.openai_conversation import (
    Conversation,
    Item,
    RuleBroken,
    Truncation,
    default_session,
)
from tests.fakes.openai_ear import Ear, Turn
from tests.fakes.openai_response import Response
from tests.fakes.openai_script import Reply, Script, ToolCall
from tests.fakes.oracle import event_mistakes, server_event_mistakes
from tests.fakes.pattern import VOICES, caller_of
from tests.fakes.sockets import Closed, WebSocket
from tests.fakes.waiting import eventually

_SAY_EXACTLY = re.compile(r"Say exactly:\s*(.+)", re.DOTALL)
_KEPT_AUDIO_BYTES = 96_000  # two seconds of 24 kHz
_ONLY_WHEN_CONFIGURED = ("input_audio_buffer.", "response.create")


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event and when it passed; audio is replaced by its length in bytes."""

    at_s: float
    event: Mapping[str, Any]

    @property
    def type(self) -> str:
        return str(self.event["type"])


class RealtimeConnection:
    """See `tests.fakes.openai` for how a test uses it."""

    def __init__(
        self, index: int, model: str, script: Script, headers: Mapping[str, str], log: list[str]
    ) -> None:
        self.index = index
        self.model = model
        self.script = script
        self.headers = headers
        self.opened_s = time.monotonic()
        #: Everything the client sent and was sent, in order.
        self.received: list[Stamped] = []
        self.sent: list[Stamped] = []
        #: Codes of the errors that the client has earned, and how often.
        self.errors: Counter[str] = Counter()
        self.truncations: list[Truncation] = []
        self.deleted: list[str] = []
        life_s = 3600.0 if script.expires_in_s is None else script.expires_in_s
        self.session = default_session(f"sess_{index}", model, int(time.time() + life_s))
        self.conversation = Conversation()
        #: session.updated has been sent.
        self.configured = False
        self.active: Response | None = None
        #: Milliseconds of caller's audio that came in, and when the first of it came.
        self.audio_in_ms = 0.0
        self.first_audio_s: float | None = None
        self.audio_in = bytearray()
        #: Something has been spoken, so the voice can no longer be changed.
        self.voice_used = False
        self._voices = 0
        self._ids: Counter[str] = Counter()
        self._log = log
        self._socket: WebSocket | None = None
        self._children: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._speech_item = ""
        self._frozen = False
        #: Hears nothing of the caller, though his audio comes in; if `script.listens`.
        self.deaf = False
        self._ear = Ear(24_000)

    # ------------------------------------------------------------ what a test asks

    @property
    def open(self) -> bool:
        return self._socket is not None and not self._socket.closed.is_set()

    @property
    def close_code(self) -> int | None:
        """The client's close code; 1006 when it left without one, None while open."""
        return self._socket.close_code if self._socket else None

    @property
    def spoken(self) -> list[Item]:
        """The items that this side has spoken with a voice, in order."""
        return [i for i in self.conversation.items.values() if i.voice is not None]

    def got(self, kind: str) -> list[Mapping[str, Any]]:
        """The client's events of this type, in order."""
        return [stamped.event for stamped in self.received if stamped.type == kind]

    async def wait_for(self, kind: str, nth: int = 1, timeout_s: float = 5.0) -> Stamped:
        """The nth event of this type from the client."""

        def probe() -> list[Stamped]:
            return [stamped for stamped in self.received if stamped.type == kind][nth - 1 : nth]

        return (await eventually(f"{kind} number {nth}", probe, timeout_s))[0]

    async def wait_configured(self, timeout_s: float = 5.0) -> None:
        await eventually("session.updated", lambda: self.configured, timeout_s)

    async def wait_idle(self, timeout_s: float = 5.0) -> None:
        """No response is being generated (the phone may still be playing it)."""
        await eventually("the end of the response", lambda: self.active is None, timeout_s)

    async def wait_closed(self, timeout_s: float = 5.0) -> None:
        await eventually("the client closing", lambda: not self.open, timeout_s)

    @property
    def told(self) -> list[tuple[str, str]]:
        """See `Conversation.told`."""
        return self.conversation.told

    def caller(self) -> int | None:
        """Which caller's tone came in during the last moments; None for silence."""
        return caller_of(bytes(self.audio_in[-9600:]), 24_000)

    # ------------------------------------------------------------ what a test makes happen

    async def speech_started(self) -> float:
        """The caller begins to speak. The moment (monotonic) at which it went out."""
        turn = self._turn_detection()
        if not self._speech_item:
            self._speech_item = self.new_id("item")
        at_s = await self.send(
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": int(self.audio_in_ms),
                "item_id": self._speech_item,
            }
        )
        if turn.get("interrupt_response", True) and self.active and self.active.created:
            self.active.cancel("turn_detected")
        return at_s

    async def speech_stopped(self) -> None:
        event = {"type": "input_audio_buffer.speech_stopped", "item_id": self._speech_item}
        await self.send({**event, "audio_end_ms": int(self.audio_in_ms)})

    async def caller_said(self, text: str, *, transcription_fails: bool = False) -> str:
        """A whole turn of the caller; answered if the session creates responses. Its item's id."""
        if not self._speech_item:
            await self.speech_started()
        await self.speech_stopped()
        item_id, self._speech_item = self._speech_item, ""
        content = [{"type": "input_audio", "transcript": None}]
        data = {"id": item_id, "type": "message", "role": "user", "status": "completed"}
        item = Item(item_id, {**data, "content": content}, text=text)
        self.conversation.add(item)
        previous = {"previous_item_id": self.conversation.before(item_id)}
        await self.send({"type": "input_audio_buffer.committed", "item_id": item_id, **previous})
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self.send({"type": kind, "item": item.data, **previous})
        if (self.session["audio"]["input"].get("transcription")) is not None:
            self.spawn(self._transcribe(item_id, text, transcription_fails))
        if self._turn_detection().get("create_response", True):
            await self.respond()
        return item_id

    async def respond(self, reply: Reply | None = None) -> str:
        """A response of the server's own accord, as after a turn of the caller. Its id."""
        if self.active and self.active.cancelled.is_set():
            await self.wait_idle()
        if self.active:
            await self.tell(RuleBroken("conversation_already_has_active_response", "busy"), None)
            return ""
        return self.begin(reply or self.script.next_reply(), {}).id

    async def call_tool(self, name: str, arguments: dict[str, Any] | str, say: str = "") -> str:
        """The model calls a tool (after saying something, if told so). The call's id."""
        call = ToolCall(name, ToolCall.of(name, arguments).arguments, self.new_id("call"))
        await self.wait_idle()
        self.begin(Reply(text=say, tools=(call,)), {}, silent=not say)
        return call.call_id

    async def tool_output(self, call_id: str, timeout_s: float = 5.0) -> str:
        """What the client answered to a tool call."""
        output = self.conversation.calls.get
        await eventually(f"the output of {call_id}", lambda: output(call_id) is not None, timeout_s)
        return str(output(call_id))

    async def error(self, code: str, message: str = "scripted") -> None:
        await self.tell(RuleBroken(code, message), None, earned=False)

    async def send(self, event: Mapping[str, Any]) -> float:
        """Any event, known or not, with an event_id. When it went out (monotonic)."""
        whole = {"event_id": self.new_id("event"), **event}
        wrong = server_event_mistakes(whole)
        if wrong and "reasoning" not in str(event.get("item", event.get("response"))):
            raise AssertionError(f"the stand-in itself is wrong: {wrong}")
        await self.send_raw(json.dumps(whole))
        light = whole
        if whole["type"] == "response.output_audio.delta":
            light = {**whole, "delta": len(whole["delta"]) * 3 // 4}
        self.sent.append(Stamped(time.monotonic(), light))
        return self.sent[-1].at_s

    async def send_raw(self, message: str | bytes) -> None:
        """Whatever it is: garbage too."""
        assert self._socket is not None
        await self._socket.send(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        assert self._socket is not None
        await self._socket.close(code, reason)

    def abort(self) -> None:
        """The network between the two is cut."""
        assert self._socket is not None
        self._socket.abort()

    def fall_dumb(self) -> None:
        """Nothing more is sent, not even the answer to a close frame."""
        assert self._socket is not None
        self._socket.dumb = True

    def freeze(self) -> None:
        """Neither answers nor heeds anything from now on, while TCP stays up."""
        self._frozen = True
        self.fall_dumb()

    # ------------------------------------------------------------ the connection's own life

    async def run(self, socket: WebSocket) -> None:
        """Serves the connection until the client has gone."""
        self._socket = socket
        try:
            async with asyncio.TaskGroup() as self._tasks:
                try:
                    await self._open()
                    while True:
                        await self._take(await socket.receive())
                except Closed:
                    pass
                finally:
                    for child in self._children:
                        child.cancel()
        finally:
            socket.abort()

    async def _open(self) -> None:
        if self.script.hang:
            return
        if self.script.error_then_close:
            code, close_code = self.script.error_then_close
            await self.error(code)
            await self.close(close_code)
            return
        await self.send({"type": "session.created", "session": self.session})
        if self.script.expires_in_s is not None:
            self.spawn(self._expire(self.script.expires_in_s))

    async def _expire(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        limit = "Your session hit the maximum duration of 60 minutes."
        await self.tell(RuleBroken("session_expired", limit), None, earned=False)
        await self.close(1001, "going away")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside the reading, at most as long as the connection lives."""

        async def child() -> None:
            with contextlib.suppress(Closed):
                await work

        assert self._tasks is not None
        task = self._tasks.create_task(child())
        self._children.add(task)
        task.add_done_callback(self._children.discard)

    def complain(self, text: str) -> None:
        """Notes a violation of the published protocol."""
        self._log.append(f"connection {self.index}: {text}")

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.complain("a binary frame; the protocol has text frames only")
            return
        try:
            event = json.loads(message)
        except ValueError:
            self.complain("a text frame that is no JSON")
            return
        if self.script.hang or self._frozen:
            return
        wrong = event_mistakes(event, self.model)
        self._remember(event, bool(wrong))
        if wrong:
            for text in wrong:
                self.complain(text)
            code = "unknown_parameter" if "unknown field" in wrong[0] else "invalid_value"
            await self.tell(RuleBroken(code, wrong[0]), event.get("event_id"))
            return
        if event["type"].startswith(_ONLY_WHEN_CONFIGURED) and not self.configured:
            self.complain(f"{event['type']} before session.updated")
        try:
            await obey(self, event)
        except RuleBroken as broken:
            await self.tell(broken, event.get("event_id"))
        if event["type"] == "input_audio_buffer.append" and self.script.listens and not self.deaf:
            for turn in self._ear.hear(base64.b64decode(event["audio"])):
                if turn is Turn.BEGUN:
                    await self.speech_started()
                else:
                    await self.caller_said(self._ear.words())

    def _remember(self, event: dict[str, Any], wrong: bool) -> None:
        light = event
        if event.get("type") == "input_audio_buffer.append":
            light = {**event, "audio": len(str(event.get("audio"))) * 3 // 4}
            if not wrong:
                self._listen(base64.b64decode(event["audio"]))
        self.received.append(Stamped(time.monotonic(), light))

    def _listen(self, audio: bytes) -> None:
        if self.first_audio_s is None:
            self.first_audio_s = time.monotonic()
        pcm = self.session["audio"]["input"]["format"]["type"] == "audio/pcm"
        self.audio_in_ms += len(audio) / (48 if pcm else 8)
        self.audio_in += audio
        del self.audio_in[:-_KEPT_AUDIO_BYTES]

    def begin(self, reply: Reply, wanted: Mapping[str, Any], silent: bool = False) -> Response:
        """Starts a response; `wanted` is the `response` of a response.create."""
        modality = (wanted.get("output_modalities") or self.session["output_modalities"])[0]
        response = Response(
            id=self.new_id("resp"),
            reply=reply,
            text="" if silent else self._text_for(reply, wanted),
            modality=modality,
            send=self.send,
            conversation=self.conversation,
            new_id=self.new_id,
            new_voice=self._new_voice,
            base={
                "conversation_id": f"conv_{self.index}",
                "output_modalities": [modality],
                "metadata": wanted.get("metadata"),
            },
            out_of_band=wanted.get("conversation") == "none",
            unknown_events=self.script.unknown_events,
        )
        if not response.out_of_band:
            self.active = response
        self.voice_used |= modality == "audio"
        self.spawn(self._run_response(response))
        return response

    async def _run_response(self, response: Response) -> None:
        try:
            await response.run()
        finally:
            if self.active is response:
                self.active = None

    def _text_for(self, reply: Reply, wanted: Mapping[str, Any]) -> str:
        if reply.text:
            return reply.text
        found = _SAY_EXACTLY.search(wanted.get("instructions") or "")
        if found:
            return found.group(1).strip().strip("\"'“”«»")
        return f"This is answer number {self._ids['resp']} of the stand-in."

    async def _transcribe(self, item_id: str, text: str, fails: bool) -> None:
        await asyncio.sleep(self.script.transcription_delay_s)
        kind = "conversation.item.input_audio_transcription"
        keys = {"item_id": item_id, "content_index": 0}
        if fails:
            error = {"type": "server_error", "code": "audio_unintelligible", "message": "unclear"}
            await self.send({"type": f"{kind}.failed", **keys, "error": error})
            return
        await self.send({"type": f"{kind}.delta", **keys, "delta": text})
        usage = {"type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9}
        await self.send({"type": f"{kind}.completed", **keys, "transcript": text, "usage": usage})

    async def tell(self, broken: RuleBroken, event_id: str | None, earned: bool = True) -> None:
        """Sends an `error`; `earned` ones are counted in `errors`."""
        if earned:
            self.errors[broken.code] += 1
        error = {"type": "invalid_request_error", "code": broken.code, "message": broken.message}
        await self.send(
            {"type": "error", "error": {**error, "param": broken.param, "event_id": event_id}}
        )

    def _turn_detection(self) -> Mapping[str, Any]:
        turn = self.session["audio"]["input"]["turn_detection"]
        if turn is None:
            raise AssertionError("the session has no turn detection, so the server hears no turn")
        return dict(turn)

    def new_id(self, kind: str) -> str:
        """An id that no other item, event or call of any connection has."""
        self._ids[kind] += 1
        return f"{kind}_{self.index}_{self._ids[kind]}"

    def _new_voice(self) -> int:
        """Voices differ between the items of a call and, mostly, between calls."""
        self._voices += 1
        return (self.index * 5 + self._voices - 1) % VOICES
