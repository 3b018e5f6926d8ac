"""Daphne with a drain: `python -m callcenter.server -b ADDRESS -p PORT`.

Exit code 0 when nobody was cut off, 3 otherwise (see `callcenter.draining`). `callcenter.dense` is
the same on another server, for hosts with many calls.

Plain Daphne, on a signal, stops its loop and leaves consumers uncancelled where its table of
connections holds one without an application; here every call is closed by the calls' own root
before the loop stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import Any

import uvloop

# Daphne makes its loop when it is imported.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")

from daphne.cli import CommandLineInterface  # noqa: E402
from daphne.server import Server  # noqa: E402
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402

from callcenter.draining import Drain  # noqa: E402
from sessions_app.frames import AudioSink, audio_at, audio_frame  # noqa: E402
from sessions_app.process import raise_fd_limit  # noqa: E402

logger = logging.getLogger("callcenter.server")


def _reactor() -> Any:
    """Twisted's loop; a module that its types do not describe."""
    from twisted.internet import reactor

    return reactor


class MediaSocketProtocol(WebSocketProtocol):
    """Daphne's WebSocket, with a short way for a phone's audio: Autobahn's own
    is mostly for kinds of messages and of logging that do not occur.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sink = AudioSink()

    def dataReceived(self, data: bytes) -> None:
        at = 0
        while self._between_messages() and (found := audio_at(data, at)):
            payload, at = found
            # Nothing overtakes what waits for the application already.
            if self.sink.take is not None and self.application_queue.empty():
                self.last_ping = time.time()  # as Daphne notes of every message
                self.sink.take(payload)
            else:
                self.onMessage(payload, True)
        if at < len(data):
            super().dataReceived(data[at:] if at else data)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        # Its result is this very protocol: a circle, which would wait for Python's garbage
        # collector, and that one holds up audio.
        self.is_closed: Deferred[Any] = Deferred()

    def _between_messages(self) -> bool:
        open_ = self.state == self.STATE_OPEN
        return open_ and self.current_frame is None and not self.data and not self.inside_message

    def serverSend(self, content: Any, binary: bool = False) -> None:
        if binary and self.state == self.STATE_OPEN and not self.send_queue:
            frame = audio_frame(content)
            if frame is not None:
                self.transport.write(frame)
                return
        super().serverSend(content, binary)


class DrainingServer(Server):
    """Drains before it stops. `exit_code` tells how it went."""

    def run(self) -> None:
        # Twisted would stop the loop at once; we want to be asked.
        self.signal_handlers = False
        self._drain = Drain(self._stop_loop)
        WebSocketFactory.protocol = MediaSocketProtocol
        _reactor().callLater(0, self._drain.begin)
        super().run()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if isinstance(protocol, MediaSocketProtocol):
            scope["extensions"] = protocol.sink.extension()
        return super().create_application(protocol, scope)

    @property
    def exit_code(self) -> int:
        return self._drain.exit_code

    def _stop_loop(self) -> None:
        reactor = _reactor()
        if reactor.running:
            reactor.stop()

    def listen_error(self, port: Any) -> None:
        self._drain.exit_code = 1
        logger.error("cannot listen: %s", port.getErrorMessage())
        super().listen_error(port)

    def kill_all_applications(self) -> Any:
        """Cancel what still runs (pages' sockets); also where Daphne's own table has gaps."""
        tasks = [
            task
            for details in self.connections.values()
            if (task := details.get("application_instance")) is not None and not task.done()
        ]
        for task in tasks:
            task.cancel()
        if not tasks:
            return None
        return Deferred.fromFuture(asyncio.ensure_future(asyncio.wait(tasks, timeout=5)))


class DrainingCommandLine(CommandLineInterface):
    """Daphne's command line, for this project's application, without an access log."""

    description = "Serves the call centre: Daphne with a drain"
    server_class = DrainingServer

    def run(self, args: list[str]) -> None:
        # -v 0: the access log would hold numbers and tickets; our own log is on whatever -v says.
        super().run(
            [
                "--verbosity=0",
                "--no-server-name",
                "--websocket-max-message-size=65536",
                *args,
                "callcenter.asgi:application",
            ]
        )


def main() -> None:
    raise_fd_limit()
    command_line = DrainingCommandLine()
    command_line.run(sys.argv[1:])
    # Not sys.exit: that waits without end for a thread whose database does not answer.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(command_line.server.exit_code)


if __name__ == "__main__":
    main()
