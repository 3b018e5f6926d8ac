"""The database backend that settings name for SQLite.

SQLite lets one connection write at a time. One that comes second sleeps and tries again, after 1,
2, 5, 10, 15, 20, 25 … 100 ms (`sqliteDefaultBusyCallback`), and finds the lock free by luck: beside
the rows of ten calls being written, one that came in was seen to sleep for 35 ms
(docs/adr/0013). So the transactions of one process wait for each other here, in order, and
each begins the moment the one before it has ended. Other processes, and statements outside a
transaction, are met as before; whoever waits for both waits for at most twice the timeout.
"""

from __future__ import annotations

from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base

from callcenter.sqlite.fairlock import FairLock

_turns: dict[str, FairLock] = {}
_SQLITES_TIMEOUT_S = 5.0


class DatabaseWrapper(base.DatabaseWrapper):
    """One thread's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn: FairLock | None = None

    def _start_transaction_under_autocommit(self) -> None:
        if self._turn is None:
            turn = _turns.setdefault(str(self.settings_dict["NAME"]), FairLock())
            timeout_s = self.settings_dict["OPTIONS"].get("timeout", _SQLITES_TIMEOUT_S)
            if not turn.acquire(timeout_s):
                # What SQLite says after as long.
                raise OperationalError("database is locked")
            self._turn = turn
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._give_turn()
            raise

    def _give_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

    def _set_autocommit(self, autocommit: bool) -> None:
        # The end of every transaction, however it ended: Django comes back to autocommit behind its
        # commit or rollback, whatever those raised.
        try:
            super()._set_autocommit(autocommit)  # type: ignore[misc]
        finally:
            if autocommit:
                self._give_turn()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._give_turn()
