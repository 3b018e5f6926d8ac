from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types.responses import Response

from sessions_app.sandbox.openai_responses import digest, strict_schema_fault
from sessions_app.sandbox.server import Sandbox
from sessions_app.sandbox.values import value_for

TRANSCRIPT = """[00:01] agent: Hello, how can I help you?
[00:04] caller: Where is my order?
[00:09] agent: It is on the van.
[00:15] caller: Thank you, goodbye!"""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["summary", "intent", "sentiment", "follow_up", "callback_number"],
    "properties": {
        "summary": {"type": "string"},
        "intent": {"type": "string", "enum": ["sale", "support", "complaint", "other"]},
        "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
        "follow_up": {"type": "array", "items": {"type": "string"}},
        "callback_number": {"type": ["string", "null"]},
    },
}


def request(**changes: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "name": "call_summary", "strict": True, "schema": SCHEMA}
    return {
        "model": "gpt-6-luna",
        "instructions": "Summarise the call.",
        "input": TRANSCRIPT,
        "text": {"format": form},
        "store": False,
    } | changes


def post(sandbox: Sandbox, body: Any, key: str = "k") -> httpx.Response:
    return httpx.post(
        f"{sandbox.openai_base_url}/responses",
        headers={"Authorization": f"Bearer {key}"} if key else {},
        content=body if isinstance(body, bytes) else json.dumps(body).encode(),
        trust_env=False,
    )


def test_the_answer_conforms_to_the_schema_behind_a_reasoning_item(sandbox: Sandbox) -> None:
    reply = post(sandbox, request())
    assert reply.status_code == 200
    content = reply.json()
    Response.model_validate(content, strict=True)
    assert content["status"] == "completed"
    assert "output_text" not in content
    reasoning, message = content["output"]
    assert reasoning["type"] == "reasoning"
    answer = json.loads(message["content"][0]["text"])
    assert set(answer) == set(SCHEMA["required"])
    assert "4 turns, 2 of them the caller's" in answer["summary"]
    assert "Where is my order?" in answer["summary"]
    assert (answer["intent"], answer["sentiment"]) == ("other", "neutral")
    assert answer["follow_up"] == []
    assert answer["callback_number"] is None
    usage = content["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_input_may_be_a_list_of_messages_and_the_answer_plain_text(sandbox: Sandbox) -> None:
    messages = [{"role": "user", "content": [{"type": "input_text", "text": TRANSCRIPT}]}]
    reply = post(sandbox, {"model": "gpt-6-luna", "input": messages})
    text = reply.json()["output"][1]["content"][0]["text"]
    assert text == digest(TRANSCRIPT)


@pytest.mark.parametrize(
    ("body", "key", "status", "code", "param"),
    [
        (request(), "", 401, None, None),
        (b"{", "k", 400, None, None),
        (request(temprature=1), "k", 400, "unknown_parameter", "temprature"),
        (request(model=""), "k", 400, "missing_required_parameter", "model"),
        (
            request(text={"format": {"type": "json_schema", "name": "a b", "schema": SCHEMA}}),
            "k",
            400,
            "invalid_value",
            "text.format.name",
        ),
        (
            request(
                text={
                    "format": {
                        "type": "json_schema",
                        "name": "a",
                        "strict": True,
                        "schema": SCHEMA | {"required": ["summary"]},
                    }
                }
            ),
            "k",
            400,
            "invalid_json_schema",
            "text.format.schema",
        ),
    ],
)
def test_wrong_requests_are_refused_in_openais_shape(
    sandbox: Sandbox, body: Any, key: str, status: int, code: str | None, param: str | None
) -> None:
    reply = post(sandbox, body, key)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


def test_a_body_without_end_is_refused(sandbox: Sandbox) -> None:
    assert post(sandbox, b" " * (2 << 20)).status_code == 413


def test_an_empty_call_is_said_to_be_one() -> None:
    assert digest("") == "The call has no transcript."
    assert digest("agent: Hello?\nagent: Anybody?").startswith("The agent spoke 2 times")


def test_strict_schemas_are_checked_all_the_way_down() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["list"],
        "properties": {"list": {"type": "array", "items": inner}},
    }
    assert "additionalProperties" in strict_schema_fault(schema)
    inner["additionalProperties"] = False
    assert strict_schema_fault(schema) == ""


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "maxLength": 6}, "sample"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "boolean"}, False),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"enum": ["a", "unknown"]}, "unknown"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        ("nonsense", None),
    ],
)
def test_values_follow_their_schema(schema: Any, value: Any) -> None:
    assert value_for(schema, "thing") == value
