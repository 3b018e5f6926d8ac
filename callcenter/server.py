"""Daphne with a drain: `python -m callcenter.server -b ADDRESS -p PORT`.

On SIGTERM (or Ctrl-C) health says draining and new calls are turned away; the live ones finish,
for at most DRAIN_SECONDS, then are ended. A second signal ends at once. Exit code 0 when nobody
was cut off, 3 otherwise.

Plain Daphne, on a signal, stops its loop and leaves consumers uncancelled where its table of
connections holds one without an application; here every call is closed by the calls' own root
before the loop stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")

from daphne.cli import CommandLineInterface
from daphne.server import Server

from sessions_app.process import raise_fd_limit

logger = logging.getLogger("callcenter.server")

EXIT_CUT_OFF = 3


def _reactor() -> Any:
    """Twisted's loop; a module that its types do not describe."""
    from twisted.internet import reactor

    return reactor


class DrainingServer(Server):
    """Drains before it stops. `exit_code` tells how it went."""

    exit_code = 0

    def run(self) -> None:
        # Twisted would stop the loop at once; we want to be asked.
        self.signal_handlers = False
        self._drains: list[asyncio.Task[None]] = []
        _reactor().callLater(0, self._begin)
        super().run()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        self._drains.append(loop.create_task(self._start_calls(), name="start"))

    async def _start_calls(self) -> None:
        from sessions_app.bridge.manager import get_manager

        try:
            await get_manager().start()
        except Exception as error:
            logger.error("calls cannot be taken: %s", error)
            self.exit_code = 1
            self._stop_loop()

    def _asked_to_stop(self) -> None:
        if len(self._drains) > 2:
            return
        at_once = len(self._drains) > 1
        loop = asyncio.get_running_loop()
        self._drains.append(loop.create_task(self._drain(at_once=at_once), name="drain"))

    async def _drain(self, *, at_once: bool) -> None:
        from django.conf import settings

        from sessions_app.bridge.manager import get_manager

        manager = get_manager()
        live = manager.get_active_session_count()
        timeout_s = 0.0 if at_once else settings.DRAIN_SECONDS
        logger.info("draining: %d live calls, at most %g s", live, timeout_s)
        cut = await manager.drain(timeout_s)
        if cut:
            logger.warning("%d calls were cut off", cut)
            self.exit_code = EXIT_CUT_OFF
        await manager.shutdown()
        logger.info("drained")
        self._stop_loop()

    def _stop_loop(self) -> None:
        reactor = _reactor()
        if reactor.running:
            reactor.stop()

    def listen_error(self, port: Any) -> None:
        self.exit_code = 1
        logger.error("cannot listen: %s", port.getErrorMessage())
        super().listen_error(port)

    def kill_all_applications(self) -> Any:
        """Cancel what still runs (pages' sockets); also where Daphne's own table has gaps."""
        from twisted.internet.defer import Deferred

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
