"""What OpenAI Realtime (the GA shape) says to us, as the house's events.

Pure, and total: whatever arrives, `Decoder.decode` returns. Unknown events and garbage are counted
and noted, since the server may learn new words at any time and must not end a call by that.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pybase64

from sessions_app.core.events import (
    AgentAudio,
    AgentItemDone,
    AgentText,
    CallerTranscript,
    CallerTranscriptFailed,
    Event,
    ProviderLost,
    ProviderNotice,
    RequestRefused,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCalled,
    TranscriptionUsage,
)
from sessions_app.providers.openai.conversation import HEAD, Conversation
from sessions_app.providers.openai.faults import BUSY, SESSION_EXPIRED, Fault

_TOOL_CALLS_KEPT = 256
_TYPES_NOTED = 32
_STATUSES = frozenset({"completed", "cancelled", "failed", "incomplete"})

#: Ordinary events that tell nothing which another one does not tell better.
_IGNORED = frozenset(
    {
        "conversation.created",
        "conversation.item.deleted",
        "conversation.item.retrieved",
        "conversation.item.truncated",
        "input_audio_buffer.cleared",
        "input_audio_buffer.committed",
        "input_audio_buffer.timeout_triggered",
        "rate_limits.updated",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.output_text.done",
        "session.created",
        "session.updated",
    }
)

JsonObject = dict[str, Any]


class _Malformed(Exception):
    """An event of a known type without what it must have; the text names the field."""


class Decoder:
    """Turns server events into the house's events, for one conversation.

    `counters` says what was left out: "ignored", "unknown", "garbage", "benign_errors",
    "unwanted_audio", "incomplete_tool_calls".
    """

    def __init__(self, conversation: Conversation) -> None:
        self.counters: Counter[str] = Counter()
        self._conversation = conversation
        self._tool_calls: dict[str, None] = {}
        self._unknown_types: set[str] = set()

    def decode(self, raw: str | bytes | bytearray | memoryview) -> list[Event]:
        """The events that one message stands for, in order; often none. Never raises.

        Anything that ends the conversation is a `ProviderLost`, in its place among the others.
        """
        try:
            event = json.loads(raw if isinstance(raw, str) else str(raw, "utf-8"))
            if not isinstance(event, dict):
                raise _Malformed("not an object")
            type_ = _string(event, "type")
            handler = HANDLERS.get(type_)
            if handler is not None:
                return list(handler(self, event))
        except (ValueError, RecursionError):
            return self._garbage("not JSON")
        except _Malformed as exc:
            return self._garbage(str(exc))
        if type_ in _IGNORED:
            self.counters["ignored"] += 1
            return []
        return self._unknown(type_)

    # ------------------------------------------------------------------ what is left out

    def _garbage(self, what: str) -> list[Event]:
        self.counters["garbage"] += 1
        if self.counters["garbage"] > 1:
            return []
        return [ProviderNotice("provider_garbage", what)]

    def _unknown(self, type_: str) -> list[Event]:
        self.counters["unknown"] += 1
        name = type_[:80]
        if name in self._unknown_types or len(self._unknown_types) >= _TYPES_NOTED:
            return []
        self._unknown_types.add(name)
        return [ProviderNotice("provider_unknown_event", name)]

    # ------------------------------------------------------------------ the caller

    def _speech_started(self, event: JsonObject) -> Iterable[Event]:
        return [SpeechStarted(_string(event, "item_id"))]

    def _speech_stopped(self, event: JsonObject) -> Iterable[Event]:
        return [SpeechStopped(_string(event, "item_id"))]

    def _transcript_delta(self, event: JsonObject) -> Iterable[Event]:
        delta = _words(event, "delta")
        item_id = _string(event, "item_id")
        return [CallerTranscript(item_id, delta, final=False)] if delta else []

    def _transcript_completed(self, event: JsonObject) -> Iterable[Event]:
        text = _words(event, "transcript")
        yield CallerTranscript(_string(event, "item_id"), text, final=True)
        usage = event.get("usage")
        if isinstance(usage, dict):
            yield TranscriptionUsage(usage)

    def _transcript_failed(self, event: JsonObject) -> Iterable[Event]:
        fault = Fault.of(event.get("error"))
        return [CallerTranscriptFailed(_string(event, "item_id"), str(fault))]

    # ------------------------------------------------------------------ the agent

    def _response_created(self, event: JsonObject) -> Iterable[Event]:
        response = _object(event, "response")
        metadata = response.get("metadata")
        request_id = metadata.get("request_id") if isinstance(metadata, dict) else None
        if not isinstance(request_id, str):
            request_id = ""
        self._conversation.answered(request_id)
        return [ResponseStarted(_string(response, "id"), request_id)]

    def _item_added(self, event: JsonObject) -> Iterable[Event]:
        """Only this tells what an item follows, which a cut in text mode must know."""
        item = _object(event, "item")
        if item.get("type") == "message" and item.get("role") == "assistant":
            known = self._conversation.see(_string(item, "id"))
            previous = event.get("previous_item_id", known.previous)
            if isinstance(previous, str):
                known.previous = previous
            elif "previous_item_id" in event:
                known.previous = HEAD
        return []

    def _output_item_added(self, event: JsonObject) -> Iterable[Event]:
        item = _object(event, "item")
        if item.get("type") == "message":
            self._conversation.see(_string(item, "id"), _string(event, "response_id"))
        return []

    def _audio_delta(self, event: JsonObject) -> Iterable[Event]:
        response_id = _string(event, "response_id")
        item_id = _string(event, "item_id")
        try:
            pcm = pybase64.b64decode(_string(event, "delta"), validate=True)
        except ValueError:
            raise _Malformed("delta is not base64") from None
        item = self._conversation.see(item_id, response_id)
        if self._conversation.text_only:
            # Seen in the wild. Its words come as a transcript, and our own voice speaks those.
            self.counters["unwanted_audio"] += 1
            return []
        if item.carry or len(pcm) % 2:
            pcm = item.carry + pcm
            whole = len(pcm) & ~1
            item.carry, pcm = pcm[whole:], pcm[:whole]
        if not pcm:
            return []
        item.audio_bytes += len(pcm)
        return [AgentAudio(response_id, item_id, pcm)]

    def _text_delta(self, event: JsonObject) -> Iterable[Event]:
        response_id = _string(event, "response_id")
        item_id = _string(event, "item_id")
        text = _words(event, "delta")
        self._conversation.see(item_id, response_id).has_text = True
        return [AgentText(response_id, item_id, text)] if text else []

    def _output_item_done(self, event: JsonObject) -> Iterable[Event]:
        """The end of an item, whatever parts it had, and the earliest whole form of a tool call."""
        item = _object(event, "item")
        response_id = _string(event, "response_id")
        match item.get("type"):
            case "message":
                return self._item_done(response_id, _string(item, "id"))
            case "function_call":
                return self._tool_called(response_id, item)
        self.counters["ignored"] += 1
        return []

    def _item_done(self, response_id: str, item_id: str) -> Iterable[Event]:
        item = self._conversation.see(item_id, response_id)
        if item.done:
            return
        item.done = True
        yield AgentItemDone(response_id, item_id)
        if item.has_text and not item.audio_bytes and not self._conversation.text_only:
            yield ProviderNotice("provider_text_without_audio", item_id)

    def _tool_called(self, response_id: str, item: JsonObject) -> Iterable[Event]:
        call_id = _string(item, "call_id")
        if (item.get("status") or "completed") != "completed":
            # Its arguments may break off anywhere (the response was cancelled or too long).
            self.counters["incomplete_tool_calls"] += 1
            return []
        if call_id in self._tool_calls:
            return []
        call = ToolCalled(response_id, call_id, _string(item, "name"), _words(item, "arguments"))
        self._tool_calls[call_id] = None
        while len(self._tool_calls) > _TOOL_CALLS_KEPT:
            del self._tool_calls[next(iter(self._tool_calls))]
        return [call]

    def _response_done(self, event: JsonObject) -> Iterable[Event]:
        response = _object(event, "response")
        response_id = _string(response, "id")
        for item_id, _ in self._conversation.unfinished(response_id):
            yield from self._item_done(response_id, item_id)
        status = response.get("status")
        if not isinstance(status, str) or status not in _STATUSES:
            # It is over all the same, and nobody may wait for it any longer.
            status = "failed"
        reason, retryable = _why(response.get("status_details"))
        usage = response.get("usage")
        yield ResponseDone(
            response_id,
            status,
            reason,
            retryable,
            usage if isinstance(usage, dict) else {},
        )

    # ------------------------------------------------------------------ errors

    def _error(self, event: JsonObject) -> Iterable[Event]:
        fault = Fault.of(_object(event, "error"))
        if fault.fatal:
            return [ProviderLost(fault.name, retryable=False)]
        if fault.code == SESSION_EXPIRED:
            return [ProviderLost(SESSION_EXPIRED, retryable=True)]
        busy = fault.code == BUSY
        # Our id is said to be named always; a busy answer without one can only mean the oldest.
        request_id = fault.event_id or (self._conversation.oldest_request() if busy else "")
        if request_id and self._conversation.answered(request_id):
            return [RequestRefused(request_id, busy, str(fault))]
        if busy or fault.benign:
            self.counters["benign_errors"] += 1
            return []
        return [ProviderNotice("provider_error", str(fault))]


#: What is made of each type of event.
HANDLERS: dict[str, Callable[[Decoder, JsonObject], Iterable[Event]]] = {
    "conversation.item.added": Decoder._item_added,
    "conversation.item.created": Decoder._item_added,
    "conversation.item.done": Decoder._item_added,
    "conversation.item.input_audio_transcription.delta": Decoder._transcript_delta,
    "conversation.item.input_audio_transcription.completed": Decoder._transcript_completed,
    "conversation.item.input_audio_transcription.failed": Decoder._transcript_failed,
    "error": Decoder._error,
    "input_audio_buffer.speech_started": Decoder._speech_started,
    "input_audio_buffer.speech_stopped": Decoder._speech_stopped,
    "response.created": Decoder._response_created,
    "response.done": Decoder._response_done,
    "response.output_audio.delta": Decoder._audio_delta,
    "response.output_audio_transcript.delta": Decoder._text_delta,
    "response.output_item.added": Decoder._output_item_added,
    "response.output_item.done": Decoder._output_item_done,
    "response.output_text.delta": Decoder._text_delta,
}


def _why(details: object) -> tuple[str, bool]:
    """Reason of a response's end, and whether asking again may help, from `status_details`."""
    if not isinstance(details, dict):
        return "", True
    fault = Fault.of(details.get("error"))
    reason = details.get("reason")
    name = fault.name or (reason if isinstance(reason, str) else "")
    return name[:80], not fault.fatal


def _string(event: JsonObject, key: str) -> str:
    """A field that names something: never empty."""
    value = event.get(key)
    if not isinstance(value, str) or not value:
        raise _Malformed(f"{key} is not a text")
    return value


def _words(event: JsonObject, key: str) -> str:
    """A field that somebody said: may be empty, and is free of what a database refuses."""
    value = event.get(key)
    if not isinstance(value, str):
        raise _Malformed(f"{key} is not a text")
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def _object(event: JsonObject, key: str) -> JsonObject:
    value = event.get(key)
    if not isinstance(value, dict):
        raise _Malformed(f"{key} is not an object")
    return value
