"""The small interface between a call and a speech model's service.

A provider is one live conversation. The call's session owns it: it opens it, converses in its own
task group, and closes it. A provider never sees the phone, rows, or another call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import Event, ProviderCommand


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this provider can do; the call branches on these, never on a provider's name."""

    #: It speaks itself (`AgentAudio`); otherwise its words (`AgentText`) need a voice.
    speaks: bool
    #: Rate of the PCM it takes and gives, s16le mono.
    rate_hz: int


@dataclass(frozen=True, slots=True)
class ProviderSetup:
    """Everything a conversation is opened with."""

    call_uuid: str
    agent: AgentProfile
    #: The model is to answer in words, which another service speaks.
    text_only: bool
    #: Extra headers for the handshake (the sandbox is told of a wanted fault by one).
    headers: dict[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """One conversation with a speech model."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def life_s(self) -> float | None:
        """How long this conversation may last from its opening on, if its service tells."""
        ...

    @property
    def name(self) -> str:
        """For people: the name that log lines use, such as "OpenAI"."""
        ...

    async def open(self) -> None:
        """Connect and configure; returns when the conversation is ready for audio.

        Tries again by itself where that can help. Raises `ProviderError` in the end; then nothing
        is left open.
        """
        ...

    async def read(self, emit: Callable[[Event], None]) -> None:
        """Converse: hand over events, and send what is queued, until the connection ends; then
        raise `ProviderError`. What `emit` raises is raised here, too.
        """
        ...

    def send(self, command: ProviderCommand) -> None:
        """Queue a command. Never blocks; commands keep their order and are never dropped."""
        ...

    def send_audio(self, pcm: bytes) -> None:
        """Queue the caller's audio; when the connection is slow the oldest is dropped."""
        ...

    async def close(self) -> None:
        """Release everything, within about a second even if the other side hangs. Idempotent."""
        ...


class Voice(Protocol):
    """A speech synthesis service, opened for one call."""

    @property
    def rate_hz(self) -> int: ...

    def speak(self, text: str) -> AsyncIterator[bytes]:
        """Stream s16le mono PCM for `text`, in even-sized pieces.

        Tries again only before the first byte. Raises `SpeechError`. Closing the iterator (or
        cancelling the task that reads it) ends the request.
        """
        ...

    async def close(self) -> None: ...
