"""What we say to OpenAI Realtime (the GA shape): configuration, commands, audio.

Pure: turns the house's commands into client events. The other direction is `decoder.py`.
"""

from __future__ import annotations

import re
from typing import Any

import pybase64

from sessions_app.core.agent import AgentProfile, TurnDetection, VoiceKind, main_language
from sessions_app.core.events import (
    AddAgentWords,
    AddCallerWords,
    AddToolCall,
    AddWhisper,
    AnswerTool,
    CancelResponse,
    ChangeVoice,
    CreateResponse,
    CutItem,
    ProviderCommand,
)
from sessions_app.providers.base import ProviderSetup
from sessions_app.providers.openai.conversation import RATE_HZ, Conversation, Item

#: The best of them first; it also speaks for an agent whose own voice is another service's.
VOICES = (
    "marin",
    "cedar",
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "sage",
    "shimmer",
    "verse",
)

END_CALL = "end_call"
MAX_ITEM_ID = 32

PHONE_RULES = """\
You are talking on the telephone.
Speak the language {language}.
Use short sentences. Ask one question at a time.
Call the tool end_call only after the caller has nothing more to say, and say goodbye in the \
same turn."""

_END_CALL_TOOL: dict[str, Any] = {
    "type": "function",
    "name": END_CALL,
    "description": (
        "Hangs up the phone. Only when the caller is finished; say goodbye in the same turn."
    ),
    "parameters": {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "Why the call ends, in a few words."}
        },
        "additionalProperties": False,
    },
}

#: "gpt-realtime-2" and its kin, but not "gpt-realtime-2025-08-28", which refuses their fields.
_REASONING_MODEL = re.compile(r"gpt-realtime-2(?!\d)")
_PCM = {"type": "audio/pcm", "rate": RATE_HZ}


def session_instructions(agent: AgentProfile) -> str:
    """The agent's own instructions and the house's rules for the phone."""
    return f"{agent.instructions}\n\n{PHONE_RULES.format(language=agent.language)}".strip()


def session_update(
    setup: ProviderSetup, *, model: str, transcription_model: str, event_id: str
) -> dict[str, Any]:
    """The one configuration of a conversation.

    Every field is given, because the documents disagree on some defaults, and one unknown field
    would make the server refuse all of them.
    """
    agent = setup.agent
    audio: dict[str, Any] = {
        "input": {
            "format": _PCM,
            "noise_reduction": {"type": "near_field"},
            "transcription": _transcription(transcription_model, agent.language),
            "turn_detection": _turn_detection(agent),
        }
    }
    if not setup.text_only:
        audio["output"] = _spoken(agent)
    session: dict[str, Any] = {
        "type": "realtime",
        "model": model,
        "output_modalities": ["text"] if setup.text_only else ["audio"],
        "instructions": session_instructions(agent),
        "audio": audio,
        "tools": [_END_CALL_TOOL],
        "tool_choice": "auto",
        "max_output_tokens": 2048,
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "tracing": None,
    }
    if _REASONING_MODEL.match(model):
        session |= {"parallel_tool_calls": False, "reasoning": {"effort": "low"}}
    return {"type": "session.update", "event_id": event_id, "session": session}


def _spoken(agent: AgentProfile) -> dict[str, Any]:
    return {"format": _PCM, "voice": _voice(agent), "speed": 1.0}


def _voice(agent: AgentProfile) -> str:
    """Its voice; an agent spoken by another service has none here, should we have to step in."""
    return agent.voice if agent.voice_kind is VoiceKind.OPENAI else VOICES[0]


def _transcription(model: str, language: str) -> dict[str, Any]:
    subtag = main_language(language)
    if len(subtag) != 2:  # ISO 639-1 is all that is understood; without a hint it guesses
        return {"model": model}
    if model.startswith(("gpt-transcribe", "gpt-live-transcribe")):
        return {"model": model, "languages": [subtag]}
    return {"model": model, "language": subtag}


def _turn_detection(agent: AgentProfile) -> dict[str, Any]:
    if agent.turn_detection is TurnDetection.SEMANTIC_VAD:
        return {
            "type": "semantic_vad",
            "eagerness": "auto",
            "create_response": True,
            "interrupt_response": True,
        }
    return {
        "type": "server_vad",
        "threshold": agent.vad_threshold,
        "prefix_padding_ms": agent.vad_prefix_ms,
        "silence_duration_ms": agent.vad_silence_ms,
        "create_response": True,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }


def audio_append(pcm: bytes) -> bytes:
    """The caller's audio as a client event, ready to be sent as text: the only frequent one."""
    return b'{"type":"input_audio_buffer.append","audio":"' + pybase64.b64encode(pcm) + b'"}'


