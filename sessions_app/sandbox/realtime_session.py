"""One realtime session: the client's events in, turns and responses out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sessions_app.sandbox.checks import (
    Check,
    WireError,
    free_object,
    integer,
    nullable,
    record,
    string,
)
from sessions_app.sandbox.conf import Tempo
from sessions_app.sandbox.ear import SpeechStarted, SpeechStopped, recognise
from sessions_app.sandbox.faults import Fault, Phase
from sessions_app.sandbox.mind import plan
from sessions_app.sandbox.realtime_config import (
    RATE_HZ,
    SESSION_S,
    check_response,
    check_session,
    defaults,
    merged,
)
from sessions_app.sandbox.realtime_conversation import Conversation, Item, check_item, text_tokens
from sessions_app.sandbox.realtime_input import InputAudio, Utterance
from sessions_app.sandbox.realtime_response import Response, Settings
from sessions_app.sandbox.realtime_socket import ClosingError, EventSocket, new_id
from sessions_app.sandbox.realtime_trouble import Trouble, error_of, session_expired
from sessions_app.sandbox.realtime_usage import Tokens, input_tokens
from sessions_app.sandbox.samples import END_CALL, STILL_THERE
from sessions_app.sandbox.voice import duration_ms

_MS_PER_INPUT_TOKEN: Final = 100
# How long after its beginning a fault strikes into a phase that has no middle of its own.
_INTO_PHASE_S: Final = 0.4
_EVENT: Final[dict[str, Check]] = {"type": string(), "event_id": string(0, 512)}


def _event(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    return record(_EVENT | required | (optional or {}), required=tuple(required))


def _anything(value: Any, path: str) -> None:
    """Checked later, by who knows the session."""


_EVENTS: Final[dict[str, Check]] = {
    "session.update": _event({"session": free_object}),
    "input_audio_buffer.append": _event({"audio": string(max_chars=16 << 20)}),
    "input_audio_buffer.commit": _event({}),
    "input_audio_buffer.clear": _event({}),
    "output_audio_buffer.clear": _event({}),
    "conversation.item.create": _event(
        {"item": free_object}, {"previous_item_id": nullable(string())}
    ),
    "conversation.item.retrieve": _event({"item_id": string()}),
    "conversation.item.truncate": _event(
        {"item_id": string(), "content_index": integer(0, 100), "audio_end_ms": integer(0, 1 << 31)}
    ),
    "conversation.item.delete": _event({"item_id": string()}),
    "response.create": _event({}, {"response": nullable(_anything)}),
    "response.cancel": _event({}, {"response_id": nullable(string())}),
}


class Session:
    """What one connection is: configuration, conversation, input audio, at most one response in it
    at a time.
    """

    def __init__(
        self,
        socket: EventSocket,
        group: asyncio.TaskGroup,
        *,
        model: str,
        tempo: Tempo,
        trouble: Trouble,
    ) -> None:
        self._socket = socket
        self._group = group
        self._tempo = tempo
        self._trouble = trouble
        self._conf = defaults(model, new_id("sess"))
        self._conversation = Conversation(new_id("conv"))
        self._input = InputAudio(self._conf["audio"]["input"]["turn_detection"])
        self._active: Response | None = None
        self._responses = 0
        self._turns = 0
        self._speech_item = ""
        self._into_speech_ms: int | None = None
        """Where on the input's clock a fault would strike into what the caller says."""
        self._cached = Tokens()
        self._has_spoken = False
        self._idle: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Greets the client with ``session.created`` and starts the session's clock."""
        self._group.create_task(self._expire())
        self._group.create_task(self._trouble.in_time(lambda: self._active is not None))
        await self._trouble.at(Phase.BEFORE_GREETING)
        await self._socket.emit("session.created", session=self._conf)

    async def handle(self, text: str | None) -> dict[str, Any] | None:
        """Takes one message of the client; what is wrong with it is answered. Returns the event
        when it was one.
        """
        event: dict[str, Any] = {}
        try:
            event = _parsed(text)
            kind = event["type"]
            _EVENTS[kind](event, "")
            await _HANDLERS[kind](self, event)
        except WireError as error:
            event_id = event.get("event_id")
            await self._socket.error(error, event_id if isinstance(event_id, str) else None)
        return event or None

    # --- session ---

    async def _session_update(self, event: dict[str, Any]) -> None:
        check_session(event["session"], self._conf, has_spoken=self._has_spoken)
        self._conf = merged(self._conf, event["session"])
        self._input.configure(self._conf["audio"]["input"]["turn_detection"])
        await self._socket.emit("session.updated", session=self._conf)

    async def _expire(self) -> None:
        await asyncio.sleep(SESSION_S)
        await self._socket.error(session_expired())
        raise ClosingError(1001, "session expired")

    # --- input audio ---

    async def _append(self, event: dict[str, Any]) -> None:
        heard = self._input.append(event["audio"])
        if self._into_speech_ms is not None and self._input.at_ms >= self._into_speech_ms:
            self._into_speech_ms = None
            await self._trouble.at(Phase.CALLER_SPEAKING)
        for noticed in [] if self._trouble.is_deaf else heard:
            match noticed:
                case SpeechStarted(audio_start_ms):
                    await self._speech_started(audio_start_ms)
                case SpeechStopped(start_ms, end_ms, pcm):
                    await self._speech_stopped(Utterance(pcm, start_ms, end_ms))

    async def _speech_started(self, audio_start_ms: int) -> None:
        self._stop_waiting()
        self._speech_item = new_id("item")
        await self._socket.emit(
            "input_audio_buffer.speech_started",
            audio_start_ms=audio_start_ms,
            item_id=self._speech_item,
        )
        self._into_speech_ms = self._input.at_ms + int(1000 * _INTO_PHASE_S)
        if self._active is not None and self._turn_detection()["interrupt_response"]:
            self._active.cancel("turn_detected")

    async def _speech_stopped(self, utterance: Utterance) -> None:
        self._into_speech_ms = None
        await self._socket.emit(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=utterance.end_ms,
            item_id=self._speech_item,
        )
        await self._committed(utterance, self._speech_item)
        if self._turn_detection()["create_response"]:
            await self._answer_turn()

    async def _answer_turn(self, request: dict[str, Any] | None = None) -> None:
        try:
            await self._respond(request or {})
        except WireError as error:  # another response is running: nobody's event is to blame
            await self._socket.error(error)

    async def _commit(self, event: dict[str, Any]) -> None:
        await self._committed(self._input.commit(), new_id("item"))

    async def _clear(self, event: dict[str, Any]) -> None:
        self._input.clear()
        await self._socket.emit("input_audio_buffer.cleared")

    async def _clear_output(self, event: dict[str, Any]) -> None:
        message = "'output_audio_buffer.clear' is only supported over WebRTC and SIP."
        raise WireError("invalid_event", message, "type")

    async def _committed(self, utterance: Utterance, item_id: str) -> None:
        audio_ms = duration_ms(utterance.pcm, RATE_HZ)
        wire = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        item = Item(wire, audio_ms, said=recognise(utterance.pcm, RATE_HZ))
        previous = self._conversation.append(item)
        self._trouble.caller_spoke()
        await self._socket.emit(
            "input_audio_buffer.committed", previous_item_id=previous, item_id=item_id
        )
        await self._added(item, previous)
        transcription = self._conf["audio"]["input"]["transcription"]
        if transcription is not None:
            lags = self._tempo.transcription_s
            lag_s = lags[self._turns % len(lags)]
            model = str(transcription.get("model") or "whisper-1")
            self._group.create_task(self._transcribe(item, model, lag_s))
        self._turns += 1

    async def _transcribe(self, item: Item, model: str, lag_s: float) -> None:
        await asyncio.sleep(lag_s)
        prefix = "conversation.item.input_audio_transcription"
        where = {"item_id": item.id, "content_index": 0}
        item.wire["content"][0]["transcript"] = item.said
        # whisper-1 gives its whole text in one delta, the newer models stream.
        words = item.said.split(" ")
        deltas = [item.said] if model == "whisper-1" else words[:1] + [f" {w}" for w in words[1:]]
        for delta in deltas:
            await self._socket.emit(f"{prefix}.delta", **where, delta=delta)
        seconds = round(item.audio_ms / 1000, 3)
        audio_tokens = -(-item.audio_ms // _MS_PER_INPUT_TOKEN)
        written = text_tokens(item.said)
        usage = (
            {"type": "duration", "seconds": seconds}
            if model == "whisper-1"
            else {
                "type": "tokens",
                "total_tokens": audio_tokens + written,
                "input_tokens": audio_tokens,
                "input_token_details": {"text_tokens": 0, "audio_tokens": audio_tokens},
                "output_tokens": written,
            }
        )
        await self._socket.emit(f"{prefix}.completed", **where, transcript=item.said, usage=usage)

    def _turn_detection(self) -> dict[str, Any]:
        off = {"create_response": False, "interrupt_response": False}
        return self._conf["audio"]["input"]["turn_detection"] or off

    # --- items ---

    async def _added(self, item: Item, previous: str | None) -> None:
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._socket.emit(kind, previous_item_id=previous, item=item.wire)

    async def _item_create(self, event: dict[str, Any]) -> None:
        check_item(event["item"], "item")
        wire = {"id": new_id("item")} | event["item"]
        item, previous = self._conversation.create(wire, event.get("previous_item_id"))
        await self._added(item, previous)
        await self._told_of(item)

    async def _told_of(self, item: Item) -> None:
        """What the client tells may mean that the call has come to a phase of its own making."""
        if item.role == "assistant" and self._phase() is Phase.DURING_GREETING:
            # A greeting that another voice speaks.
            self._group.create_task(self._trouble.soon(Phase.DURING_GREETING, _INTO_PHASE_S))
        elif item.role == "function_call_output" and self._answers_end(item.wire["call_id"]):
            await self._trouble.at(Phase.AT_HANG_UP)

    def _answers_end(self, call_id: str) -> bool:
        return any(
            known.wire.get("call_id") == call_id and known.wire.get("name") == END_CALL
            for known in self._conversation.items
        )

    def _phase(self) -> Phase:
        """Whether what is said now is the greeting or an answer."""
        answered = any(item.role == "user" for item in self._conversation.items)
        is_greeting = self._responses == 0 and not answered
        return Phase.DURING_GREETING if is_greeting else Phase.AGENT_SPEAKING

    async def _item_retrieve(self, event: dict[str, Any]) -> None:
        item = self._conversation.retrieve(event["item_id"])
        await self._socket.emit("conversation.item.retrieved", item=item.wire)

    async def _item_truncate(self, event: dict[str, Any]) -> None:
        where = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        self._conversation.truncate(**where)
        await self._socket.emit("conversation.item.truncated", **where)

    async def _item_delete(self, event: dict[str, Any]) -> None:
        self._conversation.delete(event["item_id"])
        await self._socket.emit("conversation.item.deleted", item_id=event["item_id"])

    # --- responses ---

    async def _response_create(self, event: dict[str, Any]) -> None:
        request = event.get("response") or {}
        check_response(request, self._conf["model"])
        for index, item in enumerate(request.get("input", [])):
            if item.get("type") != "item_reference":
                check_item(item, f"response.input[{index}]")
        await self._respond(request)

    async def _response_cancel(self, event: dict[str, Any]) -> None:
        wanted = event.get("response_id")
        if self._active is None or wanted not in (None, self._active.id):
            raise WireError(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._active.cancel("client_cancelled")

    async def _respond(self, request: dict[str, Any]) -> None:
        in_conversation = request.get("conversation") != "none"
        if in_conversation and self._active is not None:
            raise WireError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self._active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        phase = self._phase()
        fault = self._trouble.with_response(phase) if in_conversation else None
        if fault is Fault.OPENAI_MUTE:
            return
        self._stop_waiting()
        self._responses += 1
        if (refused := error_of(fault)) is not None:
            raise refused
        response = self._response(request, in_conversation, phase, fault)
        if in_conversation:
            self._active = response
        self._has_spoken = self._has_spoken or response.settings.modality == "audio"
        self._group.create_task(self._run(response))

    def _response(
        self, request: dict[str, Any], in_conversation: bool, phase: Phase, fault: Fault | None
    ) -> Response:
        conf: dict[str, Any] = self._conf
        output = conf["audio"]["output"]
        voice = request.get("audio", {}).get("output", {}).get("voice", output["voice"])
        modalities = request.get("output_modalities", conf["output_modalities"])
        instructions = request.get("instructions", conf["instructions"])
        return Response(
            plan=plan(self._conversation, request, conf),
            settings=Settings(
                modality="text" if fault is Fault.OPENAI_TEXT else modalities[0],
                voice=voice,
                speed=output["speed"],
                max_output_tokens=request.get("max_output_tokens", conf["max_output_tokens"]),
                metadata=request.get("metadata"),
                in_conversation=in_conversation,
            ),
            conversation=self._conversation,
            socket=self._socket,
            tempo=self._tempo,
            read=input_tokens(self._conversation, instructions, conf["tools"]),
            cached=self._cached,
            trouble=self._trouble,
            phase=phase,
            fault=fault,
        )

    async def _run(self, response: Response) -> None:
        await response.run()
        if self._active is not response:
            return
        self._active = None
        self._cached = response.read
        idle_ms = self._turn_detection().get("idle_timeout_ms")
        if idle_ms and response.status == "completed":
            wait_s = response.playback_left_s() + idle_ms / 1000
            self._idle = self._group.create_task(self._nobody_speaks(wait_s, idle_ms))

    # --- idle timeout ---

    def _stop_waiting(self) -> None:
        if self._idle is not None and self._idle is not asyncio.current_task():
            self._idle.cancel()
        self._idle = None

    async def _nobody_speaks(self, wait_s: float, idle_ms: int) -> None:
        """After ``idle_timeout_ms`` of nothing, the empty audio is committed and the model speaks
        up.
        """
        await asyncio.sleep(wait_s)
        item_id = new_id("item")
        end_ms = self._input.at_ms
        await self._socket.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=max(0, end_ms - idle_ms),
            audio_end_ms=end_ms,
            item_id=item_id,
        )
        await self._committed(Utterance(b"", end_ms, end_ms), item_id)
        await self._answer_turn({"instructions": f"Say exactly: {STILL_THERE}"})


_HANDLERS: dict[str, Callable[[Session, dict[str, Any]], Awaitable[None]]] = {
    "session.update": Session._session_update,
    "input_audio_buffer.append": Session._append,
    "input_audio_buffer.commit": Session._commit,
    "input_audio_buffer.clear": Session._clear,
    "output_audio_buffer.clear": Session._clear_output,
    "conversation.item.create": Session._item_create,
    "conversation.item.retrieve": Session._item_retrieve,
    "conversation.item.truncate": Session._item_truncate,
    "conversation.item.delete": Session._item_delete,
    "response.create": Session._response_create,
    "response.cancel": Session._response_cancel,
}


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        event = json.loads(text or "")
    except ValueError:
        raise WireError(
            "invalid_event", "The event could not be parsed: JSON text is expected."
        ) from None
    if not isinstance(event, dict) or "type" not in event:
        raise WireError("invalid_event", "The 'type' field is missing.")
    if event["type"] not in _EVENTS:
        listed = ", ".join(f"'{kind}'" for kind in _EVENTS)
        raise WireError(
            "invalid_value",
            f"Invalid value: {event['type']!r:.80}. Supported values are: {listed}.",
            "type",
        )
    return event
