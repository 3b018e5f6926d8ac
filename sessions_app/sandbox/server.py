"""Runs the sandbox beside whatever else the process does: uvicorn in a daemon thread with a loop of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import uvicorn

from sessions_app.sandbox.app import App
from sessions_app.sandbox.conf import ClientEventHook, Context, Keys, OwnSide, Recorded, Tempo

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
_GRACE_S: Final = 1
_STOP_S: Final = 3.0


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class Sandbox:
    """A running sandbox on 127.0.0.1. ``port=0`` takes a free one; ``OSError`` when the port is
    taken.

    ``requests`` holds the last requests and handshakes as they came in. ``on_client_event`` is
    called, in the sandbox's thread, for every event of a realtime client, ``own_side`` for a fault
    of the server's own side; without it those never strike.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        tempo: Tempo | None = None,
        keys: Keys | None = None,
        on_client_event: ClientEventHook | None = None,
        own_side: OwnSide | None = None,
    ) -> None:
        self._context = Context(tempo or Tempo(), keys or Keys(), on_client_event, own_side)
        self._socket = socket.create_server((_HOST, port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            App(self._context),
            lifespan="off",
            access_log=False,
            log_config=None,
            # Faults are raised through uvicorn on purpose: its tracebacks would be noise.
            log_level=logging.CRITICAL,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        if not self._server.listening.wait(_START_S):
            self.close()
            raise RuntimeError(f"the sandbox did not listen within {_START_S:.0f} s")

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    @property
    def url(self) -> str:
        """The base of everything: ``http://127.0.0.1:PORT``."""
        return f"http://{_HOST}:{self.port}"

    @property
    def openai_base_url(self) -> str:
        """What ``OPENAI_BASE_URL`` should be."""
        return f"{self.url}/v1"

    @property
    def speechmatics_tts_url(self) -> str:
        """What ``SPEECHMATICS_TTS_URL`` should be."""
        return f"{self.url}/generate"

    @property
    def vonage_api_url(self) -> str:
        """What ``VONAGE_API_URL`` should be."""
        return self.url

    @property
    def control_url(self) -> str:
        """Where callers keep their legs (``Caller(control_url=…)``)."""
        return f"ws://{_HOST}:{self.port}/sandbox/legs"

    @property
    def requests(self) -> deque[Recorded]:
        """The last requests and handshakes, oldest first."""
        return self._context.requests

    def close(self) -> None:
        """Stops it, open connections included, within about two seconds. May be called more than
        once.
        """
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            logger.warning("the sandbox did not stop within %.0f s", _STOP_S)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def serve(
    port: int = 0,
    *,
    tempo: Tempo | None = None,
    keys: Keys | None = None,
    on_client_event: ClientEventHook | None = None,
) -> Iterator[Sandbox]:
    """Runs a sandbox for the length of a ``with``; it listens when the block begins."""
    with Sandbox(port, tempo=tempo, keys=keys, on_client_event=on_client_event) as sandbox:
        yield sandbox
