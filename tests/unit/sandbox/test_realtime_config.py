from __future__ import annotations

from typing import Any

import pytest

from sessions_app.sandbox.checks import WireError
from sessions_app.sandbox.realtime_config import (
    check_response,
    check_session,
    defaults,
    merged,
)

MODEL = "gpt-realtime-2.1"

FULL: dict[str, Any] = {
    "type": "realtime",
    "model": MODEL,
    "output_modalities": ["audio"],
    "instructions": "You are the phone agent.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": {"type": "near_field"},
            "transcription": {
                "model": "gpt-transcribe",
                "languages": ["fr", "en"],
                "keywords": ["Yopougon"],
            },
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
                "idle_timeout_ms": None,
            },
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
    },
    "tools": [
        {
            "type": "function",
            "name": "lookup_order",
            "description": "Find an order.",
            "parameters": {"type": "object", "properties": {}},
        }
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "max_output_tokens": 2048,
    "truncation": {
        "type": "retention_ratio",
        "retention_ratio": 0.8,
        "token_limits": {"post_instructions": 8000},
    },
    "tracing": None,
    "include": [],
    "reasoning": {"effort": "low"},
}


def check(update: Any, model: str = MODEL, *, has_spoken: bool = False) -> None:
    check_session(update, defaults(model, "sess_1"), has_spoken=has_spoken)


def test_the_whole_documented_configuration_is_taken() -> None:
    check(FULL)


def audio(side: str, **fields: Any) -> dict[str, Any]:
    return {"type": "realtime", "audio": {side: fields}}


@pytest.mark.parametrize(
    ("update", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "conversation"}, "invalid_value", "session.type"),
        ({"type": "realtime", "voice": "marin"}, "unknown_parameter", "session.voice"),
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        (
            {"type": "realtime", "output_modalities": ["audio", "text"]},
            "invalid_value",
            "session.output_modalities",
        ),
        ({"type": "realtime", "instructions": 7}, "invalid_type", "session.instructions"),
        (
            {"type": "realtime", "max_output_tokens": 5000},
            "integer_above_max_value",
            "session.max_output_tokens",
        ),
        (audio("output", voice="bella"), "invalid_value", "session.audio.output.voice"),
        (audio("output", speed=2), "decimal_above_max_value", "session.audio.output.speed"),
        (
            audio("input", format={"type": "audio/pcm", "rate": 16000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            audio("input", turn_detection={"type": "server_vad", "threshold": "0.5"}),
            "invalid_type",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            audio("input", turn_detection={"type": "server_vad", "idle_timeout_ms": 1000}),
            "integer_below_min_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            audio("input", turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            audio("input", turn_detection={"threshold": 0.5}),
            "missing_required_parameter",
            "session.audio.input.turn_detection.type",
        ),
        (
            audio("input", transcription={"model": "whisper-1", "languages": ["en"]}),
            "invalid_value",
            "session.audio.input.transcription.languages",
        ),
        (
            {"type": "realtime", "tools": [{"type": "function", "function": {"name": "x"}}]},
            "missing_required_parameter",
            "session.tools[0].name",
        ),
        ({"type": "realtime", "tool_choice": "always"}, "invalid_value", "session.tool_choice"),
        ({"type": "realtime", "model": "gpt-realtime"}, "invalid_value", "session.model"),
    ],
)
def test_one_wrong_field_refuses_the_update_and_names_itself(
    update: Any, code: str, param: str
) -> None:
    with pytest.raises(WireError) as caught:
        check(update)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize("field", ["reasoning", "parallel_tool_calls"])
def test_fields_of_the_reasoning_models_fail_with_an_older_one(field: str) -> None:
    with pytest.raises(WireError) as caught:
        check({"type": "realtime", field: FULL[field]}, "gpt-realtime")
    assert caught.value.param == f"session.{field}"


def test_the_voice_is_frozen_once_audio_was_spoken_but_may_be_repeated() -> None:
    check(audio("output", voice="alloy"), has_spoken=True)
    with pytest.raises(WireError) as caught:
        check(audio("output", voice="marin"), has_spoken=True)
    assert caught.value.code == "cannot_update_voice"


def test_absent_fields_stay_and_null_switches_off() -> None:
    conf = merged(defaults(MODEL, "sess_1"), FULL)
    conf = merged(conf, audio("input", turn_detection={"type": "server_vad", "threshold": 0.7}))
    turn_detection = conf["audio"]["input"]["turn_detection"]
    assert (turn_detection["threshold"], turn_detection["silence_duration_ms"]) == (0.7, 500)
    assert conf["audio"]["output"]["voice"] == "marin"
    conf = merged(conf, audio("input", turn_detection=None, transcription=None))
    assert conf["audio"]["input"]["turn_detection"] is None
    assert conf["audio"]["input"]["transcription"] is None


def test_changing_the_kind_of_turn_detection_starts_from_its_defaults() -> None:
    conf = merged(
        defaults(MODEL, "sess_1"), audio("input", turn_detection={"type": "semantic_vad"})
    )
    assert conf["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"modalities": ["audio"]}, "response.modalities"),
        ({"metadata": {"k": 1}}, "response.metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, f"response.metadata.{'k' * 65}"),
        ({"conversation": "other"}, "response.conversation"),
    ],
)
def test_response_create_is_as_strict(params: Any, param: str) -> None:
    with pytest.raises(WireError) as caught:
        check_response(params, MODEL)
    assert caught.value.param == param
