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
from sessions_app.core.events import CallerGone, EndReason, EndRequested, Whispered
from sessions_app.core.ghosts import Ghost
from sessions_app.logcontext import call_context
from sessions_app.models import CallCommand, CommandKind, CommandState, Node
from sessions_app.process import give_back_memory

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

OBEY_EVERY_S = 0.5
#: A call's row goes on for a moment after its session, and so does asking something of it.
ASKED_LATE_S = 5.0
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
    in_hand: set[int] = set()
    #: What was done, and is still to be told: doing it again would be wrong.
    answers: dict[int, tuple[CommandState, str]] = {}
    loop = asyncio.get_running_loop()
    had_calls_s = -math.inf

    async def carry_out(command: CallCommand) -> None:
        try:
            with call_context(command.call.uuid):
                if command.pk not in answers:
                    answer = await _carry_out(manager, command)
                    if answer is None:
                        return
                    answers[command.pk] = answer
                state, words = answers[command.pk]
                # Behind what it has changed: whoever reads the answer finds the rows to be so.
                await manager.mirror.flush()
                await manager.mirror.write(lambda: rows.answer_command(command, state, words))
                del answers[command.pk]
        except (DatabaseError, TimeoutError) as away:
            logger.debug("a command was not answered, and is looked at again: %s", away)
        except Exception:
            logger.exception("a command failed")
        finally:
            in_hand.discard(command.pk)

    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(OBEY_EVERY_S)
            if manager.get_active_session_count():
                had_calls_s = loop.time()
            elif loop.time() - had_calls_s > ASKED_LATE_S:
                continue
            # What is answered while it is being read looks as if it were not.
            begun = set(in_hand)
            try:
                commands = await manager.mirror.query(
                    lambda: rows.asked_of(manager.node), ROUND_TIMEOUT_S
                )
            except (DatabaseError, TimeoutError) as away:
                logger.debug("no commands read: %s", away)
                continue
            except Exception:
                logger.exception("commands could not be read")
                continue
            # One that takes its time, as a hang-up does, holds up no other.
            for command in commands:
                if command.pk not in begun | in_hand:
                    in_hand.add(command.pk)
                    group.create_task(carry_out(command))


async def _carry_out(
    manager: SessionManager, command: CallCommand
) -> tuple[CommandState, str] | None:
    """Gives the answer for whoever asked; None: another session of the call is about to begin, and
    is asked in the next round.
    """
    uuid = command.call.uuid
    session = manager.get(uuid)
    if session is None:
        return None if manager.replaces(uuid) else (CommandState.DONE, rows.HAS_ENDED)
    match command.kind:
        case CommandKind.WHISPER:
            if session.over:
                return None if manager.replaces(uuid) else (CommandState.DONE, rows.HAS_ENDED)
            session.handle(Whispered(command.text))
            return CommandState.DONE, rows.TOLD
        case CommandKind.HANG_UP:
            session.handle(EndRequested(EndReason.OPERATOR))
            answer = "hung up"
        case CommandKind.CARRIER_ENDED:
            session.handle(CallerGone())
            answer = "ended"
        case unknown:
            return CommandState.REFUSED, f"this process does not know what {unknown} is"
    async with asyncio.timeout(10):
        await session.wait_released()
    if manager.replaces(uuid) or manager.get(uuid) not in (None, session):
        return None
    return CommandState.DONE, answer


async def sign_off(manager: SessionManager) -> None:
    """The node leaves by itself, so nobody needs to find out that it is gone."""
    await manager.mirror.flush()
    try:
        await manager.mirror.query(
            lambda: Node.objects.filter(name=manager.node).delete(), ROUND_TIMEOUT_S
        )
    except (DatabaseError, TimeoutError):
        logger.debug("the node's row stays until it is found out of date")
