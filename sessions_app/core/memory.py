"""What a model must know of the conversation if its session has to begin anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sessions_app.core import prompts
from sessions_app.core.events import (
    AddAgentWords,
    AddCallerWords,
    AddToolCall,
    AddWhisper,
    AnswerTool,
    Command,
    ProviderCommand,
    SaveTurn,
    Speaker,
    ToolCalled,
    Turn,
)
from sessions_app.core.listening import KEYS

#: The newest of so many turns and functions, and of so many letters, are told again.
ENTRIES_MOST = 120
LETTERS_MOST = 24_000


@dataclass(frozen=True, slots=True)
class _Function:
    called: ToolCalled
    text: str


@dataclass(frozen=True, slots=True)
class _Whisper:
    text: str


_Entry = Turn | _Function | _Whisper


class Memory:
    """Turns as they were heard, functions with their results, and whispers, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, _Entry]] = deque(maxlen=ENTRIES_MOST)
        #: When the session that is led now began; each counts its own time.
        self._from_ms = 0.0

    def another_session(self) -> None:
        """What is kept from here on comes after everything so far."""
        self._from_ms = 1.0 + max((at_ms for at_ms, _ in self._entries), default=0.0)

    def keep(self, commands: Iterable[Command]) -> None:
        """Remember the turns that are final by these commands. What the caller did not hear is no
        part of the conversation.
        """
        for command in commands:
            if isinstance(command, SaveTurn) and command.turn.final and command.turn.text:
                self._entries.append((self._from_ms + command.turn.from_ms, command.turn))

    def keep_function(self, called: ToolCalled, answer: AnswerTool, at_ms: int) -> None:
        self._entries.append((self._from_ms + at_ms, _Function(called, answer.output)))

    def keep_whisper(self, text: str, at_ms: float) -> None:
        """What a supervisor told the model, on the session's clock."""
        self._entries.append((self._from_ms + at_ms, _Whisper(text)))

    @property
    def last_speaker(self) -> Speaker | None:
        """Whose turn was the last one."""
        turns = [(at_ms, entry) for at_ms, entry in self._entries if isinstance(entry, Turn)]
        return max(turns, key=lambda pair: pair[0])[1].speaker if turns else None

    def recall(self) -> list[ProviderCommand]:
        """The conversation so far, for a model that knows nothing of it."""
        told: list[ProviderCommand] = []
        letters = 0
        # Words of the caller come late: it is his speaking that has a place in time.
        for number, (_, entry) in enumerate(
            sorted(self._entries, key=lambda pair: pair[0], reverse=True)
        ):
            letters += len(entry.text)
            if letters > LETTERS_MOST:
                break
            told += reversed(list(_told(entry, number)))
        return told[::-1]


def _told(entry: _Entry, number: int) -> Iterator[ProviderCommand]:
    if isinstance(entry, _Function):
        called = entry.called
        yield AddToolCall(called.call_id, called.name, called.arguments)
        yield AnswerTool(called.call_id, entry.text)
    elif isinstance(entry, _Whisper):
        yield AddWhisper(prompts.whispered(entry.text))
    elif entry.speaker is Speaker.AGENT:
        yield AddAgentWords(f"past_{number}", entry.text)
    elif entry.item_id.startswith(KEYS):
        yield AddCallerWords(prompts.keys_pressed(entry.text))
    else:
        yield AddCallerWords(entry.text)
