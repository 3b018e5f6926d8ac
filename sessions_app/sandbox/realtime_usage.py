"""Token counts of responses, by the published rates: plausible, and consistent with each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sessions_app.sandbox.realtime_conversation import Conversation, text_tokens

_MS_PER_OUTPUT_TOKEN: Final = 50


@dataclass(frozen=True, slots=True)
class Tokens:
    """A count of text and audio tokens."""

    text: int = 0
    audio: int = 0

    @property
    def total(self) -> int:
        return self.text + self.audio


def input_tokens(conversation: Conversation, instructions: str, tools: list[Any]) -> Tokens:
    """What a response reads: the instructions, the tools and everything said so far."""
    text, audio = conversation.tokens()
    text += text_tokens(instructions) + (text_tokens(json.dumps(tools)) if tools else 0)
    return Tokens(text, audio)


def output_tokens(text: str, audio_ms: int) -> Tokens:
    """What a response has written and spoken."""
    return Tokens(text_tokens(text), -(-audio_ms // _MS_PER_OUTPUT_TOKEN))


def usage(read: Tokens, cached: Tokens, written: Tokens) -> dict[str, Any]:
    """``response.usage``; what is cached is part of what was read."""
    hit = Tokens(min(cached.text, read.text), min(cached.audio, read.audio))
    return {
        "total_tokens": read.total + written.total,
        "input_tokens": read.total,
        "output_tokens": written.total,
        "input_token_details": {
            "text_tokens": read.text,
            "audio_tokens": read.audio,
            "image_tokens": 0,
            "cached_tokens": hit.total,
            "cached_tokens_details": {
                "text_tokens": hit.text,
                "audio_tokens": hit.audio,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": written.text, "audio_tokens": written.audio},
    }
