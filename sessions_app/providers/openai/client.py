"""A live conversation with OpenAI Realtime over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from sessions_app.core.errors import ProviderError
from sessions_app.core.events import Event, ProviderCommand, ProviderLost
from sessions_app.providers.base import Capabilities, ProviderSetup
from sessions_app.providers.openai.connection import DirectConnection, Message, nothing
from sessions_app.providers.openai.conversation import RATE_HZ, Conversation
from sessions_app.providers.openai.decoder import Decoder
from sessions_app.providers.openai.faults import SESSION_EXPIRED, Fault, is_fatal
from sessions_app.providers.openai.sendqueue import SendQueue
from sessions_app.providers.openai.wire import Encoder, audio_append, session_update
from sessions_app.providers.tls import tls_context

_log = logging.getLogger(__name__)

# At DEBUG the library logs whole handshakes and frames: our key, and what people say. So its logger
# is none of the tree, where a configuration that is applied again would take its level away.
_socket_log = logging.Logger(f"{__name__}.socket", logging.WARNING)
_socket_log.parent = _log

_MAX_MESSAGE_BYTES = 16 * 2**20
_SEND_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 0.8
_ABORT_TIMEOUT_S = 0.2
_BACKOFF_S = 0.25
_BACKOFF_MAX_S = 2.0
_UPDATE_ID = "session_update"

#: Statuses of a refused upgrade that may be different the next time; so may any 5xx.
_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
#: Close codes that were seen for refused credentials and a refused protocol version.
_FATAL_CLOSE = frozenset({3000, 4000})


@dataclass(frozen=True, slots=True)
class OpenAIConf:
    """Where and how to reach OpenAI; `base_url` such as `https://api.openai.com/v1`."""

    api_key: str = field(repr=False)
    base_url: str
    realtime_model: str
    transcription_model: str
    connect_timeout_s: float = 2.5
    ready_timeout_s: float = 4.0
    attempts: int = 3


def realtime_url(base_url: str, model: str) -> str:
    """`http(s)://host/v1` as `ws(s)://host/v1/realtime?model=…`."""
    base = re.sub(r"^http", "ws", base_url.rstrip("/"))
    return f"{base}/realtime?model={quote(model, safe='')}"


class OpenAIProvider:
    """Implements `Provider`. `read` never emits `ProviderReady` or `ProviderLost`: the first is
    `open()` returning, the second the `ProviderError` it raises.
    """

    def __init__(
        self,
        setup: ProviderSetup,
        conf: OpenAIConf,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rand: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self._setup = setup
        self._conf = conf
        self._sleep = sleep
        self._rand = rand
        self._model = setup.agent.model or conf.realtime_model
        conversation = Conversation(text_only=setup.text_only)
        self._encoder = Encoder(setup, conversation)
        self._decoder = Decoder(conversation)
        self._queue = SendQueue()
        self._early: list[Event] = []
        self._ws: DirectConnection | None = None
        self._attempts = 0
        self._sent = 0
        self._emit: Callable[[Event], None] | None = None
        #: Done when reading is over, with what ended it.
        self._over: asyncio.Future[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        #: The session's length as the server told it; None: it did not.
        self.life_s: float | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(speaks=not self._setup.text_only, rate_hz=RATE_HZ)

    @property
    def name(self) -> str:
        return "OpenAI"

    @property
    def audio_dropped(self) -> int:
        """Milliseconds of the caller's audio dropped because the connection was slow."""
        return self._queue.audio_dropped_ms

    @property
    def counters(self) -> Mapping[str, int]:
        """For diagnosis: what was sent, dropped, ignored, and how often we had to connect."""
        return {
            **self._decoder.counters,
            "sent": self._sent,
            "audio_dropped_ms": self.audio_dropped,
            "attempts": self._attempts,
        }

    # ------------------------------------------------------------------ opening

    async def open(self) -> None:
        """Connect, configure, and see that the server understood; see `Provider.open`."""
        for attempt in range(1, self._conf.attempts + 1):
            self._attempts = attempt
            try:
                self._ws = await self._try_open()
                return
            except ProviderError as exc:
                if not exc.retryable or attempt == self._conf.attempts:
                    raise
                _log.warning(
                    "OpenAI attempt %d of %d failed: %s", attempt, self._conf.attempts, exc
                )
            # Full jitter: a thousand calls that lost the same server must not return together.
            ceiling_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (attempt - 1))
            await self._sleep(ceiling_s * self._rand())

    async def _try_open(self) -> DirectConnection:
        ws = await self._connect()
        try:
            async with asyncio.timeout(self._conf.ready_timeout_s):
                await self._configure(ws)
        except TimeoutError:
            await _abort(ws)
            raise ProviderError(
                f"no session within {self._conf.ready_timeout_s} s", retryable=True, code="timeout"
            ) from None
        except ConnectionClosed as exc:
            raise _closed(exc) from None
        except BaseException:
            await _abort(ws)
            raise
        return ws

    async def _connect(self) -> DirectConnection:
        url = realtime_url(self._conf.base_url, self._model)
        headers = {**self._setup.headers, "Authorization": f"Bearer {self._conf.api_key}"}
        try:
            connection = await connect(
                url,
                create_connection=DirectConnection,
                additional_headers=headers,
                compression=None,
                proxy=None,
                open_timeout=self._conf.connect_timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=_MAX_MESSAGE_BYTES,
                logger=_socket_log,
                ssl=tls_context() if url.startswith("wss:") else None,
            )
            assert isinstance(connection, DirectConnection)
            return connection
        except InvalidStatus as exc:
            raise _refused(exc) from None
        except (InvalidURI, ssl.SSLCertVerificationError, ValueError) as exc:
            # Never the library's own words: they may quote a header, and one is our key.
            raise ProviderError(
                f"cannot connect to {self._conf.base_url}: {type(exc).__name__}",
                retryable=False,
                code="connect",
            ) from None
        except TimeoutError:
            raise ProviderError(
                f"no connection within {self._conf.connect_timeout_s} s",
                retryable=True,
                code="timeout",
            ) from None
        except OSError as exc:
            raise ProviderError(f"no connection: {exc}", retryable=True, code="connect") from exc
        except WebSocketException as exc:
            raise ProviderError(
                f"no connection: {type(exc).__name__}", retryable=True, code="connect"
            ) from None

    async def _configure(self, ws: DirectConnection) -> None:
        """`session.created`, our update, `session.updated`: before that no audio may be sent."""
        self._early.clear()
        created = await self._expect(ws, "session.created")
        self.life_s = _life_s(created.get("session"), self._wall_clock())
        update = session_update(
            self._setup,
            model=self._model,
            transcription_model=self._conf.transcription_model,
            event_id=_UPDATE_ID,
        )
        ws.write(json.dumps(update).encode())
        updated = await self._expect(ws, "session.updated")
        _compare(update["session"], updated.get("session"))

    async def _expect(self, ws: DirectConnection, wanted: str) -> dict[str, Any]:
        while True:
            raw = bytes(await ws.next_message())
            event = _json_object(raw)
            if event.get("type") == wanted:
                return event
            if event.get("type") == "error":
                _raise_fault(Fault.of(event.get("error")))
            self._early += self._decoder.decode(raw)

    # ------------------------------------------------------------------ conversing

    async def read(self, emit: Callable[[Event], None]) -> None:
        """Hand over events until the connection ends; see `Provider.read`."""
        ws = self._opened()
        self._emit = emit
        self._over = over = asyncio.get_running_loop().create_future()
        ws.on_room, ws.on_full, ws.on_lost = self._go_on, self._wait_for_room, self._lost
        try:
            self._tell(self._early)
            ws.hand_to(self._hear)
            self._flow()
            if ws.full:
                self._wait_for_room()
            if ws.lost:
                self._lost()
            await over
        finally:
            self._emit = None
            self._let_go()
            # Who is told by it is kept by it, and keeps it.
            ws.on_room = ws.on_full = ws.on_lost = nothing
            ws.hand_to(_drop)
            if over.done() and not over.cancelled():
                over.exception()  # whoever cancels this does not want to know
            # What it is done with knows this very frame, by its traceback.
            self._over = None
            del over

    def _hear(self, message: Message) -> None:
        """What the connection brings, where it comes in."""
        self._tell(self._decoder.decode(message))

    def _tell(self, events: list[Event]) -> None:
        """Whatever goes wrong ends `read`."""
        if self._emit is None or self._over is None or self._over.done():
            return
        try:
            _hand_over(events, self._emit)
        except Exception as error:
            # Not by a name of this frame's, which the error's traceback knows.
            self._over.set_exception(error)

    def _lost(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(_closed(self._opened().close_exc))

    def send(self, command: ProviderCommand) -> None:
        for event in self._encoder.encode(command):
            self._queue.put(json.dumps(event).encode())
        self._flow()

    def send_audio(self, pcm: bytes) -> None:
        ws = self._ws
        if ws is not None and self._emit is not None and self._queue.empty and not ws.full:
            # As nearly always: there is nothing to be queued behind.
            ws.write(audio_append(pcm))
            self._sent += 1
        else:
            self._queue.put_audio(pcm)
            self._flow()

    def _flow(self) -> None:
        """Send what is queued, as long as the other side takes it."""
        ws = self._ws
        if ws is None or self._emit is None:
            return
        while not ws.full and (message := self._queue.take()) is not None:
            ws.write(message)
            self._sent += 1

    def _wait_for_room(self) -> None:
        # The library's keepalive waits for the same full buffer, so it cannot help.
        if self._patience is None and self._emit is not None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(_SEND_TIMEOUT_S, self._took_nothing)

    def _go_on(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._flow()

    def _took_nothing(self) -> None:
        _log.warning("OpenAI took nothing for %s s", _SEND_TIMEOUT_S)
        self._opened().transport.abort()

    def _let_go(self) -> None:
        """Nothing more is sent."""
        self._queue.close()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _opened(self) -> DirectConnection:
        if self._ws is None:
            raise ProviderError("not open", retryable=False, code="not_open")
        return self._ws

    # ------------------------------------------------------------------ closing

    async def close(self) -> None:
        """Say goodbye if the other side listens, and be gone in any case; see `Provider.close`."""
        self._let_go()
        ws = self._ws
        if ws is None:
            return
        # Read away what still comes: the other side's goodbye stands behind it.
        ws.hand_to(_drop)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await ws.close()
        except TimeoutError:
            _log.debug("OpenAI did not answer the close")
        finally:
            await _abort(ws)


def _drop(message: Message) -> None:
    return None


async def _abort(ws: DirectConnection) -> None:
    """Drop the connection and wait until its descriptor is free. Nothing if it is closed."""
    ws.transport.abort()
    try:
        async with asyncio.timeout(_ABORT_TIMEOUT_S):
            await ws.wait_closed()
    except TimeoutError:
        _log.warning("OpenAI's socket is still open")


def _hand_over(events: list[Event], emit: Callable[[Event], None]) -> None:
    for event in events:
        if isinstance(event, ProviderLost):
            raise ProviderError(
                f"the session ended: {event.reason}", retryable=event.retryable, code=event.reason
            )
        emit(event)
    events.clear()


def _json_object(raw: str | bytes) -> dict[str, Any]:
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _raise_fault(fault: Fault) -> NoReturn:
    """An error before the session is ready: going on would mean the server's own defaults."""
    ours = fault.event_id == _UPDATE_ID or fault.type == "invalid_request_error"
    passing = fault.type == "server_error" or fault.code == SESSION_EXPIRED
    retryable = not fault.fatal and (not ours or passing)
    raise ProviderError(f"session refused: {fault}", retryable=retryable, code=fault.name)


def _refused(exc: InvalidStatus) -> ProviderError:
    """A refused upgrade; its body says more than its status."""
    status = exc.response.status_code
    fault = Fault.of_body(exc.response.body)
    retryable = (status in _RETRYABLE_STATUS or status >= 500) and not fault.fatal
    detail = f": {fault}" if fault.name else ""
    return ProviderError(
        f"HTTP {status}{detail}", retryable=retryable, code=fault.name or str(status)
    )


def _closed(exc: ConnectionClosed) -> ProviderError:
    """The end of a connection. Reasons such as `invalid_request_error.some_code` were seen."""
    code, reason = (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (1006, "")
    fatal = code in _FATAL_CLOSE or is_fatal(*re.findall(r"\w+", reason))
    words = f" {reason[:100]}" if reason else ""
    return ProviderError(
        f"connection closed: {code}{words}", retryable=not fatal, code=f"close_{code}"
    )


def _life_s(session: object, now_s: float) -> float | None:
    """How long a session lasts that has just been made, from its `expires_at` in unix seconds."""
    expires_at = session.get("expires_at") if isinstance(session, dict) else None
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        return None
    return float(expires_at) - now_s


def _compare(wanted: dict[str, Any], echo: object) -> None:
    """The server's echo must agree where a difference would be heard."""
    for path in (
        ("output_modalities",),
        ("audio", "input", "format"),
        ("audio", "output", "format"),
        ("audio", "output", "voice"),
    ):
        ours, theirs = _at(wanted, path), _at(echo, path)
        if ours is not None and theirs is not None and ours != theirs:
            raise ProviderError(
                f"session {'.'.join(path)}: asked for {ours}, got {str(theirs)[:60]}",
                retryable=False,
                code="session_mismatch",
            )


def _at(node: object, path: tuple[str, ...]) -> object:
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node
