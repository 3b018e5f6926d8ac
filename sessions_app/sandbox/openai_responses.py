"""``POST /v1/responses``: a structured answer about a call's transcript, conforming to the schema
asked for.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Final

from sessions_app.sandbox.asgi import Receive, Scope, Send, bearer, read_body, recorded, reply_json
from sessions_app.sandbox.conf import Context
from sessions_app.sandbox.openai_realtime import error_body, unauthorized
from sessions_app.sandbox.realtime_conversation import text_tokens
from sessions_app.sandbox.realtime_socket import new_id
from sessions_app.sandbox.values import value_for

_FIELDS: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "reasoning",
        "text",
        "max_output_tokens",
        "store",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "temperature",
        "top_p",
        "truncation",
        "include",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "user",
        "background",
        "stream",
        "previous_response_id",
    }
)
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# "[00:03] caller: Hello" and what is near to it.
_TURN: Final = re.compile(
    r"^\s*(?:\[[^\]]*\]\s*)?(caller|customer|user|agent|assistant|person)\s*:\s*(.+)$", re.I | re.M
)
_CALLERS: Final = ("caller", "customer", "user")
_QUOTE_CHARS: Final = 120


async def responses(scope: Scope, receive: Receive, send: Send, context: Context) -> None:
    """Serves one request."""
    request = recorded(scope, await read_body(receive))
    context.requests.append(request)
    if request.method != "POST":
        message = f"Not allowed to {request.method} on /v1/responses."
        await reply_json(send, 405, error_body("invalid_request_error", None, message))
        return
    refused = unauthorized(bearer(request), context.keys.openai)
    if refused is not None:
        await reply_json(send, 401, refused)
        return
    try:
        asked = json.loads(request.body)
    except ValueError:
        message = "We could not parse the JSON body of your request."
        await reply_json(send, 400, error_body("invalid_request_error", None, message))
        return
    trouble = _trouble(asked)
    if trouble is not None:
        await reply_json(send, 400, trouble)
        return
    await reply_json(send, 200, _response(asked))


def _trouble(asked: Any) -> Any | None:
    """The body of the 400 when the request is wrong."""
    if not isinstance(asked, dict):
        return error_body("invalid_request_error", None, "The body must be an object.")
    for field in asked:
        if field not in _FIELDS:
            message = f"Unknown parameter: '{field}'."
            return error_body("invalid_request_error", "unknown_parameter", message, field)
    for field in ("model", "input"):
        if not asked.get(field):
            message = f"Missing required parameter: '{field}'."
            return error_body("invalid_request_error", "missing_required_parameter", message, field)
    form = _format(asked)
    if form.get("type", "text") != "json_schema":
        return None
    if not _NAME.fullmatch(str(form.get("name", ""))):
        message = "Invalid 'text.format.name'."
        return error_body("invalid_request_error", "invalid_value", message, "text.format.name")
    fault = strict_schema_fault(form.get("schema")) if form.get("strict") else ""
    if fault:
        message = f"Invalid schema for response_format '{form['name']}': {fault}"
        return error_body(
            "invalid_request_error", "invalid_json_schema", message, "text.format.schema"
        )
    return None


def _format(asked: dict[str, Any]) -> dict[str, Any]:
    text = asked.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return form if isinstance(form, dict) else {}


def strict_schema_fault(schema: Any, where: str = "()", *, is_root: bool = True) -> str:
    """What strict structured output would refuse in ``schema``; ``""`` when nothing.

    The rules: the root is an object, every object lists all its properties as required and forbids
    others.
    """
    if not isinstance(schema, dict):
        return f"In context={where}, schema must be an object."
    if is_root and schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got {schema.get('type')!r}."
    properties = schema.get("properties", {})
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return f"In context={where}, 'additionalProperties' is required to be false."
        if set(schema.get("required", [])) != set(properties):
            return f"In context={where}, 'required' must list every key in properties."
    inner = [*properties.items()]
    if "items" in schema:
        inner.append(("items", schema["items"]))
    inner += [("anyOf", option) for option in schema.get("anyOf", [])]
    for name, sub_schema in inner:
        fault = strict_schema_fault(sub_schema, f"{where}.{name}", is_root=False)
        if fault:
            return fault
    return ""


def digest(transcript: str) -> str:
    """One or two honest sentences about a transcript: how long it was, how it began and ended."""
    turns = [(who.lower(), said.strip()) for who, said in _TURN.findall(transcript)]
    callers = [said for who, said in turns if who in _CALLERS]
    if not turns:
        return "The call has no transcript."
    if not callers:
        return f"The agent spoke {len(turns)} times; the caller said nothing."
    count = f"a call of {len(turns)} turns, {len(callers)} of them the caller's"
    summary = f"In {count}, the caller began with: \u201c{_shortened(callers[0])}\u201d"
    if len(callers) > 1:
        summary += f" and ended with: \u201c{_shortened(callers[-1])}\u201d"
    return summary + "."


def _shortened(text: str) -> str:
    return text if len(text) <= _QUOTE_CHARS else text[: _QUOTE_CHARS - 1].rstrip() + "\u2026"


def _input_text(given: Any) -> str:
    """The text of ``input``: a string, or a list of messages."""
    if isinstance(given, str):
        return given
    texts: list[str] = []
    for message in given if isinstance(given, list) else []:
        content = message.get("content", "") if isinstance(message, dict) else ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [str(part.get("text", "")) for part in parts if isinstance(part, dict)]
    return "\n".join(texts)


def _answer(asked: dict[str, Any], transcript: str) -> str:
    form = _format(asked)
    if form.get("type") != "json_schema":
        return digest(transcript)
    value = value_for(form.get("schema"))
    if isinstance(value, dict) and isinstance(value.get("summary"), str):
        value["summary"] = digest(transcript)
    return json.dumps(value, ensure_ascii=False)


def _response(asked: dict[str, Any]) -> dict[str, Any]:
    transcript = _input_text(asked["input"])
    text = _answer(asked, transcript)
    read = text_tokens(transcript) + text_tokens(str(asked.get("instructions") or ""))
    written, reasoning = text_tokens(text), 64
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": asked["model"],
        "output": [
            {"id": new_id("rs"), "type": "reasoning", "summary": []},
            {
                "id": new_id("msg"),
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
                ],
            },
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": asked.get("reasoning") or {"effort": None, "summary": None},
        "store": asked.get("store", True),
        "temperature": 1.0,
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written + reasoning,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": read + written + reasoning,
        },
        "user": None,
        "metadata": asked.get("metadata") or {},
    }
