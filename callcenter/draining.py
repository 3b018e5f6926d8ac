"""What a server does when it is asked to stop: calls are finished first.

On the first signal health says draining and new calls are turned away; the live ones finish, for at
most DRAIN_SECONDS, then are ended. A second signal ends them at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

logger = logging.getLogger("callcenter.server")

EXIT_CUT_OFF = 3


class Drain:
    """One server's end. `exit_code`: 0 when nobody was cut off."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` ends the server itself, once no call is left."""
        self.exit_code = 0
        self._stop = stop
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """On the server's loop: begin taking calls, and listen to signals."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        self._tasks.append(loop.create_task(self._start_calls(), name="start"))

    async def _start_calls(self) -> None:
        from sessions_app.bridge.manager import get_manager

        try:
            await get_manager().start()
        except Exception as error:
            logger.error("calls cannot be taken: %s", error)
            self.exit_code = 1
            self._stop()

    def _asked_to_stop(self) -> None:
        if len(self._tasks) > 2:
            return
        at_once = len(self._tasks) > 1
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._drain(at_once=at_once), name="drain"))

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
        self._stop()
