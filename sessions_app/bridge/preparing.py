"""Prepared audio in a serving process: which agents there are, and when it may be made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import DatabaseError
from django.db.models import Count, Max

from sessions_app.core.agent import AgentProfile
from sessions_app.models import Agent
from sessions_app.prepared.keeper import Help, Keeper

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

_QUERY_TIMEOUT_S = 5.0
#: Read anew after so long even if nothing seems to have changed: a save that took long to commit
#: may have come with an older time than one that was seen already.
_READ_EVERY_S = 60.0


async def keep(manager: SessionManager) -> None:
    """Have every agent's audio made and at hand; until cancelled."""
    roll = _Roll(manager)

    def may_make() -> bool:
        # Live calls come first: they and this share the suppliers' limits.
        return manager.conf.prepare_audio and not manager.draining and not manager.full

    help = Help(roll.changed, lambda agent: manager.suppliers.mouth(agent), may_make)
    await Keeper(manager.shelf, help).run(manager.conf.heartbeat_s)


class _Roll:
    """The agents, read when one was saved or deleted."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._stamp: object = None
        self._read_s = 0.0

    async def changed(self) -> list[AgentProfile] | None:
        """All of them, the default agent first; None: nothing has changed, or nobody can say."""
        now = time.monotonic()
        seen = self._stamp if now - self._read_s < _READ_EVERY_S else None
        try:
            stamp, agents = await self._manager.mirror.query(lambda: _read(seen), _QUERY_TIMEOUT_S)
        except (DatabaseError, TimeoutError):
            # The housekeeping tells that it is away.
            return None
        if agents is not None:
            self._stamp, self._read_s = stamp, now
        return agents


def _read(seen: object) -> tuple[object, list[AgentProfile] | None]:
    stamp = Agent.objects.aggregate(Count("pk"), Max("updated_at"))
    if stamp == seen:
        return stamp, None
    return stamp, [agent.profile() for agent in Agent.objects.order_by("-is_default", "pk")]
