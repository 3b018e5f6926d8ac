"""Judges what a client sends to OpenAI: the published types, read strictly, and rules in words.

The `openai` package's types are the first opinion (strict types, no unknown field at any depth);
they enforce neither ranges nor the rules that the documentation tells in sentences, so those are
asserted here. Every function returns sentences of complaint; an empty list is a clean bill.

    event_mistakes({"type": "response.cancel", "respone_id": "r"})
    # ["response.cancel: unknown field $.respone_id"]
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

Event = Mapping[str, Any]

_APPEND_LIMIT_BYTES = 15 * 1024 * 1024
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_VOICES = {
    "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar",
}  # fmt: skip


def _by_type(alias: Any) -> dict[str, type[BaseModel]]:
    union = get_args(alias)[0] if get_origin(alias) is Annotated else alias
    return {
        name: model
        for model in get_args(union)
        for name in get_args(model.model_fields["type"].annotation)
    }


CLIENT_EVENTS = _by_type(RealtimeClientEvent)
SERVER_EVENTS = _by_type(RealtimeServerEvent)
_RESPONSES: TypeAdapter[Any] = TypeAdapter(
    ResponseCreateParamsNonStreaming | None, config=ConfigDict(extra="forbid", strict=True)
)


def event_mistakes(event: Event, model: str = "gpt-realtime-2.1") -> list[str]:
    """Complaints about one client event of a Realtime session with this model."""
    kind = event.get("type")
    known = CLIENT_EVENTS.get(kind) if isinstance(kind, str) else None
    if known is None:
        return [f"unknown client event type {kind!r}"]
    try:
        parsed = known.model_validate(dict(event), strict=True)
    except ValidationError as error:
        return [f"{kind}: {_where(e['loc'])}: {e['msg']}" for e in error.errors()]
    found = [f"unknown field {path}" for path in _unknown_fields(parsed)]
    found += _range_mistakes(event, model)
    return [f"{kind}: {text}" for text in found]


def server_event_mistakes(event: Event) -> list[str]:
    """Complaints about an event of a stand-in: strict types, extras and unknown kinds allowed."""
    known = SERVER_EVENTS.get(str(event.get("type")))
    if known is None:
        return []
    try:
        known.model_validate(dict(event), strict=True)
    except ValidationError as error:
        return [f"{event['type']}: {_where(e['loc'])}: {e['msg']}" for e in error.errors()]
    return []


def responses_mistakes(body: Event) -> list[str]:
    """Complaints about the body of `POST /v1/responses`."""
    try:
        _RESPONSES.validate_python(dict(body))
    except ValidationError as error:
        return [f"responses: {_where(e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
    found = [] if body.get("model") else ["model is missing"]
    if not body.get("input"):
        found.append("input is missing")
    if body.get("store") is not False:
        found.append("store is not false: the text of a call would be kept")
    wanted = body.get("text", {}).get("format", {})
    if wanted.get("type") == "json_schema":
        if wanted.get("strict") is not True:
            found.append("text.format.strict is not true")
        if not _TOOL_NAME.fullmatch(wanted.get("name", "")):
            found.append("text.format.name is not 1 to 64 of [a-zA-Z0-9_-]")
        found += _schema_mistakes(wanted.get("schema", {}), "schema")
    return [f"responses: {text}" for text in found]


def _where(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc)


def _unknown_fields(value: object, path: str = "$") -> Iterator[str]:
    """Keys that the types have let through as extras, at any depth."""
    if isinstance(value, BaseModel):
        yield from (f"{path}.{key}" for key in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _unknown_fields(getattr(value, name, None), f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _unknown_fields(part, f"{path}[{index}]")


def _range_mistakes(event: Event, model: str) -> Iterator[str]:
    if len(str(event.get("event_id") or "")) > 512:
        yield "event_id is longer than 512"
    match event["type"]:
        case "session.update":
            yield from _session_mistakes(event["session"], model)
        case "response.create":
            yield from _response_mistakes(event.get("response") or {}, model)
        case "input_audio_buffer.append":
            yield from _audio_mistakes(event["audio"])
        case "conversation.item.create":
            yield from _item_mistakes(event["item"])
        case "conversation.item.truncate":
            if event["content_index"] != 0:
                yield f"content_index {event['content_index']} is not 0"
            if event["audio_end_ms"] < 0:
                yield f"audio_end_ms {event['audio_end_ms']} is negative"
        case "output_audio_buffer.clear":
            yield "means nothing on a WebSocket, only under WebRTC and SIP"


def _audio_mistakes(audio: str) -> Iterator[str]:
    try:
        pcm = base64.b64decode(audio, validate=True)
    except binascii.Error:
        yield "audio is not base64"
        return
    if not pcm:
        yield "audio is empty"
    if len(pcm) % 2:
        yield f"audio of {len(pcm)} bytes ends in the middle of a sample"
    if len(pcm) > _APPEND_LIMIT_BYTES:
        yield "audio is larger than 15 MiB"


def _item_mistakes(item: Event) -> Iterator[str]:
    if item.get("id") is not None and not 1 <= len(item["id"]) <= 32:
        yield "item.id is not 1 to 32 characters"
    if item["type"] != "message":
        return
    allowed = {
        "system": {"input_text"},
        "user": {"input_text", "input_audio", "input_image"},
        "assistant": {"output_text"},  # its audio cannot be put in by a client
    }[item["role"]]
    for part in item["content"]:
        if part.get("type") not in allowed:
            yield f"item.content type {part.get('type')!r} is not for role {item['role']}"
        elif part["type"] in ("input_text", "output_text") and not isinstance(
            part.get("text"), str
        ):
            yield "item.content has no text"


def _session_mistakes(session: Event, model: str) -> Iterator[str]:
    if session.get("type") != "realtime":
        yield f"session.type {session.get('type')!r} is not 'realtime'"
        return
    yield from _shared_mistakes(session, model)
    if session.get("prompt") is not None:
        yield "session.prompt ends on 2026-11-30"
    audio = session.get("audio") or {}
    source = audio.get("input") or {}
    yield from _format_mistakes(source.get("format"), "audio.input.format")
    yield from _format_mistakes((audio.get("output") or {}).get("format"), "audio.output.format")
    speed = (audio.get("output") or {}).get("speed", 1.0)
    if speed is not None and not 0.25 <= speed <= 1.5:
        yield f"audio.output.speed {speed} is not 0.25 to 1.5"
    yield from _turn_mistakes(source.get("turn_detection") or {})
    yield from _transcription_mistakes(source.get("transcription") or {})
    truncation = session.get("truncation")
    if isinstance(truncation, Mapping) and not 0 <= truncation.get("retention_ratio", 0.5) <= 1:
        yield "truncation.retention_ratio is not 0 to 1"


def _response_mistakes(response: Event, model: str) -> Iterator[str]:
    yield from _shared_mistakes(response, model)
    if response.get("prompt") is not None:
        yield "response.prompt ends on 2026-11-30"
    if response.get("conversation") not in (None, "auto", "none"):
        yield f"response.conversation {response['conversation']!r} is neither auto nor none"
    metadata = response.get("metadata") or {}
    if len(metadata) > 16:
        yield "response.metadata has more than 16 pairs"
    for key, value in metadata.items():
        if len(key) > 64 or len(value) > 512:
            yield f"response.metadata {key[:64]!r} is too long (64 for the key, 512 for the value)"


def _shared_mistakes(config: Event, model: str) -> Iterator[str]:
    """What a session and a single response have in common."""
    modalities = config.get("output_modalities")
    if modalities is not None and modalities not in (["audio"], ["text"]):
        yield f"output_modalities {modalities} is neither ['audio'] nor ['text']"
    limit = config.get("max_output_tokens")
    if isinstance(limit, int) and not 1 <= limit <= 4096:
        yield f"max_output_tokens {limit} is not 1 to 4096"
    for name in ("reasoning", "parallel_tool_calls"):
        if config.get(name) is not None and not model.startswith("gpt-realtime-2"):
            yield f"{name} is refused by {model}"
    voice = ((config.get("audio") or {}).get("output") or {}).get("voice")
    if isinstance(voice, str) and voice not in _VOICES:
        yield f"voice {voice!r} does not exist"
    for tool in config.get("tools") or []:
        if tool.get("type") == "function":
            yield from _tool_mistakes(tool)


def _tool_mistakes(tool: Event) -> Iterator[str]:
    name = tool.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        yield f"tool name {name!r} is not 1 to 64 of [a-zA-Z0-9_-]"
    parameters = tool.get("parameters")
    if not isinstance(parameters, Mapping) or parameters.get("type") != "object":
        yield f"tool {name!r}: parameters is no JSON schema of an object"


def _format_mistakes(form: Event | None, where: str) -> Iterator[str]:
    if form is None:
        return
    kind, rate = form.get("type"), form.get("rate")
    if kind not in ("audio/pcm", "audio/pcmu", "audio/pcma"):
        yield f"{where}.type {kind!r} does not exist"
    elif kind == "audio/pcm" and rate != 24_000:
        yield f"{where}.rate {rate} is not 24000"
    elif kind != "audio/pcm" and rate is not None:
        yield f"{where}.rate is only for audio/pcm"


def _turn_mistakes(turn: Event) -> Iterator[str]:
    threshold = turn.get("threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        yield f"turn_detection.threshold {threshold} is not 0 to 1"
    for name in ("prefix_padding_ms", "silence_duration_ms"):
        if (turn.get(name) or 0) < 0:
            yield f"turn_detection.{name} is negative"
    idle_ms = turn.get("idle_timeout_ms")
    if idle_ms is not None and not 5000 <= idle_ms <= 30_000:
        yield f"turn_detection.idle_timeout_ms {idle_ms} is not 5000 to 30000"


def _transcription_mistakes(transcription: Event) -> Iterator[str]:
    model = transcription.get("model") or ""
    if transcription and not model:
        yield "transcription.model is missing"
    for name in ("languages", "keywords"):
        if transcription.get(name) is not None and model not in (
            "gpt-transcribe", "gpt-live-transcribe",
        ):  # fmt: skip
            yield f"transcription.{name} is not known to {model}"
    if transcription.get("delay") is not None and model != "gpt-realtime-whisper":
        yield f"transcription.delay is not known to {model}"
    if transcription.get("prompt") is not None and model == "gpt-realtime-whisper":
        yield f"transcription.prompt is not known to {model}"


def _schema_mistakes(schema: object, path: str) -> Iterator[str]:
    """The rules of strict structured outputs, at every object."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        for index, part in enumerate(schema):
            yield from _schema_mistakes(part, f"{path}[{index}]")
    if not isinstance(schema, Mapping):
        return
    kind = schema.get("type")
    if path == "schema" and kind != "object":
        yield "the schema's root is not an object"
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        if schema.get("additionalProperties") is not False:
            yield f"{path}: additionalProperties is not false"
        if set(schema.get("required", [])) != set(schema.get("properties", {})):
            yield f"{path}: required does not name every property"
    for name, part in schema.get("properties", {}).items():
        yield from _schema_mistakes(part, f"{path}.{name}")
    for name in ("items", "anyOf", "$defs"):
        inner = schema.get(name)
        yield from _schema_mistakes(
            list(inner.values()) if name == "$defs" and isinstance(inner, Mapping) else inner,
            f"{path}.{name}",
        )