class Encoder:
    """Turns commands into client events, for one conversation."""

    def __init__(self, setup: ProviderSetup, conversation: Conversation) -> None:
        self._agent = setup.agent
        self._instructions = session_instructions(setup.agent)
        self._conversation = conversation
        self._events = 0
        self._replacements = 0

    def encode(self, command: ProviderCommand) -> list[dict[str, Any]]:
        """The client events that carry this out, in order; none if nothing is left to do."""
        match command:
            case CreateResponse():
                return [self._create_response(command)]
            case CancelResponse(response_id=response_id):
                return [self._event("response.cancel", response_id=response_id)]
            case CutItem():
                return self._cut(command)
            case AddAgentWords(item_id=item_id, text=text):
                return [self._add_agent_words(item_id, text)]
            case AddCallerWords(text=text):
                return [self._add_item(_message("user", "input_text", text))]
            case AddWhisper(text=text):
                return [self._add_item(_message("system", "input_text", text))]
            case AnswerTool(call_id=call_id, output=output):
                answer = {"type": "function_call_output", "call_id": call_id, "output": output}
                return [self._add_item(answer)]
            case AddToolCall(call_id=call_id, name=name, arguments=arguments):
                call = {"type": "function_call", "call_id": call_id, "name": name}
                return [self._add_item({**call, "arguments": arguments})]
            case ChangeVoice(own=own):
                self._conversation.text_only = not own
                return [self._change_voice(own)]

    def _event(self, type_: str, **fields: Any) -> dict[str, Any]:
        self._events += 1
        return {"type": type_, "event_id": f"ev_{self._events}", **fields}

    def _add_item(self, item: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return self._event("conversation.item.create", item=item, **fields)

    def _create_response(self, command: CreateResponse) -> dict[str, Any]:
        response: dict[str, Any] = {
            "metadata": {"request_id": command.request_id, "purpose": command.purpose.value}
        }
        if command.instructions:
            # They would replace the session's, so they are put behind them.
            response["instructions"] = f"{self._instructions}\n\n{command.instructions}"
        if not command.tools:
            response["tool_choice"] = "none"
        self._conversation.asked(command.request_id)
        return {"type": "response.create", "event_id": command.request_id, "response": response}

    def _change_voice(self, own: bool) -> dict[str, Any]:
        """Fields that are left out stay as they are, but for the type, which is never optional."""
        session: dict[str, Any] = {"type": "realtime"}
        session["output_modalities"] = ["audio"] if own else ["text"]
        if own:
            session["audio"] = {"output": _spoken(self._agent)}
        return self._event("session.update", session=session)

    def _add_agent_words(self, item_id: str, text: str) -> dict[str, Any]:
        item = self._conversation.see(item_id)
        item.has_text = item.done = True
        if len(item_id) > MAX_ITEM_ID:
            self._conversation.replace(item, self._new_id())
        return self._add_item(_message("assistant", "output_text", text, item.wire_id))

    def _cut(self, command: CutItem) -> list[dict[str, Any]]:
        item = self._conversation.item(command.item_id)
        if item is None:
            # Forgotten or never seen: there is no received length to keep within.
            item = self._conversation.see(command.item_id)
            item.audio_bytes = command.heard_ms * RATE_HZ * 2 // 1000
        if item.wire_id is None:
            return []
        if not item.audio_bytes and (item.has_text or self._conversation.text_only):
            return self._replace(item, command.heard_text if command.heard_ms > 0 else "")
        return self._truncate(item, min(command.heard_ms, item.audio_ms))

    def _truncate(self, item: Item, heard_ms: int) -> list[dict[str, Any]]:
        """Only audio can be truncated, and never to more than the server has sent."""
        if heard_ms <= 0:
            return [self._delete(item)]
        if heard_ms >= item.audio_ms and (item.done or item.cut_ms is not None):
            return []
        item.cut_ms = heard_ms
        return [
            self._event(
                "conversation.item.truncate",
                item_id=item.wire_id,
                content_index=0,
                audio_end_ms=heard_ms,
            )
        ]

    def _replace(self, item: Item, heard_text: str) -> list[dict[str, Any]]:
        """Text cannot be truncated: put an item with only what was heard in its place."""
        previous = self._conversation.before(item)
        events = [self._delete(item)]
        if heard_text.strip():
            self._conversation.replace(item, self._new_id())
            message = _message("assistant", "output_text", heard_text, item.wire_id)
            place = {} if previous is None else {"previous_item_id": previous}
            events.append(self._add_item(message, **place))
        return events

    def _delete(self, item: Item) -> dict[str, Any]:
        event = self._event("conversation.item.delete", item_id=item.wire_id)
        item.wire_id = None
        return event

    def _new_id(self) -> str:
        self._replacements += 1
        return f"cut_{self._replacements}"


def _message(role: str, part: str, text: str, item_id: str | None = None) -> dict[str, Any]:
    message = {"type": "message", "role": role, "content": [{"type": part, "text": text}]}
    return message if item_id is None else {"id": item_id, **message}
