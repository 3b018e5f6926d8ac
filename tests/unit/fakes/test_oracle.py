from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.fakes.oracle import event_mistakes, responses_mistakes, server_event_mistakes

TOOL = {
    "type": "function",
    "name": "lookup",
    "description": "Finds an order.",
    "parameters": {"type": "object", "properties": {}},
}


def session(**more: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **more}}


def audio_input(**more: Any) -> dict[str, Any]:
    return session(audio={"input": more})


def vad(**more: Any) -> dict[str, Any]:
    return audio_input(turn_detection={"type": "server_vad", **more})


def message(role: str, kind: str) -> dict[str, Any]:
    item = {"type": "message", "role": role, "content": [{"type": kind, "text": "hello"}]}
    return {"type": "conversation.item.create", "item": item}


@pytest.mark.parametrize(
    "event",
    [
        session(
            output_modalities=["audio"],
            instructions="Be brief.",
            tools=[TOOL],
            tool_choice="auto",
            max_output_tokens=2048,
            truncation={"type": "retention_ratio", "retention_ratio": 0.8},
            tracing=None,
            reasoning={"effort": "low"},
            parallel_tool_calls=False,
            audio={
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": "gpt-transcribe", "languages": ["en"]},
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
                "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"},
            },
        ),
        audio_input(turn_detection=None, transcription=None, noise_reduction=None),
        {"type": "response.create"},
        {"type": "response.create", "response": {"metadata": {"purpose": "greeting"}}},
        {"type": "response.cancel", "response_id": "resp_1"},
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\0\0" * 480).decode()},
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0,
         "audio_end_ms": 1480},
        message("user", "input_text"),
        message("assistant", "output_text"),
    ],
)  # fmt: skip
def test_documented_events_are_clean(event: dict[str, Any]) -> None:
    assert event_mistakes(event) == []


@pytest.mark.parametrize(
    ("event", "part"),
    [
        ({"type": "session.updat", "session": {}}, "unknown client event"),
        ({"type": "session.update", "session": {"voice": "marin"}}, "session"),
        (session(voice="marin"), "unknown field $.session.voice"),
        (session(temperature=0.8), "unknown field $.session.temperature"),
        (session(output_modalities=["text", "audio"]), "output_modalities"),
        (session(max_output_tokens=5000), "max_output_tokens"),
        (session(max_output_tokens="2000"), "max_output_tokens"),
        (session(prompt={"id": "p"}), "prompt"),
        (session(tools=[{**TOOL, "name": "look up"}]), "tool name"),
        (session(tools=[{"type": "function", "function": TOOL}]), "function"),
        (session(audio={"output": {"speed": 2.0}}), "speed"),
        (session(audio={"output": {"voice": "nova"}}), "voice 'nova'"),
        (audio_input(format={"type": "audio/pcm", "rate": 16_000}), "rate"),
        (audio_input(format={"rate": 8000}), "format"),
        (audio_input(transcription={"model": "whisper-1", "languages": ["en"]}), "languages"),
        (vad(threshold=1.5), "threshold"),
        (vad(idle_timeout_ms=1000), "idle_timeout_ms"),
        (vad(silence_duration_ms=-1), "silence_duration_ms"),
        ({"type": "response.create", "response": {"modalities": ["audio"]}}, "unknown field"),
        ({"type": "response.create", "response": {"metadata": {"k" * 65: "v"}}}, "too long"),
        ({"type": "response.create", "response": {"conversation": "main"}}, "conversation"),
        ({"type": "input_audio_buffer.append", "audio": "AAA"}, "base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "middle of a sample"),
        ({"type": "input_audio_buffer.append", "audio": ""}, "empty"),
        ({"type": "output_audio_buffer.clear"}, "WebRTC"),
        ({"type": "conversation.item.truncate", "item_id": "i", "content_index": 0,
          "audio_end_ms": 12.5}, "audio_end_ms"),
        (message("user", "text"), "content"),
        (message("assistant", "output_audio"), "not for role assistant"),
    ],
)  # fmt: skip
def test_everything_else_is_told(event: dict[str, Any], part: str) -> None:
    assert part in " ".join(event_mistakes(event))


def test_what_only_the_second_generation_knows_is_refused_by_the_first() -> None:
    event = session(reasoning={"effort": "low"})
    assert event_mistakes(event, "gpt-realtime-2.1") == []
    assert event_mistakes(event, "gpt-realtime") != []


def test_events_of_the_server_may_have_extras_but_no_wrong_types() -> None:
    event = {"type": "input_audio_buffer.committed", "event_id": "e", "item_id": "i", "new": 1}
    assert server_event_mistakes(event) == []
    assert server_event_mistakes({**event, "item_id": 7}) != []
    assert server_event_mistakes({"type": "response.telepathy"}) == []


def summary(**more: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["summary"],
        "properties": {"summary": {"type": "string"}},
    }
    form = {"type": "json_schema", "name": "call_summary", "strict": True, "schema": schema}
    body = {"model": "m", "input": "caller: hello", "store": False, "text": {"format": form}}
    return {**body, **more}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (summary(modle="x"), "modle"),
        (summary(store=True), "store"),
        (summary(input=""), "input"),
        (summary(max_output_tokens="9"), "max_output_tokens"),
        (summary(text={"format": {"type": "json_schema", "name": "a b", "strict": True,
                                  "schema": {"type": "object"}}}), "name"),
        (summary(text={"format": {"type": "json_schema", "name": "a", "strict": True,
                                  "schema": {"type": "object", "properties": {"x": {}}}}}),
         "additionalProperties"),
    ],
)  # fmt: skip
def test_a_bad_request_for_a_summary_is_told(body: dict[str, Any], part: str) -> None:
    assert part in " ".join(responses_mistakes(body))


def test_a_good_request_for_a_summary_is_clean() -> None:
    assert responses_mistakes(summary()) == []
