"""Holds rows, live sessions and the carrier's view of them against each other, and closes ghosts.

The carrier is asked about one leg at a time, no more often than its limits let a whole fleet ask,
and less and less often while it does not answer. `core.ghosts` decides whom to ask about and what
an answer means; rows that are wrong are found by `housekeeping` in its rounds and told here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from django.db import DatabaseError

from sessions_app import lost
from sessions_app.bridge.peers import still_serves
from sessions_app.core.events import CallerGone
from sessions_app.core.ghosts import Ghost, Inquiry, LegState, SessionSeen, Verdict
from sessions_app.logcontext import call_context
from sessions_app.telephony.vonage.client import CallInfo, VonageError

if TYPE_CHECKING:
    from sessions_app.bridge.manager import SessionManager

logger = logging.getLogger(__name__)

#: Vonage takes 15 requests a second for an account, hang-ups and transfers among them; the fleet
#: together asks about legs no more often than this.
FLEET_ASKS_PER_S = 5.0
ASK_EVERY_S = 1.0
#: While the carrier does not answer, it is asked less and less often, down to this.
BACK_OFF_MOST_S = 60.0
QUERY_TIMEOUT_S = 5.0


class Reconciler:
    """One process's share of it."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._node = manager.node
        self._inquiry = Inquiry()
        self._lost: dict[str, lost.LostCall] = {}
        #: Legs that were to be hung up and could not be, with the address of their region.
        self._left_up: dict[str, str] = {}
        self._ghosts: Counter[Ghost] = Counter()
        self._asked = self._unanswered = self._in_a_row = 0
        self._looked_s: float | None = None
        #: What was wrong with the carrier's last answer; "" nothing, None: not asked yet.
        self._trouble: str | None = None
        #: How many processes share the carrier's limits.
        self.fleet_size = 1

    def figures(self) -> dict[str, object]:
        """For health."""
        looked_s = self._looked_s
        return {
            "ghosts": {ghost.value: self._ghosts[ghost] for ghost in Ghost},
            "asked": self._asked,
            "unanswered": self._unanswered,
            "last_run_age_s": None if looked_s is None else round(time.monotonic() - looked_s, 1),
            "carrier": {
                "ok": None if self._trouble is None else not self._trouble,
                **({"error": self._trouble} if self._trouble else {}),
            },
        }

    # ------------------------------------------------------------------ rows

    def found(self, ghost: Ghost, uuid: str, what: str) -> None:
        """Count one, and tell the log."""
        self._ghosts[ghost] += 1
        with call_context(uuid):
            logger.warning("a ghost (%s): %s", ghost.value, what)

    def closed_as_lost(self, call: lost.LostCall) -> None:
        """A row was closed here, since nobody's session backs it. Its caller may still be there."""
        mine = call.node == self._node
        ghost = Ghost.ROW_WITHOUT_SESSION if mine else Ghost.ROW_OF_LOST_PROCESS
        self.found(ghost, call.uuid, "the call's process was lost; its row is closed")
        self._lost[call.uuid] = call
        self._inquiry.orphaned(call.uuid, time.monotonic())

    def left_up(self, uuid: str, region_url: str) -> None:
        """A call has ended here, and the carrier could not be told. Its caller may still be there,
        should the end of the media not have ended the call.
        """
        self._left_up[uuid] = region_url
        self._inquiry.orphaned(uuid, time.monotonic())

    # ------------------------------------------------------------------ the carrier

    async def run(self) -> None:
        """Ask about one leg after the other, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s() * random.uniform(0.75, 1.25))
            try:
                await self.look()
            except Exception:
                logger.exception("a look at the carrier's side failed")

    def _pause_s(self) -> float:
        pause_s = max(ASK_EVERY_S, self.fleet_size / FLEET_ASKS_PER_S)
        return min(max(pause_s, BACK_OFF_MOST_S), pause_s * float(2 ** min(self._in_a_row, 10)))

    async def look(self) -> None:
        """Ask about the leg that is due, if there is one, and do what follows from the answer."""
        now = time.monotonic()
        self._looked_s = now
        uuid = self._inquiry.next(self._sessions(), now)
        self._lost = {each: call for each, call in self._lost.items() if self._is_orphan(each)}
        self._left_up = {each: at for each, at in self._left_up.items() if self._is_orphan(each)}
        if uuid is None:
            return
        orphan = self._lost.get(uuid) if self._manager.get(uuid) is None else None
        if orphan is not None and not await self._nobody_has(orphan):
            return
        if uuid in self._left_up and await self._led_on(uuid):
            return
        try:
            leg = await self._ask(uuid, orphan)
        except VonageError as error:
            self._unanswered += 1
            self._in_a_row += 1
            if not self._trouble:
                logger.warning("the carrier cannot be asked about legs now: %s", error)
            self._trouble = str(error)
            return
        if self._trouble:
            logger.info("the carrier answers about legs again")
        self._trouble, self._in_a_row = "", 0
        await self._act(uuid, leg)

    def _is_orphan(self, uuid: str) -> bool:
        return self._inquiry.is_orphan(uuid)

    def _sessions(self) -> list[SessionSeen]:
        manager = self._manager
        seen = map(self._seen, manager.get_all_session_uuids())
        return [each for each in seen if each is not None]

    def _seen(self, uuid: str) -> SessionSeen | None:
        session = self._manager.get(uuid)
        if session is None or session.over:
            return None
        return SessionSeen(uuid, session.age_s(), session.media_age_s())

    async def _ask(self, uuid: str, orphan: lost.LostCall | None) -> CallInfo | None:
        if orphan is not None:
            region_url = orphan.region_url
        elif self._manager.get(uuid) is not None:
            region_url = self._manager.plan_of(uuid).region_url
        else:
            region_url = self._left_up.get(uuid, "")
        self._asked += 1
        return await self._manager.suppliers.leg(uuid, region_url)

    async def _act(self, uuid: str, leg: CallInfo | None) -> None:
        state = LegState.UNKNOWN if leg is None else LegState.OVER if leg.over else LegState.UP
        verdict = self._inquiry.judge(uuid, state, self._seen(uuid))
        session = self._manager.get(uuid)
        if verdict is Verdict.END_SESSION and session is not None:
            said = leg.status if leg else "no such leg"
            self.found(
                Ghost.SESSION_WITHOUT_LEG,
                uuid,
                f"the carrier says of the caller's leg: {said}; the session is closed",
            )
            session.setup.mirror.note(Ghost.SESSION_WITHOUT_LEG, f"the carrier says: {said}")
            session.handle(CallerGone())
        elif verdict is Verdict.RESCUE_LEG:
            if uuid in self._left_up:
                await self._hang_up(uuid, self._left_up[uuid])
            else:
                await self._rescue(self._lost[uuid])

    async def _led_on(self, uuid: str) -> bool:
        """Whether the carrier has asked what to do with the leg, and was told; or nobody knows."""
        try:
            led = await self._manager.mirror.query(lambda: lost.led_to_words(uuid), QUERY_TIMEOUT_S)
        except (DatabaseError, TimeoutError):
            return True
        if led:
            self._inquiry.settled(uuid)
        return led

    async def _hang_up(self, uuid: str, region_url: str) -> None:
        try:
            await self._manager.suppliers.hang_up(uuid, region_url, "")()
        except VonageError as error:
            with call_context(uuid):
                logger.warning("the leg of a call that is over could not be hung up: %s", error)
            return
        self._inquiry.settled(uuid)
        what = "the call is over and its caller was still on the line; his leg was hung up"
        self.found(Ghost.LEG_WITHOUT_SESSION, uuid, what)

    # ------------------------------------------------------------------ callers of lost processes

    async def _nobody_has(self, call: lost.LostCall) -> bool:
        """Whether the caller of a lost call is in nobody's hands. An answer for now only."""
        manager = self._manager
        try:
            led = await manager.mirror.query(lambda: lost.led_to_words(call.uuid), QUERY_TIMEOUT_S)
        except (DatabaseError, TimeoutError):
            return False
        elsewhere = call.node != self._node and await still_serves(
            manager.suppliers.http,
            call.media_url,
            call.node,
            call.uuid,
            manager.conf.health_token,
        )
        if led or elsewhere:
            self._inquiry.settled(call.uuid)
            if elsewhere:
                logger.info("[%s] its process %s has it after all", call.uuid, call.node)
        return not led and not elsewhere

    async def _rescue(self, call: lost.LostCall) -> None:
        """Lead a caller whom nobody serves to an apology, and to the agent's person."""
        suppliers, did = self._manager.suppliers, "led to an apology"
        try:
            try:
                flow = partial(self._manager.reception.lead_away, call.agent, call.called)
                await suppliers.transfer(call.uuid, call.region_url, "", flow)()
            except VonageError as refused:
                if refused.retryable:
                    raise
                # Nobody is left on a line on which nothing will ever be said.
                did = "hung up"
                await suppliers.hang_up(call.uuid, call.region_url, "")()
        except VonageError as error:
            # Asked about again soon, as long as that makes sense.
            with call_context(call.uuid):
                logger.warning("the leg of a lost call could not be %s: %s", did, error)
            return
        self._inquiry.settled(call.uuid)
        what = f"the caller of a lost call was still on the line; his leg was {did}"
        self.found(Ghost.LEG_WITHOUT_SESSION, call.uuid, what)
        try:
            note = partial(lost.note, call.uuid, "leg_without_session", f"{did} by {self._node}")
            await self._manager.mirror.query(note, QUERY_TIMEOUT_S)
        except (DatabaseError, TimeoutError):
            logger.debug("not noted on the row")
