"""What the fake OpenAI is told to do: plain data, set before or while a connection is open."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["completed", "failed", "incomplete"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of a response; `arguments` is the JSON text the model wrote."""

    name: str
    arguments: str = "{}"
    call_id: str = ""

    @classmethod
    def of(cls, name: str, arguments: dict[str, Any] | str) -> ToolCall:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return cls(name, text)


@dataclass(frozen=True, slots=True)
class Reply:
    """How one response goes.

    text: what is said; empty: the text after `Say exactly:` in the instructions, or a sentence.
    audio_ms: how long the voice speaks; None: 60 ms a character, at least 400.
    burst_ms: the whole of it is sent within this time (ten seconds in 200 ms is usual).
    messages: into how many items the text is split (2.x models speak in several).
    created_delay_s: how late `response.created` comes.
    status, code: how it ends; `code` is the error of a failed one, the reason of an incomplete one.
    stall: it is created, says half of it and then never ends.
    late_deltas: how many deltas still come after a cancel.
    sound: what is heard of a voice; silence in its place, or no audio at all beside the words.
    """

    text: str = ""
    audio_ms: int | None = None
    burst_ms: int = 200
    messages: int = 1
    tools: tuple[ToolCall, ...] = ()
    created_delay_s: float = 0.0
    status: Status = "completed"
    code: str = ""
    stall: bool = False
    late_deltas: int = 2
    sound: Literal["voice", "silence", "none"] = "voice"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake answered with this status and error code instead of 101."""

    status: int = 401
    code: str = "invalid_api_key"
    delay_s: float = 0.0

    def body(self) -> bytes:
        error = {"type": "invalid_request_error", "code": self.code, "message": "refused"}
        return json.dumps({"error": error}).encode()


@dataclass(slots=True)
class Script:
    """How one connection behaves.

    refuse: refuses the handshake.
    handshake_delay_s: how long the 101 takes.
    hang: accepts, answers pings, and never says a word.
    error_then_close: sends this error code right after the 101 and closes with that close code.
    updated_delay_s: how late `session.updated` comes.
    update_error: every session.update is refused with this code.
    replies: taken one by one for each response, whoever asked for it; then `otherwise` for ever.
    unknown_events: sprinkles events and items that no published list knows.
    transcription_delay_s: how long after the commit the caller's words come.
    expires_in_s: how long the session lasts, as it tells at its beginning; then it says that it is
        over and closes with 1001.
    listens: turns of the caller are found in the audio that comes in, not told by the test; their
        words are those of `openai_ear.Ear`.
    """

    refuse: Refusal | None = None
    handshake_delay_s: float = 0.0
    hang: bool = False
    error_then_close: tuple[str, int] | None = None
    updated_delay_s: float = 0.0
    update_error: str = ""
    replies: deque[Reply] = field(default_factory=deque)
    otherwise: Reply = Reply()
    unknown_events: bool = False
    transcription_delay_s: float = 0.0
    expires_in_s: float | None = None
    listens: bool = False

    def next_reply(self) -> Reply:
        return self.replies.popleft() if self.replies else self.otherwise
