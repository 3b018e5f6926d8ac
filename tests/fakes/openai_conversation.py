"""The server's picture of one Realtime conversation: items, their order, tool calls, the session.

Pure bookkeeping with the documented refusals; no socket and no clock.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn


class RuleBroken(Exception):
    """What the real server answers with an `error` event of this code."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.param = param


@dataclass(slots=True)
class Item:
    """One conversation item. `audio_ms` is what has been sent of its voice so far."""

    id: str
    data: dict[str, Any]
    audio_ms: int = 0
    voice: int | None = None
    text: str = ""
    #: The client put it there.
    told: bool = False


@dataclass(frozen=True, slots=True)
class Truncation:
    """A `conversation.item.truncate` that was granted; `sent_ms` is how long the item had been."""

    at_s: float
    item_id: str
    audio_end_ms: int
    sent_ms: int
    voice: int


@dataclass(slots=True)
class Conversation:
    """Items in their order, and which function calls have been answered."""

    items: dict[str, Item] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    #: call_id -> the output, None while unanswered
    calls: dict[str, str | None] = field(default_factory=dict)

    def before(self, item_id: str) -> str | None:
        """The id of the item in front of this one."""
        at = self.order.index(item_id)
        return self.order[at - 1] if at else None

    def add(self, item: Item, previous: str | None = None) -> None:
        """Puts an item after `previous` (None: at the end, "root": in front)."""
        if item.id in self.items:
            _refuse("item_create_duplicate_item_id", f"Item '{item.id}' already exists.")
        if previous not in (None, "root") and previous not in self.items:
            _refuse("item_create_invalid_previous_item_id", f"Item '{previous}' does not exist.")
        at = len(self.order)
        if previous is not None:
            at = 0 if previous == "root" else self.order.index(previous) + 1
        self.order.insert(at, item.id)
        self.items[item.id] = item

    def delete(self, item_id: str) -> Item:
        if item_id not in self.items:
            _refuse("item_delete_invalid_item_id", f"Item '{item_id}' does not exist.")
        self.order.remove(item_id)
        return self.items.pop(item_id)

    def get(self, item_id: str) -> Item:
        if item_id not in self.items:
            _refuse("item_retrieve_invalid_item_id", f"Item '{item_id}' does not exist.")
        return self.items[item_id]

    def truncate(self, item_id: str, audio_end_ms: int) -> Item:
        """Forgets an assistant's audio beyond `audio_end_ms`; text cannot be truncated."""
        item = self.items.get(item_id)
        if item is None or item.voice is None:
            _refuse("item_truncate_invalid_item_id", f"Item '{item_id}' has no assistant audio.")
        if audio_end_ms > item.audio_ms:
            _refuse(
                "invalid_value",
                f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms",
            )
        item.audio_ms = audio_end_ms
        item.data["content"] = [{"type": "output_audio", "transcript": ""}]
        return item

    def answer(self, call_id: str, output: str) -> None:
        """Notes a tool's output; raises LookupError for an unknown or answered call."""
        if call_id not in self.calls:
            raise LookupError(f"function_call_output for unknown call {call_id!r}")
        if self.calls[call_id] is not None:
            raise LookupError(f"second function_call_output for call {call_id!r}")
        self.calls[call_id] = output

    @property
    def told(self) -> list[tuple[str, str]]:
        """What the client has put into the conversation and left there, in its order: the role and
        the text of messages, the type and the `call_id` of what belongs to functions.
        """
        found: list[tuple[str, str]] = []
        for item_id in self.order:
            data = self.items[item_id].data
            if not self.items[item_id].told:
                continue
            if data["type"] == "message":
                found.append((data["role"], " ".join(part["text"] for part in data["content"])))
            else:
                found.append((data["type"], data["call_id"]))
        return found

    @property
    def unanswered(self) -> list[str]:
        return [call_id for call_id, output in self.calls.items() if output is None]


def _refuse(code: str, message: str) -> NoReturn:
    raise RuleBroken(code, message)


def default_session(session_id: str, model: str, expires_at: int) -> dict[str, Any]:
    """The effective configuration of a session that nobody has configured yet."""
    pcm = {"type": "audio/pcm", "rate": 24_000}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "expires_at": expires_at,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful assistant.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "audio": {
            "input": {
                "format": dict(pcm),
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 200,
                    "create_response": True,
                    "interrupt_response": True,
                    "idle_timeout_ms": None,
                },
            },
            "output": {"format": dict(pcm), "voice": "alloy", "speed": 1.0},
        },
    }


def updated_session(
    session: dict[str, Any], change: Mapping[str, Any], *, voice_locked: bool
) -> dict[str, Any]:
    """The session after a `session.update`; raises RuleBroken, and then nothing is changed."""
    if change.get("model") not in (None, session["model"]):
        raise RuleBroken("invalid_value", "The model cannot be changed.", "session.model")
    new = _merged(session, change)
    if voice_locked and new["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]:
        raise RuleBroken("cannot_update_voice", "The voice has been used.", "session.audio")
    if new["audio"]["output"]["format"] != {"type": "audio/pcm", "rate": 24_000}:
        raise RuleBroken("invalid_value", "This stand-in speaks audio/pcm only.", "session.audio")
    return new


def _merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Absent keys stay; formats and turn detection are replaced whole, as a new kind needs."""
    new = copy.deepcopy(dict(old))
    for key, value in change.items():
        whole = key in ("format", "turn_detection", "transcription")
        if isinstance(value, Mapping) and isinstance(new.get(key), Mapping) and not whole:
            new[key] = _merged(new[key], value)
        else:
            new[key] = copy.deepcopy(value)
    return new
