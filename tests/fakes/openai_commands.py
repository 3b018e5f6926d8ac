"""What the fake OpenAI does at each event of its client; refusals are raised as RuleBroken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.fakes.openai_conversation import Item, RuleBroken, Truncation, updated_session

if TYPE_CHECKING:
    from tests.fakes.openai_connection import RealtimeConnection


async def obey(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    """Does what a well-formed event asks; raises RuleBroken where the real server says `error`."""
    match event["type"]:
        case "session.update":
            _update(conn, event)
        case "response.create":
            _create_response(conn, event)
        case "response.cancel":
            _cancel(conn, event)
        case "conversation.item.create":
            await _create_item(conn, event)
        case "conversation.item.truncate":
            await _truncate(conn, event)
        case "conversation.item.delete":
            conn.conversation.delete(event["item_id"])
            conn.deleted.append(event["item_id"])
            await _acknowledge(conn, event, "conversation.item.deleted", "item_id")
        case "conversation.item.retrieve":
            item = conn.conversation.get(event["item_id"])
            await conn.send({"type": "conversation.item.retrieved", "item": item.data})
        case "input_audio_buffer.commit":
            if conn.session["audio"]["input"]["turn_detection"] is not None:
                conn.complain("input_audio_buffer.commit while the server detects turns")
        case "input_audio_buffer.clear":
            await conn.send({"type": "input_audio_buffer.cleared"})


async def _acknowledge(
    conn: RealtimeConnection, event: Mapping[str, Any], kind: str, *names: str
) -> None:
    await conn.send({"type": kind, **{name: event[name] for name in names}})


def _update(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    if conn.script.update_error:
        raise RuleBroken(conn.script.update_error, "scripted refusal")
    conn.session = updated_session(conn.session, event["session"], voice_locked=conn.voice_used)
    conn.spawn(_updated(conn))


async def _updated(conn: RealtimeConnection) -> None:
    await asyncio.sleep(conn.script.updated_delay_s)
    # Marked first: the client may act on the event before this task runs again.
    conn.configured = True
    await conn.send({"type": "session.updated", "session": conn.session})


def _create_response(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    wanted = event.get("response") or {}
    if wanted.get("conversation") != "none" and conn.active:
        raise RuleBroken(
            "conversation_already_has_active_response",
            f"Conversation already has an active response in progress: {conn.active.id}.",
        )
    if conn.conversation.unanswered:
        conn.complain("response.create while a function call waits for its output")
    conn.begin(conn.script.next_reply(), wanted)


def _cancel(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    wanted = event.get("response_id")
    # A cancel that comes before `response.created` is lost: the response appears all the same.
    if conn.active is None or not conn.active.created or wanted not in (None, conn.active.id):
        raise RuleBroken(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )
    conn.active.cancel("client_cancelled")


async def _create_item(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    data = dict(event["item"])
    data.setdefault("id", conn.new_id("item"))
    if data["type"] == "message" and not all(part["text"].strip() for part in data["content"]):
        conn.complain("an item without words")
    if data["type"] == "function_call":
        # Told to a session that did not make it; its output has to follow.
        if data["call_id"] in conn.conversation.calls:
            conn.complain(f"a second function_call {data['call_id']!r}")
        conn.conversation.calls[data["call_id"]] = None
    if data["type"] == "function_call_output":
        try:
            conn.conversation.answer(data["call_id"], data["output"])
        except LookupError as error:
            conn.complain(str(error))
    conn.conversation.add(Item(data["id"], data, told=True), event.get("previous_item_id"))
    place = {"previous_item_id": conn.conversation.before(data["id"])}
    for kind in ("conversation.item.added", "conversation.item.done"):
        await conn.send({"type": kind, "item": data, **place})


async def _truncate(conn: RealtimeConnection, event: Mapping[str, Any]) -> None:
    known = conn.conversation.items.get(event["item_id"])
    sent_ms = known.audio_ms if known else 0
    item = conn.conversation.truncate(event["item_id"], event["audio_end_ms"])
    assert item.voice is not None
    conn.truncations.append(
        Truncation(time.monotonic(), item.id, event["audio_end_ms"], sent_ms, item.voice)
    )
    names = ("item_id", "content_index", "audio_end_ms")
    await _acknowledge(conn, event, "conversation.item.truncated", *names)
