"""What the scripted model says next, and which tool it calls."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from sessions_app.sandbox.realtime_conversation import Conversation, Item
from sessions_app.sandbox.samples import AFTER_TOOL, OPENING, TAKEN_UP, courtesy, sample_for
from sessions_app.sandbox.values import value_for

# Nobody here can translate, so what is to be said in another language is said as it stands.
_SAY: Final = re.compile(r"Say (?:exactly|in the language [^:\n]+):")
_QUOTES: Final = "\"'\u201c\u201d\u00ab\u00bb"
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Plan:
    """One response: words to say (may be empty) and at most one function call (name, JSON
    arguments).
    """

    text: str
    call: tuple[str, str] | None = None


def sentences(text: str) -> list[str]:
    """``text`` in sentences, so that the first can be spoken while the next is made."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def plan(conversation: Conversation, request: dict[str, Any], session: dict[str, Any]) -> Plan:
    """Decides a response to ``conversation``. ``request``: the ``response`` of ``response.create``
    (may be empty).
    """
    tools = request.get("tools", session["tools"])
    choice = request.get("tool_choice", session["tool_choice"])
    *before, words = _SAY.split(request.get("instructions", ""))
    if before:
        return Plan(words.strip().strip(_QUOTES).strip())
    said = _answered(conversation.items, request.get("input"))
    if isinstance(choice, dict) or choice == "required":
        wanted = choice["name"] if isinstance(choice, dict) else tools[0]["name"] if tools else ""
        return Plan("", _call(wanted, tools))
    if "input" not in request and (told := _told(conversation.items)):
        return Plan(TAKEN_UP.format(told))
    text, tool = _reply(conversation.items, said)
    return Plan(text, None if choice == "none" else _call(tool, tools))


def _answered(items: list[Item], request_input: Any) -> str | None:
    """What is to be answered: the newest user words or tool output; ``None`` when nobody has spoken
    yet.
    """
    if isinstance(request_input, list):
        texts = [
            part.get("text", "")
            for item in request_input
            for part in item.get("content", [])
            if isinstance(part, dict)
        ]
        return " ".join(texts)
    for item in reversed(items):
        if item.role in ("user", "function_call_output"):
            return item.said
    return None


def _told(items: list[Item]) -> str:
    """What a system message asks for that came behind the model's last words: its last line."""
    for item in reversed(items):
        if item.role == "assistant":
            break
        if item.role == "system" and item.said.strip():
            return item.said.strip().splitlines()[-1]
    return ""


def _reply(items: list[Item], said: str | None) -> tuple[str, str]:
    if said is None:
        return OPENING, ""
    if items and items[-1].role == "function_call_output":
        return AFTER_TOOL, ""
    sample = sample_for(said)
    if sample is not None:
        return sample.reply, sample.tool
    turns = sum(item.role == "user" for item in items)
    return courtesy(turns), ""


def _call(name: str, tools: list[dict[str, Any]]) -> tuple[str, str] | None:
    for tool in tools:
        if name and tool["name"] == name:
            arguments = value_for(tool.get("parameters") or {"type": "object"}, name)
            return name, json.dumps(arguments if isinstance(arguments, dict) else {})
    return None
