"""What a process does beside its calls, so that rows stay true: heartbeats, reaping, commands.

Each round is bounded in time and survives its own failure: a database that is away is told once and
tried again at the next round.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import DatabaseError
from django.db.models.functions import Now

from sessions_app import admission, lost, rows, tasks
from sessions_app.core.events import CallerGone, EndReason, EndRequested
from sessions_app.core.ghosts import Ghost
from sessions_app.models import CallCommand, CommandKind, CommandState, Node
from sessions_app.process import give_back_memory

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

OBEY_EVERY_S = 0.5
SWEEP_EVERY_S = 30.0
ROUND_TIMEOUT_S = 5.0


async def keep(manager: SessionManager) -> None:
    """Heartbeat, reap, tell of this node; until cancelled."""
    keeper = _Keeper(manager)
    while True:
        try:
            await manager.mirror.query(keeper.round, ROUND_TIMEOUT_S)
        except (DatabaseError, TimeoutError) as away:
            keeper.away(away)
        except Exception:
            logger.exception("a round of housekeeping failed")
        keeper.settle()
        await asyncio.sleep(manager.conf.heartbeat_s)


class _Keeper:
    """What one round has to remember for the next."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._began = manager.began
        self._first = True
        self._heard_s = 0.0
        self._swept_s = -math.inf
        self._told_away = False
        self._told_alone = False
        # Filled by a thread that may still be at it when its time is over.
        self._moved: deque[str] = deque()
        self._reopened: deque[str] = deque()
        self._lost: deque[lost.LostCall] = deque()
        self._default: rows.Route | None = None
        self._drain = False
        self._drain_s = 0.0
        self._cutting = False

    def round(self) -> None:
        """In a thread: everything that asks the database."""
        conf, now = self._manager.conf, time.monotonic()
        if self._first:
            rows.end_former_life(conf.node, self._began)
            self._first = False
        uuids = self._manager.get_all_session_uuids()
        self._reopened.extend(lost.reopen(conf.node, uuids))
        # A call that is over is not lost while its end waits to be written.
        rows.heartbeat(conf.node, [*uuids, *self._manager.mirror.unwritten()])
        self._tell_node()
        self._moved.extend(rows.moved_away(conf.node, uuids))
        # After a time without the database, the others get to say first that they live.
        if now - self._heard_s < conf.lost_s:
            self._lost.extend(lost.reap(conf.lost_s))
            for uuid in admission.close_lost_holds():
                logger.info("[%s] asked no more while on hold; its row is closed", uuid)
        self._heard_s = now
        if now - self._swept_s >= SWEEP_EVERY_S:
            self._swept_s = now
            self._default = rows.find_route("")
            give_back_memory()
            if asked := tasks.sweep():
                logger.warning("%d summaries were overdue and are asked for again", asked)
        if self._told_away:
            self._told_away = False
            logger.info("the database is back")

    def _tell_node(self) -> None:
        conf = self._manager.conf
        node, _ = Node.objects.update_or_create(
            name=conf.node,
            defaults={
                "media_url": conf.media.socket_url,
                "channel_layer": conf.channel_layer,
                "sandbox_url": self._manager.suppliers.sandbox_control_url,
                "capacity": conf.max_calls,
                "version": conf.version,
                "started_at": self._began,
                "heartbeat_at": Now(),
                "draining": self._manager.draining,
            },
        )
        node.refresh_from_db()
        self._drain = node.drain_requested_at is not None
        others = Node.objects.alive(conf.lost_s).exclude(name=conf.node).count()
        self._manager.reconciler.fleet_size = 1 + others
        if conf.channel_layer == "memory" and not self._told_alone and others:
            self._told_alone = True
            logger.warning(
                "another server process is alive and REDIS_URL is empty: pages will not see what "
                "happens in the other; set REDIS_URL for both"
            )
        Node.objects.filter(heartbeat_at__lt=Now() - timedelta(days=1)).delete()

    def settle(self) -> None:
        """On the loop: what the round found out about our sessions."""
        if self._default is not None:
            self._manager.reception.remember_default(self._default)
            self._default = None
        self._settle_ghosts()
        manager = self._manager
        if self._drain != manager.drain_asked:
            manager.drain_asked = self._drain
            self._drain_s = time.monotonic()
            logger.info("draining, as asked" if self._drain else "taking calls again")
        over = self._drain and time.monotonic() - self._drain_s >= manager.conf.drain_s
        if over and not self._cutting and manager.get_active_session_count():
            self._cutting = True
            manager.spawn(self._cut_off(), "cut off")

    def _settle_ghosts(self) -> None:
        manager, reconciler = self._manager, self._manager.reconciler
        while self._lost:
            reconciler.closed_as_lost(self._lost.popleft())
        while self._reopened:
            what = "the row was closed as lost while the call goes on here; it is open again"
            reconciler.found(Ghost.ROW_CLOSED_TOO_EARLY, self._reopened.popleft(), what)
        while self._moved:
            session = manager.get(self._moved.popleft())
            if session is not None and not session.over:
                what = "another process serves the call now; the session here is closed"
                reconciler.found(Ghost.TWO_OWNERS, session.call_uuid, what)
                session.handle(EndRequested(EndReason.REPLACED, hang_up=False))

    async def _cut_off(self) -> None:
        try:
            cut = await self._manager.cut_off()
        finally:
            self._cutting = False
        if cut:
            logger.warning("%d calls were cut off by the drain", cut)

    def away(self, error: BaseException) -> None:
        if not self._told_away:
            self._told_away = True
            logger.warning("the database is away: %s", str(error).strip() or "no answer in time")


async def obey(manager: SessionManager) -> None:
    """Carry out what is asked of our calls from elsewhere; until cancelled."""
    while True:
        await asyncio.sleep(OBEY_EVERY_S)
        if not manager.get_active_session_count():
            continue
        try:
            commands = await manager.mirror.query(
                lambda: rows.asked_of(manager.node), ROUND_TIMEOUT_S
            )
            for command in commands:
                await _carry_out(manager, command)
        except (DatabaseError, TimeoutError) as away:
            logger.debug("no commands read: %s", away)
        except Exception:
            logger.exception("a command failed")


async def _carry_out(manager: SessionManager, command: CallCommand) -> None:
    session = manager.get(command.call.uuid)
    if session is None:
        answer = "the call has ended"
    else:
        hangs_up = command.kind == CommandKind.HANG_UP
        session.handle(EndRequested(EndReason.OPERATOR) if hangs_up else CallerGone())
        async with asyncio.timeout(10):
            await session.wait_released()
        answer = "hung up" if hangs_up else "ended"
    # In the writer's thread, so that whoever reads the answer finds the row ended.
    await manager.mirror.flush()
    await manager.mirror.write(lambda: rows.answer_command(command, CommandState.DONE, answer))


async def sign_off(manager: SessionManager) -> None:
    """The node leaves by itself, so nobody needs to find out that it is gone."""
    await manager.mirror.flush()
    try:
        await manager.mirror.query(
            lambda: Node.objects.filter(name=manager.node).delete(), ROUND_TIMEOUT_S
        )
    except (DatabaseError, TimeoutError):
        logger.debug("the node's row stays until it is found out of date")
