"""Faults of a server's own side, struck on purpose where it serves the sandbox.

`manage.py simulate_calls --faults server` asks for them. They strike all of a server's calls. One
with real suppliers has nothing of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Self

from channels.layers import get_channel_layer
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from sessions_app.sandbox.faults import Fault

logger = logging.getLogger(__name__)

#: Longer than the second of sound that a phone has.
STALL_S: Final = 1.5
AWAY_S: Final = 5.0

_LAYER_CALLS: Final = ("send", "receive", "group_add", "group_discard", "group_send")


class Rehearsal:
    """Stands between this process and what it relies on, for the length of a `with`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: By fault: until when it lasts.
        self._until_s: dict[Fault, float] = {}
        self._layer = get_channel_layer()

    def __enter__(self) -> Self:
        connection_created.connect(self._connected, weak=False, dispatch_uid=self)
        for connection in connections.all(initialized_only=True):
            self._connected(connection)
        for name in _LAYER_CALLS:
            setattr(self._layer, name, self._guarded(getattr(self._layer, name)))
        return self

    def __exit__(self, *_: object) -> None:
        connection_created.disconnect(dispatch_uid=self)
        for name in _LAYER_CALLS:
            # Behind it is the method of its class.
            delattr(self._layer, name)
        # Wrappers of other threads' connections stay, and do nothing any more.
        self._until_s.clear()

    def strike(self, fault: Fault) -> None:
        """From any thread; gives at once."""
        logger.warning("wanted by a call: %s", fault)
        if fault is Fault.SERVER_STALLS:
            self._loop.call_soon_threadsafe(time.sleep, STALL_S)
        else:
            self._until_s[fault] = time.monotonic() + AWAY_S

    def _left_s(self, fault: Fault) -> float:
        return self._until_s.get(fault, 0.0) - time.monotonic()

    # ------------------------------------------------------------------ the database

    def _connected(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        if self._execute not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._execute)

    def _execute(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if self._left_s(Fault.SERVER_DATABASE_AWAY) > 0:
            raise OperationalError("the database is away, as a call wanted it")
        time.sleep(max(0.0, self._left_s(Fault.SERVER_DATABASE_HANGS)))
        return execute(sql, params, many, context)

    # ------------------------------------------------------------------ the channel layer

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **named: Any) -> Any:
            if self._left_s(Fault.SERVER_LAYER_AWAY) > 0:
                raise ConnectionError("the channel layer is away, as a call wanted it")
            return await call(*args, **named)

        return guarded
