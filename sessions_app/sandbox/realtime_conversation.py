"""The conversation of a realtime session: its items, in order, and what may be done to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sessions_app.sandbox.checks import (
    Check,
    WireError,
    array,
    one_of,
    record,
    string,
    tagged,
)

# The API keeps a context of tokens and drops from its head; a count of items bounds our memory the
# same way.
_KEPT_ITEMS: Final = 2000
_MS_PER_USER_TOKEN: Final = 100
_MS_PER_ASSISTANT_TOKEN: Final = 50
_CHARS_PER_TEXT_TOKEN: Final = 4

_ID = string(1, 32)
_TEXT = {"type": string(), "text": string()}


def _message(role: str, content: Check) -> Check:
    return record(
        {
            "type": string(),
            "id": _ID,
            "object": one_of("realtime.item"),
            "status": one_of("completed", "incomplete", "in_progress"),
            "role": one_of(role),
            "content": array(content),
        },
        required=("role", "content"),
    )


_COMMON = {
    "type": string(),
    "id": _ID,
    "object": one_of("realtime.item"),
    "status": one_of("completed", "incomplete", "in_progress"),
}
_ITEM: Final = tagged(
    {
        "message": tagged(
            {
                "system": _message(
                    "system", tagged({"input_text": record(_TEXT, required=("text",))})
                ),
                "user": _message("user", tagged({"input_text": record(_TEXT, required=("text",))})),
                # The client cannot recreate the assistant's audio, only its text.
                "assistant": _message(
                    "assistant", tagged({"output_text": record(_TEXT, required=("text",))})
                ),
            },
            tag="role",
        ),
        "function_call": record(
            _COMMON | {"name": string(1, 64), "arguments": string(), "call_id": string(1, 64)},
            required=("name", "arguments"),
        ),
        "function_call_output": record(
            _COMMON | {"call_id": string(1, 64), "output": string()},
            required=("call_id", "output"),
        ),
    }
)


def check_item(value: Any, path: str) -> None:
    """Refuses (``WireError``) what ``conversation.item.create`` may not create."""
    _ITEM(value, path)


@dataclass(slots=True)
class Item:
    """One item: its shape on the wire, and what the wire does not tell."""

    wire: dict[str, Any]
    audio_ms: int = 0
    said: str = ""
    """What the model understands it to say: recognised speech, typed text, its own words."""

    @property
    def id(self) -> str:
        return str(self.wire["id"])

    @property
    def role(self) -> str:
        return str(self.wire.get("role", self.wire["type"]))

    def tokens(self) -> tuple[int, int]:
        """(text, audio) tokens of the item, by the API's published rates."""
        if self.audio_ms:
            rate = _MS_PER_ASSISTANT_TOKEN if self.role == "assistant" else _MS_PER_USER_TOKEN
            return 0, -(-self.audio_ms // rate)
        return text_tokens(self.said), 0


def text_tokens(text: str) -> int:
    """A plausible count: four characters each."""
    return -(-len(text) // _CHARS_PER_TEXT_TOKEN)


def _said(wire: dict[str, Any]) -> str:
    if wire["type"] == "message":
        return " ".join(part.get("text", "") for part in wire["content"])
    return str(wire.get("output") or wire.get("arguments") or "")


@dataclass(slots=True)
class Conversation:
    """Items in order. Every refusal is a ``WireError``."""

    id: str
    items: list[Item] = field(default_factory=list)

    def last_id(self) -> str | None:
        """The id of the newest item."""
        return self.items[-1].id if self.items else None

    def append(self, item: Item) -> str | None:
        """Adds at the end; the id of the item before it."""
        previous = self.last_id()
        self.items.append(item)
        del self.items[:-_KEPT_ITEMS]
        return previous

    def create(self, wire: dict[str, Any], after: str | None) -> tuple[Item, str | None]:
        """Adds a checked client item behind ``after`` (``"root"``: first, ``None``: last)."""
        if any(item.id == wire["id"] for item in self.items):
            raise WireError(
                "item_create_duplicate_item_id",
                f"Error creating item: an item with id '{wire['id']}' already exists.",
                "item.id",
            )
        if wire["type"] == "function_call_output":
            self._check_call_id(wire["call_id"])
        item = Item({"object": "realtime.item", "status": "completed"} | wire, said=_said(wire))
        if after is None:
            return item, self.append(item)
        index = 0 if after == "root" else self._index(after, "item_create", "previous_item_id") + 1
        self.items.insert(index, item)
        return item, self.items[index - 1].id if index else None

    def _check_call_id(self, call_id: str) -> None:
        if not any(
            item.wire["type"] == "function_call" and item.wire.get("call_id") == call_id
            for item in self.items
        ):
            raise WireError(
                "invalid_tool_call_id",
                f"Tool call ID '{call_id}' not found in conversation.",
                "item.call_id",
            )

    def retrieve(self, item_id: str) -> Item:
        """The item of that id."""
        return self.items[self._index(item_id, "item_retrieve")]

    def delete(self, item_id: str) -> None:
        """Forgets the item of that id."""
        del self.items[self._index(item_id, "item_delete")]

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cuts the assistant's audio to ``audio_end_ms``; the transcript of the item is gone with
        it.
        """
        item = self.items[self._index(item_id, "item_truncate")]
        content = item.wire.get("content", [])
        if content_index >= len(content) or content[content_index]["type"] != "output_audio":
            raise WireError(
                "invalid_value",
                "Only model output audio messages can be truncated.",
                "content_index",
            )
        if audio_end_ms > item.audio_ms:
            raise WireError(
                "invalid_value",
                f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms",
                "audio_end_ms",
            )
        kept = audio_end_ms / item.audio_ms if item.audio_ms else 0.0
        item.said = item.said[: int(len(item.said) * kept)]
        item.audio_ms = audio_end_ms
        content[content_index].pop("transcript", None)

    def _index(self, item_id: str, what: str, param: str = "item_id") -> int:
        for index in range(len(self.items) - 1, -1, -1):
            if self.items[index].id == item_id:
                return index
        verb = what.removeprefix("item_").removesuffix("e") + "ing"
        raise WireError(
            f"{what}_invalid_{'previous_' if param == 'previous_item_id' else ''}item_id",
            f"Error {verb} item: the item with id '{item_id}' does not exist.",
            param,
        )

    def tokens(self) -> tuple[int, int]:
        """(text, audio) tokens of everything."""
        counts = [item.tokens() for item in self.items]
        return sum(text for text, _ in counts), sum(audio for _, audio in counts)
