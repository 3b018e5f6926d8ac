"""The live calls of this process: their slots, their look-up, their common root.

One root task owns everything: the carrier's client, the mirror, the housekeeping and every call's
session. It is started at first use, in an empty context, so that nothing of the request that
happened to come first lives on in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, TypeVar

from django.utils import timezone

from sessions_app import conf as conf_module
from sessions_app.bridge import housekeeping, preparing
from sessions_app.bridge.keyed_locks import KeyedLocks
from sessions_app.bridge.plan import CallPlan, CapacityReached, Ended
from sessions_app.bridge.provider_watch import ProviderWatch
from sessions_app.bridge.reception import Reception
from sessions_app.bridge.reconciler import Reconciler
from sessions_app.bridge.session import CallSession, CallSetup
from sessions_app.bridge.suppliers import Suppliers, open_suppliers
from sessions_app.bridge.words import SLOWEST_VOICE
from sessions_app.conf import Conf
from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import CallerGone, EndReason, EndRequested
from sessions_app.logcontext import call_context
from sessions_app.loopwatch import LoopWatch
from sessions_app.mirror import Mirror
from sessions_app.prepared.shelf import Shelf
from sessions_app.process import Descriptors
from sessions_app.telephony.vonage.wire import frame_bytes

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Calls that ended here lately, and why: their last webhooks are still to come.
RECENT_MOST = 2000
#: Different agents of these; one that is edited is another.
AGENTS_MOST = 200


class SessionManager:
    """All of this process's live calls. Belongs to one event loop, that of its first use."""

    def __init__(self, conf: Conf) -> None:
        self.conf = conf
        self.node = conf.node
        self.began = timezone.now()
        self.capacity = conf.max_calls
        #: This process is about to stop; and an operator asked it to take no new calls.
        self.stopping = False
        self.drain_asked = False
        self.provider_watch = ProviderWatch()
        self.mirror = Mirror(conf.node)
        #: Audio that exists before a call needs it.
        self.shelf = Shelf(conf.prepared_dir)
        self.reception = Reception(self)
        self.reconciler = Reconciler(self)
        self.loop_watch = LoopWatch()
        self.descriptors = Descriptors()
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        #: The agents of those, each once: their words are most of what is kept.
        self._agents: dict[AgentProfile, AgentProfile] = {}
        self._suppliers: Suppliers | None = None
        self._sessions: dict[str, CallSession] = {}
        self._plans: dict[str, CallPlan] = {}
        self._reserved = 0
        #: Calls whose slot is held while one session takes the place of another.
        self._replacing: set[str] = set()
        locks = KeyedLocks()
        #: One at a time for each call: answers, sockets and endings of the same uuid queue up.
        self.alone = locks.hold
        self._tasks: asyncio.TaskGroup | None = None
        self._root: asyncio.Task[None] | None = None
        self._ready: asyncio.Event = asyncio.Event()
        self._stop = asyncio.Event()

    # ------------------------------------------------------------------ root

    async def start(self) -> None:
        """Begin, if that has not happened yet; returns when calls can be taken.

        Raises what keeps it from beginning, such as an unusable private key.
        """
        if self._root is None:
            self._root = asyncio.get_running_loop().create_task(
                self._run(), name="calls", context=contextvars.Context()
            )
        root = self._root
        if not self._ready.is_set():
            ready = asyncio.ensure_future(self._ready.wait())
            try:
                await asyncio.wait({ready, root}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()
        if root.done():
            if self._root is root:
                # The next use begins anew, unless this process is about to stop.
                self._root = None
                self._ready.clear()
            root.result()
            raise RuntimeError("this process has stopped taking calls")

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            self._suppliers = await stack.enter_async_context(open_suppliers(self.conf))
            stack.push_async_callback(self.mirror.aclose)
            self.mirror.open_threads()
            stack.enter_context(self.loop_watch)
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self.mirror.run(), name="mirror")
                keepers = [
                    self._tasks.create_task(housekeeping.keep(self), name="housekeeping"),
                    self._tasks.create_task(housekeeping.obey(self), name="commands"),
                    self._tasks.create_task(preparing.keep(self), name="prepared audio"),
                    self._tasks.create_task(self.reconciler.run(), name="reconciliation"),
                ]
                looking = self.provider_watch.run(self._suppliers.look)
                keepers.append(self._tasks.create_task(looking, name="provider watch"))
                self._ready.set()
                await self._stop.wait()
                await self._close_all(EndReason.SHUTDOWN)
                for keeper in keepers:
                    keeper.cancel()
                self.mirror.stop()
            await housekeeping.sign_off(self)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Something short that nobody waits for; it must not raise. Owned by the root."""
        assert self._tasks is not None
        self._tasks.create_task(work, name=name, context=contextvars.Context())

    async def shutdown(self) -> None:
        """Close every call, write what is left, release everything."""
        self.stopping = True
        if self._root is not None:
            self._stop.set()
            await asyncio.wait({self._root})

    async def drain(self, timeout_s: float) -> int:
        """Take no new calls, wait for the live ones; gives how many had to be cut off."""
        self.stopping = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._sessions:
                    await asyncio.gather(*(s.wait_released() for s in self._sessions.values()))
        except TimeoutError:
            pass
        return await self.cut_off()

    async def cut_off(self) -> int:
        """End every live call, its caller's leg too; gives how many that were not ending anyway."""
        live = list(self._sessions.values())
        for session in live:
            session.handle(EndRequested(EndReason.DRAINED, politely=True))
        await asyncio.gather(*(session.wait_released() for session in live))
        return sum(session.end_reason is EndReason.DRAINED for session in live)

    async def _close_all(self, reason: EndReason) -> None:
        await asyncio.gather(*(s.close(reason) for s in list(self._sessions.values())))

    # ------------------------------------------------------------------ slots

    @property
    def draining(self) -> bool:
        return self.stopping or self.drain_asked

    @property
    def suppliers(self) -> Suppliers:
        assert self._suppliers is not None
        return self._suppliers

    @property
    def full(self) -> bool:
        taken = self._sessions.keys() | self._replacing
        return len(taken) + self._reserved >= self.capacity

    def _closed(self) -> str:
        """Why no call can be taken in now; empty: one can."""
        if self.draining:
            return "draining"
        if self.provider_watch.down:
            return "the model's service is down"
        if self.full:
            return "every slot is taken"
        return "few descriptors are left" if self.short_of_descriptors else ""

    @property
    def short_of_descriptors(self) -> bool:
        """One more call would take what webhooks and the database need."""
        beginning = sum(not session.media_opened for session in self._sessions.values())
        return not self.descriptors.enough(beginning + self._reserved)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot while a call is being prepared; its session takes it over. Raises if none is
        free, so that a burst of answers in one instant cannot overrun the capacity.
        """
        if why := self._closed():
            raise CapacityReached(why)
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    # ------------------------------------------------------------------ sessions

    async def create_session(
        self,
        call_uuid: str,
        caller: str = "",
        called: str = "",
        user_id: int | None = None,
        *,
        plan: CallPlan | None = None,
    ) -> CallSession:
        """A session for this call, begun at once. A live one of the same uuid is closed fully
        first, and its row goes on with the newcomer.
        """
        await self.start()
        async with self.alone(call_uuid):
            return await self.begin(call_uuid, caller, called, user_id, plan)

    async def begin(
        self,
        call_uuid: str,
        caller: str,
        called: str,
        user_id: int | None,
        plan: CallPlan | None,
    ) -> CallSession:
        """The same, for who is `alone` with the call already. Raises CapacityReached if this
        process has begun to close its calls, for nobody would close this one.
        """
        if self._stop.is_set():
            raise CapacityReached("shutting down")
        former = self._sessions.get(call_uuid)
        if former is not None:
            with call_context(call_uuid):
                logger.info("Cleaning up existing session before creating new one")
            plan = plan or self._plans[call_uuid]
        plan = plan or CallPlan(clips=self.shelf.find(AgentProfile()))
        self._replacing.add(call_uuid)
        try:
            if former is not None:
                await former.close(EndReason.REPLACED)
                plan = replace(plan, past=former.past)
                if self._stop.is_set():
                    self._ends_without_session(call_uuid, called, plan)
            session = self._make(call_uuid, caller, called, user_id, plan)
            self._sessions[call_uuid] = session
            self._plans[call_uuid] = plan
        finally:
            self._replacing.discard(call_uuid)
        if former is not None and former.caller_gone:
            # It was told while the former was being released, and could not hear it any more.
            session.handle(CallerGone())
        assert self._tasks is not None
        self._tasks.create_task(
            session.run(), name=f"call {call_uuid}", context=contextvars.Context()
        )
        return session

    def _ends_without_session(self, call_uuid: str, called: str, plan: CallPlan) -> NoReturn:
        """This process has begun to close its calls, and nobody would close one more."""
        self.mirror.open(call_uuid, plan.base).ended(EndReason.SHUTDOWN)
        self.remember(call_uuid, Ended(EndReason.SHUTDOWN, plan.agent, called))
        raise CapacityReached("shutting down")

    async def undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        """Done to its end, even if who asked for it goes away meanwhile."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def do() -> None:
            try:
                result = await work
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)
            finally:
                done.cancel()

        self.spawn(do(), "undisturbed")
        return await done

    def _make(
        self, call_uuid: str, caller: str, called: str, user_id: int | None, plan: CallPlan
    ) -> CallSession:
        rate_hz = self.conf.media.rate_hz
        # The phone's socket comes when the words before it have been spoken.
        spoken_s = plan.connect_delay_ms / 1000 * SLOWEST_VOICE
        limits = self.conf.limits
        setup = CallSetup(
            agent=plan.agent,
            limits=replace(
                limits,
                unclaimed_s=limits.unclaimed_s + spoken_s,
                connect_s=limits.connect_s + spoken_s,
            ),
            phone_rate_hz=rate_hz,
            frame_bytes=frame_bytes(rate_hz),
            provider=self.suppliers.provider(call_uuid, caller, plan.agent, plan.fault),
            voice=self.suppliers.voice(call_uuid, plan.agent, plan.fault),
            spare_voice=self.suppliers.spare_voice(call_uuid, plan.agent, plan.fault),
            hang_up=self.suppliers.hang_up(call_uuid, plan.region_url, plan.fault),
            transfer=self.suppliers.transfer(
                call_uuid,
                plan.region_url,
                plan.fault,
                partial(self.reception.lead_away, plan.agent, called),
            ),
            connect_again=self._connect_again,
            mirror=self.mirror.open(call_uuid, plan.base),
            provider_fares=partial(self._provider_fares, call_uuid, plan.fault),
            removed=self._removed,
            clips=plan.clips,
            past=plan.past,
        )
        return CallSession(call_uuid, caller, called, user_id, setup=setup)

    def _connect_again(self, session: CallSession) -> None:
        # Not in a task of the session's own, which ends with it.
        work = self.reception.connect_again(session)
        self.spawn(work, f"connect again {session.call_uuid}")

    @property
    def provider_trouble(self) -> str:
        """What was wrong with the model's service the last time; empty: nothing."""
        return self.provider_watch.trouble

    def _provider_fares(
        self, call_uuid: str, fault: str, trouble: str, *, answered: bool = True
    ) -> None:
        # A fault that somebody wished for of the sandbox says nothing about the service.
        if not (trouble and fault and self.conf.provider.sandbox):
            self.provider_watch.fares(call_uuid, trouble, answered=answered)

    def _removed(self, session: CallSession) -> None:
        logger.info("Closing and removing session from SessionManager")
        plan = self._plans.get(session.call_uuid)
        if self._sessions.get(session.call_uuid) is session:
            del self._sessions[session.call_uuid]
            del self._plans[session.call_uuid]
        if session.end_reason is not None and session.end_reason is not EndReason.REPLACED:
            ended = Ended(session.end_reason, session.setup.agent, session.called)
            self.remember(session.call_uuid, ended)
        logger.info("Session removed. Active sessions: %d", len(self._sessions))
        if session.hang_up_failed and plan is not None:
            self.reconciler.left_up(session.call_uuid, plan.region_url)

    def remember(self, call_uuid: str, ended: Ended) -> None:
        """Keep how a call ended, or was refused: the same webhook again gets the same words."""
        if ended.agent is not None:
            if len(self._agents) >= AGENTS_MOST and ended.agent not in self._agents:
                self._agents.clear()
            ended = replace(ended, agent=self._agents.setdefault(ended.agent, ended.agent))
        self._ended[call_uuid] = ended
        while len(self._ended) > RECENT_MOST:
            self._ended.popitem(last=False)

    def ended(self, call_uuid: str) -> Ended | None:
        """How a call ended here lately."""
        return self._ended.get(call_uuid)

    async def close_session(self, call_uuid: str, reason: EndReason = EndReason.SHUTDOWN) -> None:
        """Close the call's session and wait until it is gone."""
        session = self._sessions.get(call_uuid)
        if session is None:
            with call_context(call_uuid):
                logger.warning("Attempted to close non-existent session")
            return
        await session.close(reason)

    def get(self, call_uuid: str) -> CallSession | None:
        return self._sessions.get(call_uuid)

    def replaces(self, call_uuid: str) -> bool:
        """Another session of the call is about to begin."""
        return call_uuid in self._replacing

    def plan_of(self, call_uuid: str) -> CallPlan:
        return self._plans[call_uuid]

    def amend(self, call_uuid: str, plan: CallPlan) -> None:
        """A live call goes on by this plan, should another session take its session's place."""
        if call_uuid in self._plans:
            self._plans[call_uuid] = plan

    def get_active_session_count(self) -> int:
        return len(self._sessions)

    def get_all_session_uuids(self) -> list[str]:
        return list(self._sessions)


_manager: SessionManager | None = None


def get_manager() -> SessionManager:
    """This process's manager: the one piece of state that belongs to no call."""
    global _manager
    if _manager is None:
        _manager = SessionManager(conf_module.load())
    return _manager
