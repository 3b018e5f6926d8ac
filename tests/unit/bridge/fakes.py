"""Stand-ins for what a session uses: a model, a voice, a phone's socket, the manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sessions_app.bridge.session import CallSession, CallSetup
from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.errors import ProviderError, SpeechError
from sessions_app.core.limits import Limits
from sessions_app.core.phrases import Clips
from sessions_app.logcontext import current_call
from sessions_app.mirror import CallMirror
from sessions_app.providers.base import Capabilities

FRAME_BYTES = 320
RATE_HZ = 8000

Act = Callable[[], Awaitable[None]]


async def fine() -> None:
    return None


async def raises() -> None:
    raise OSError("broken on purpose")


def fails(error: Exception) -> Act:
    async def act() -> None:
        raise error

    return act


async def hangs() -> None:
    await asyncio.Event().wait()


async def slow() -> None:
    await asyncio.sleep(0.5)


class FakeSocket:
    """The phone's end. Keeps what was sent and when; can break or hang."""

    def __init__(self, closing: Act = fine) -> None:
        self.sent: list[tuple[float, str, bytes | str]] = []
        self.closed = 0
        self.sending: Act = fine
        self._closing = closing

    async def _send(self, kind: str, what: bytes | str) -> None:
        self.sent.append((asyncio.get_running_loop().time(), kind, what))
        await self.sending()

    async def send_audio(self, frame: bytes) -> None:
        await self._send("audio", frame)

    async def send_clear(self) -> None:
        await self._send("clear", "")

    async def send_mark(self, mark_id: str) -> None:
        await self._send("mark", mark_id)

    async def close(self) -> None:
        self.closed += 1
        await self._closing()

    @property
    def frames(self) -> list[bytes]:
        return [what for _, kind, what in self.sent if kind == "audio" and isinstance(what, bytes)]

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.sent]


class FakeProvider:
    """A model that says what it is told to say."""

    def __init__(
        self,
        *,
        opening: Act = fine,
        reading: Act | None = None,
        closing: Act = fine,
        speaks: bool = True,
    ) -> None:
        self.capabilities = Capabilities(speaks=speaks, rate_hz=24_000)
        self.name = "OpenAI"
        self.life_s: float | None = None
        self.commands: list[object] = []
        self.audio: list[bytes] = []
        self.opened = self.closed = 0
        self.emit: Callable[[ev.Event], None] | None = None
        self._opening, self._closing = opening, closing
        self._reading = reading
        self.lost = asyncio.Event()

    async def open(self) -> None:
        await self._opening()
        self.opened += 1

    async def read(self, emit: Callable[[ev.Event], None]) -> None:
        self.emit = emit
        if self._reading is not None:
            await self._reading()
        await self.lost.wait()
        raise ProviderError("connection closed: 1006", retryable=True)

    def send(self, command: object) -> None:
        self.commands.append(command)

    def send_audio(self, pcm: bytes) -> None:
        self.audio.append(pcm)

    async def close(self) -> None:
        self.closed += 1
        await self._closing()

    def of(self, kind: type) -> list[object]:
        return [command for command in self.commands if isinstance(command, kind)]


class FakeVoice:
    """A speech service: each clause becomes so many pieces, or a failure."""

    def __init__(self, *, pieces: int = 2, closing: Act = fine, failing: str = "") -> None:
        self.rate_hz = 16_000
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.closed = 0
        self.pieces = pieces
        self.failing = failing
        self.sound = b"\0\x10"
        self.between: Act = fine
        self._closing = closing

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        self.asked.append(text)
        try:
            for _ in range(self.pieces):
                await self.between()
                yield self.sound * 1600
            if self.failing and self.failing in text:
                raise SpeechError("HTTP 500", retryable=True)
        finally:
            self.ended.append(text)

    async def close(self) -> None:
        self.closed += 1
        await self._closing()


@dataclass
class World:
    """A session and everything around it; `later` are the model's sessions after the first."""

    provider: FakeProvider
    socket: FakeSocket = field(default_factory=FakeSocket)
    voice: FakeVoice | None = None
    spare_voice: FakeVoice | None = None
    hanging_up: Act = fine
    hung_up: int = 0
    removed: list[CallSession] = field(default_factory=list)
    fares: list[str] = field(default_factory=list)
    mirror: CallMirror = field(
        default_factory=lambda: CallMirror("uuid-1", {}, lambda mirror: None)
    )
    later: list[FakeProvider] = field(default_factory=list)
    clips: Clips = field(default_factory=Clips)
    transferring: Act = fine
    transferred: int = 0
    connected_again: int = 0
    person: str = ""

    async def hang_up(self) -> None:
        self.hung_up += 1
        await self.hanging_up()

    async def transfer(self) -> None:
        self.transferred += 1
        await self.transferring()

    def connect_again(self, session: CallSession) -> None:
        self.connected_again += 1

    def note_fares(self, trouble: str, *, answered: bool = True) -> None:
        if trouble or answered:
            self.fares.append(trouble)

    def next_provider(self) -> FakeProvider:
        """One after the other; there must be as many as are asked for."""
        return self._providers.pop(0)

    def __post_init__(self) -> None:
        self._providers = [self.provider, *self.later]

    def setup(self, limits: Limits | None = None) -> CallSetup:
        voice, spare = self.voice, self.spare_voice
        return CallSetup(
            agent=AgentProfile(greeting="Hello there.", fallback_number=self.person),
            limits=limits or Limits(),
            phone_rate_hz=RATE_HZ,
            frame_bytes=FRAME_BYTES,
            provider=self.next_provider,
            voice=(lambda: voice) if voice is not None else None,
            spare_voice=(lambda: spare) if spare is not None else None,
            hang_up=self.hang_up,
            transfer=self.transfer,
            connect_again=self.connect_again,
            clips=self.clips,
            mirror=self.mirror,
            provider_fares=self.note_fares,
            removed=self.removed.append,
        )

    def session(self, limits: Limits | None = None) -> CallSession:
        clock = asyncio.get_running_loop().time
        return CallSession("uuid-1", "44770", "44207", setup=self.setup(limits), clock=clock)


class Lines(logging.Handler):
    """The log as an operator reads it: `[uuid] text`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.levels: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = f"[{current_call.get()}] {record.getMessage()}"
        self.lines.append(line)
        self.levels[line] = record.levelno


@contextmanager
def log_lines() -> Iterator[Lines]:
    logger = logging.getLogger("sessions_app")
    lines, level = Lines(), logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


async def until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that others bring about."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
