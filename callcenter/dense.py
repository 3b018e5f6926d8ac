"""Uvicorn with a drain, for hosts with many calls: `python -m callcenter.dense -b ADDRESS -p PORT`.

Ends as `callcenter.server` does. What it saves beside that one, and where, is told in
`docs/performance.md`; plain `uvicorn callcenter.asgi:application` works as well, without the drain
and without the short way for a phone's audio.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")

from callcenter.draining import Drain
from sessions_app.frames import AudioSink, Boundaries, audio_at, audio_frame
from sessions_app.process import raise_fd_limit

#: So much of a call's audio may wait for the application; beyond it, the socket is not read.
_WAITING_MOST = 50
#: Pages' sockets are told that the server goes; then they are cut.
_PAGES_TIMEOUT_S = 5


class _Queue:
    """As much of an `asyncio.Queue` as Uvicorn uses: no bound, and one who waits."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._messages.popleft()

    def empty(self) -> bool:
        return not self._messages

    def qsize(self) -> int:
        return len(self._messages)


class MediaSocketProtocol(WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket, with a short way for a phone's audio."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.queue = _Queue()  # type: ignore[assignment]
        self._boundaries = Boundaries()
        self._sink = AudioSink()
        #: Audio that goes out with what else this step of the loop has for the phone.
        self._going: list[bytes] = []

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:  # the handshake is one
            self.scope["extensions"] |= self._sink.extension()

    def data_received(self, data: bytes) -> None:
        at = 0
        if self.handshake_complete:
            while self._takes_audio() and (found := audio_at(data, at)):
                payload, at = found
                # Nothing overtakes what waits for the application already.
                if self._sink.take is not None and self.queue.empty():
                    self._sink.take(payload)
                else:
                    self.queue.put_nowait({"type": "websocket.receive", "bytes": payload})
            if at == len(data):
                return
            data = data[at:] if at else data
            self._boundaries.follow(data)
        super().data_received(data)

    def _takes_audio(self) -> bool:
        between_messages = self._boundaries.between_frames and not self.frames
        return between_messages and not self.close_sent and self.queue.qsize() < _WAITING_MOST

    async def send(self, message: Any) -> None:
        payload = message.get("bytes")
        if payload and self.handshake_complete and self._takes_frames():
            frame = audio_frame(payload)
            if frame is not None:
                # Each write is a call of the kernel, 5 us, and a refill is a dozen frames.
                if not self._going:
                    self.loop.call_soon(self._send_audio)
                self._going.append(frame)
                return
        self._send_audio()
        await super().send(message)

    def _send_audio(self) -> None:
        """What waits, before anything else. Nothing may follow a close (RFC 6455, 5.5.1)."""
        if self._going and self.conn.state is State.OPEN and not self.disconnected:
            self.transport.write(b"".join(self._going))
        self._going.clear()

    def _takes_frames(self) -> bool:
        """It is open, and the other side takes what was written."""
        open_ = self.conn.state is State.OPEN and not self.close_sent and not self.disconnected
        return open_ and self.writable.is_set()


class DrainingServer(uvicorn.Server):
    """Drains before it stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.drain = Drain(self._stop)

    async def startup(self, sockets: Any = None) -> None:
        self.drain.begin()
        await super().startup(sockets)
        # It would tell of each socket twice, which our own log does better.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the drain's."""
        yield

    def _stop(self) -> None:
        self.should_exit = True


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m callcenter.dense",
        description="Serves the call centre on a host with many calls: Uvicorn with a drain",
    )
    parser.add_argument("-b", "--bind", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("-p", "--port", type=int, default=8000, help="the port to listen on")
    parser.add_argument("-u", "--unix-socket", help="a UNIX socket to listen on instead")
    parser.add_argument("--fd", type=int, help="an open socket's descriptor to listen on instead")
    return parser.parse_args(given)


def main() -> None:
    asked = arguments(sys.argv[1:])
    raise_fd_limit()
    config = uvicorn.Config(
        "callcenter.asgi:application",
        host=asked.bind,
        port=asked.port,
        uds=asked.unix_socket,
        fd=asked.fd,
        loop="uvloop",
        ws=MediaSocketProtocol,
        ws_max_size=65_536,
        ws_per_message_deflate=False,
        # The calls' root is the drain's to start and to stop.
        lifespan="off",
        # Its log would hold numbers and tickets; ours is configured by Django.
        log_config=None,
        access_log=False,
        # What a proxy says is Django's to believe or not (TRUST_PROXY).
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_PAGES_TIMEOUT_S,
    )
    server = DrainingServer(config)
    server.run()
    # Not sys.exit: that waits without end for a thread whose database does not answer.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(server.drain.exit_code if server.started else 1)


if __name__ == "__main__":
    main()
