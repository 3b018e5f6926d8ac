"""A lock that is had in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """Passed on to whoever has waited longest. Python's own goes to whoever is quickest, as a rule
    the one who gave it back and asks again, however long others have waited.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout_s: float) -> bool:
        """False: not in that time. Whoever has it already waits for himself."""
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            if mine.acquire(timeout=timeout_s) or not self._leave(mine):
                return True
        except BaseException:
            # A signal, say: nobody would give back what is passed on to somebody who has gone.
            if not self._leave(mine):
                self.release()
            raise
        return False

    def _leave(self, mine: threading.Lock) -> bool:
        """Wait no more; False: it was passed on in this very moment."""
        with self._mutex:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return True
        return False

    def release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
