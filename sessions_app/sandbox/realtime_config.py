"""The configuration of a realtime session: what may be set, to what, and what is in force.

Fields and limits are those of the generally available API. Only ``audio/pcm`` at 24 kHz is spoken
here; G.711 and MCP tools are refused with an error rather than accepted and not done.
"""

from __future__ import annotations

import copy
import time
from typing import Any, Final

from sessions_app.sandbox.checks import (
    Check,
    WireError,
    array,
    boolean,
    either,
    free_object,
    integer,
    nullable,
    number,
    one_of,
    record,
    string,
    string_pairs,
    tagged,
)

Conf = dict[str, Any]

VOICES: Final = (
    "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip
RATE_HZ: Final = 24000
SESSION_S: Final = 3600

_FORMAT = tagged(
    {"audio/pcm": record({"type": string(), "rate": one_of(RATE_HZ)}, required=("type",))}
)
_SERVER_VAD = record(
    {
        "type": string(),
        "threshold": number(0.0, 1.0),
        "prefix_padding_ms": integer(0, 10_000),
        "silence_duration_ms": integer(0, 10_000),
        "create_response": boolean,
        "interrupt_response": boolean,
        "idle_timeout_ms": nullable(integer(5000, 30_000)),
    }
)
_SEMANTIC_VAD = record(
    {
        "type": string(),
        "eagerness": one_of("low", "medium", "high", "auto"),
        "create_response": boolean,
        "interrupt_response": boolean,
    }
)
_TRANSCRIPTION_FIELDS = record(
    {
        "model": string(1, 100),
        "language": string(0, 20),
        "languages": array(string(1, 20), 50),
        "keywords": array(string(1, 200), 1000),
        "prompt": string(0, 20_000),
        "delay": one_of("minimal", "low", "medium", "high", "xhigh"),
    }
)
# Which models take which of the fields that not all of them take.
_ONLY_WITH: Final[dict[str, tuple[str, ...]]] = {
    "languages": ("gpt-transcribe", "gpt-live-transcribe"),
    "keywords": ("gpt-transcribe", "gpt-live-transcribe"),
    "delay": ("gpt-realtime-whisper",),
}


def _transcription(value: Any, path: str) -> None:
    _TRANSCRIPTION_FIELDS(value, path)
    model = value.get("model")
    for field, models in _ONLY_WITH.items():
        if field in value and model is not None and model not in models:
            raise WireError(
                "invalid_value",
                f"'{field}' is not supported with model '{model}'.",
                f"{path}.{field}",
            )
    if "prompt" in value and model == "gpt-realtime-whisper":
        raise WireError(
            "invalid_value", f"'prompt' is not supported with model '{model}'.", f"{path}.prompt"
        )


_VOICE = either((str, one_of(*VOICES)), (dict, record({"id": string(1, 200)}, required=("id",))))
_MODALITIES = one_of(["audio"], ["text"])
_MAX_TOKENS = either((int, integer(1, 4096)), (str, one_of("inf")))
_TOOLS = array(
    tagged(
        {
            "function": record(
                {
                    "type": string(),
                    "name": string(1, 64),
                    "description": string(),
                    "parameters": free_object,
                },
                required=("name",),
            )
        }
    ),
    128,
)
_TOOL_CHOICE = either(
    (str, one_of("auto", "none", "required")),
    (dict, tagged({"function": record({"type": string(), "name": string(1, 64)}, ("name",))})),
)
_TRUNCATION = either(
    (str, one_of("auto", "disabled")),
    (
        dict,
        tagged(
            {
                "retention_ratio": record(
                    {
                        "type": string(),
                        "retention_ratio": number(0.0, 1.0),
                        "token_limits": record({"post_instructions": integer(0, 1 << 30)}),
                    },
                    required=("retention_ratio",),
                )
            }
        ),
    ),
)
_TRACING = either(
    (str, one_of("auto")),
    (
        dict,
        record(
            {"workflow_name": string(), "group_id": string(), "metadata": free_object},
        ),
    ),
)
_REASONING = record({"effort": one_of("minimal", "low", "medium", "high", "xhigh")})

_SESSION_FIELDS: Final[dict[str, Check]] = {
    "type": one_of("realtime"),
    "model": string(1, 100),
    "output_modalities": _MODALITIES,
    "instructions": string(),
    "audio": record(
        {
            "input": record(
                {
                    "format": _FORMAT,
                    "noise_reduction": nullable(
                        record(
                            {
                                "type": one_of("near_field", "far_field"),
                                "strength": number(0.0, 1.0),
                            }
                        )
                    ),
                    "transcription": nullable(_transcription),
                    "turn_detection": nullable(
                        tagged({"server_vad": _SERVER_VAD, "semantic_vad": _SEMANTIC_VAD})
                    ),
                }
            ),
            "output": record({"format": _FORMAT, "voice": _VOICE, "speed": number(0.25, 1.5)}),
        }
    ),
    "tools": _TOOLS,
    "tool_choice": _TOOL_CHOICE,
    "max_output_tokens": _MAX_TOKENS,
    "truncation": _TRUNCATION,
    "tracing": nullable(_TRACING),
    "include": nullable(array(one_of("item.input_audio_transcription.logprobs"), 1)),
}
_RESPONSE_FIELDS: Final[dict[str, Check]] = {
    "instructions": string(),
    "output_modalities": _MODALITIES,
    "audio": record({"output": record({"format": _FORMAT, "voice": _VOICE})}),
    "tools": _TOOLS,
    "tool_choice": _TOOL_CHOICE,
    "max_output_tokens": _MAX_TOKENS,
    "conversation": one_of("auto", "none"),
    "metadata": nullable(string_pairs()),
    "input": array(free_object),
}
# Fields that only the reasoning models take: with an older one they fail the whole update.
_REASONING_FIELDS: Final[dict[str, Check]] = {
    "reasoning": nullable(_REASONING),
    "parallel_tool_calls": boolean,
}


def _with_reasoning(fields: dict[str, Check], model: str) -> dict[str, Check]:
    return fields | _REASONING_FIELDS if model.startswith("gpt-realtime-2") else fields


def check_session(update: Any, current: Conf, *, has_spoken: bool) -> None:
    """Refuses (``WireError``) what ``session.update`` may not set on a session that stands at
    ``current``.
    """
    model = current["model"]
    record(_with_reasoning(_SESSION_FIELDS, model), required=("type",))(update, "session")
    if update.get("model", model) != model:
        raise WireError("invalid_value", "Cannot update a session's model.", "session.model")
    voice = update.get("audio", {}).get("output", {}).get("voice")
    if has_spoken and voice not in (None, current["audio"]["output"]["voice"]):
        raise WireError(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.audio.output.voice",
        )


def check_response(params: Any, model: str) -> None:
    """Refuses (``WireError``) what ``response.create`` may not ask for."""
    record(_with_reasoning(_RESPONSE_FIELDS, model))(params, "response")


def defaults(model: str, session_id: str) -> Conf:
    """What a session stands at when it is created."""
    conf: Conf = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful, witty and friendly AI. Talk quickly.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": int(time.time()) + SESSION_S,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": RATE_HZ},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": _vad_defaults("server_vad"),
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": RATE_HZ},
                "voice": "alloy",
                "speed": 1.0,
            },
        },
        "include": None,
    }
    if model.startswith("gpt-realtime-2"):
        conf |= {"reasoning": {"effort": "low"}, "parallel_tool_calls": True}
    return conf


def _vad_defaults(kind: str) -> Conf:
    common = {"type": kind, "create_response": True, "interrupt_response": True}
    if kind == "semantic_vad":
        return common | {"eagerness": "auto"}
    return common | {
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        # The API's own documents disagree (500 or 200); the shorter is what an example session
        # shows.
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
    }


def merged(current: Conf, update: Conf) -> Conf:
    """``current`` with the fields of a checked ``update``; absent fields stay as they are."""
    conf = copy.deepcopy(current)
    update = copy.deepcopy(update)
    audio = update.pop("audio", {})
    conf |= update
    for side in ("input", "output"):
        _merge_side(conf["audio"][side], audio.get(side, {}))
    return conf


def _merge_side(side: Conf, update: Conf) -> None:
    for field, value in update.items():
        old = side.get(field)
        if field == "turn_detection" and value is not None:
            base = old if old and old["type"] == value["type"] else _vad_defaults(value["type"])
            side[field] = base | value
        elif field in ("noise_reduction", "transcription") and value is not None and old:
            side[field] = old | value
        else:
            side[field] = value
