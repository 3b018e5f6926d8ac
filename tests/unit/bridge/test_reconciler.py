"""The carrier is asked gently, believed carefully, and what it says has its consequence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from sessions_app import lost
from sessions_app.bridge import housekeeping, reconciler, words
from sessions_app.bridge.reconciler import Reconciler
from sessions_app.core import events as ev
from sessions_app.core.agent import AgentProfile
from sessions_app.core.ghosts import Ghost
from sessions_app.telephony.vonage.client import CallInfo, VonageError
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import log_lines

AGENT = AgentProfile(apology="We are sorry.", fallback_number="442079460111")

EVENT_URL = "https://calls.example/webhooks/vonage/event"


def leg(status: str) -> CallInfo:
    return CallInfo("u-1", "CON-1", status, "inbound", "", "", None, "", "")


@dataclass
class StubSession:
    call_uuid: str
    age: float = 600.0
    media_age: float = 0.02
    over: bool = False
    events: list[ev.Event] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def setup(self) -> Any:
        return SimpleNamespace(
            mirror=SimpleNamespace(note=lambda kind, detail: self.notes.append((kind, detail)))
        )

    def age_s(self) -> float:
        return self.age

    def media_age_s(self) -> float:
        return self.media_age

    def handle(self, event: ev.Event) -> None:
        self.events.append(event)
        self.over = True


async def lead_away(agent: AgentProfile | None, called: str) -> Any:
    return words.apology(agent, called, EVENT_URL)


@dataclass
class StubSuppliers:
    """A carrier whose answers a test chooses, and what was asked of it."""

    answers: Callable[[str], CallInfo | None]
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    led: list[tuple[str, Any, str]] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)
    refuses: list[VonageError] = field(default_factory=list)
    http: Any = None
    refuse_hang_ups: int = 0
    at_once: int = 0
    at_once_most: int = 0

    async def leg(self, uuid: str, region_url: str) -> CallInfo | None:
        self.asked.append((clockwork.now(), uuid, region_url))
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            await asyncio.sleep(0.3)
            return self.answers(uuid)
        finally:
            self.at_once -= 1

    def transfer(
        self, uuid: str, region_url: str, fault: str, make_flow: Callable[[], Awaitable[Any]]
    ) -> Callable[[], Awaitable[None]]:
        async def transfer() -> None:
            if self.refuses:
                raise self.refuses.pop(0)
            self.led.append((uuid, await make_flow(), region_url))

        return transfer

    def hang_up(self, uuid: str, region_url: str, fault: str) -> Callable[[], Any]:
        async def hang_up() -> None:
            if self.refuse_hang_ups:
                self.refuse_hang_ups -= 1
                raise VonageError("HTTP 503", retryable=True)
            self.hung_up.append(uuid)

        return hang_up


class StubMirror:
    def __init__(self) -> None:
        self.away = False

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        if self.away:
            raise OperationalError("away")
        return ask()


class House:
    """A reconciler among stubs; its clock is the test loop's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: Callable[[str], Any]) -> None:
        self.suppliers = StubSuppliers(answers)
        self.sessions: dict[str, StubSession] = {}
        self.mirror = StubMirror()
        self.led_to_words = self.serves = False
        self.notes: list[tuple[str, str, str]] = []
        self.peers: list[tuple[str, str]] = []
        manager: Any = SimpleNamespace(
            node="here",
            mirror=self.mirror,
            suppliers=self.suppliers,
            conf=SimpleNamespace(health_token=""),
            reception=SimpleNamespace(lead_away=lead_away),
            get=self.sessions.get,
            get_all_session_uuids=lambda: list(self.sessions),
            plan_of=lambda uuid: SimpleNamespace(region_url="https://api-eu.vonage.com"),
        )

        async def serves(http: Any, media_url: str, node: str, uuid: str, token: str) -> bool:
            self.peers.append((media_url, node))
            return self.serves

        monkeypatch.setattr(reconciler, "still_serves", serves)
        monkeypatch.setattr(lost, "led_to_words", lambda uuid: self.led_to_words)
        monkeypatch.setattr(lost, "note", lambda *told: self.notes.append(told))
        monkeypatch.setattr(reconciler.time, "monotonic", clockwork.now)
        self.it = Reconciler(manager)

    def add(self, *sessions: StubSession) -> None:
        self.sessions |= {session.call_uuid: session for session in sessions}

    def lose(self, node: str = "dead") -> None:
        call = lost.LostCall("u-1", node, "ws://10.0.0.7:5004", "", "442079460000", AGENT)
        self.it.closed_as_lost(call)

    async def works(self, seconds: float) -> None:
        """The reconciler at work for so long of the loop's own time."""
        running = asyncio.create_task(self.it.run())
        await asyncio.sleep(seconds)
        running.cancel()

    @property
    def ghosts(self) -> dict[str, int]:
        told = self.it.figures()["ghosts"]
        assert isinstance(told, dict)
        return {name: count for name, count in told.items() if count}


Build = Callable[[Callable[[str], Any]], House]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Build:
    return lambda answers: House(monkeypatch, answers)


def fails(error: VonageError) -> Callable[[str], Any]:
    def answers(uuid: str) -> Any:
        raise error

    return answers


# ---------------------------------------------------------------------- sessions


@pytest.mark.parametrize("media_age", [0.02, 9.0, float("inf")])
def test_a_session_whose_caller_has_gone_is_closed_counted_and_told(
    house: Build, media_age: float
) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("completed"))
        session = StubSession("u-1", media_age=media_age)
        it.add(session)
        with log_lines() as lines:
            await it.works(3)
        assert session.events == [ev.CallerGone()]
        assert session.notes == [("session_without_leg", "the carrier says: completed")]
        assert it.ghosts == {"session_without_leg": 1}
        assert len(it.suppliers.asked) == 1
        assert it.suppliers.asked[0][1:] == ("u-1", "https://api-eu.vonage.com")
        assert any(line.startswith("[u-1] a ghost (session_without_leg)") for line in lines.lines)

    clockwork.run(story())


def test_calls_that_are_well_are_asked_about_slowly_one_at_a_time(house: Build) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("answered"))
        it.add(*(StubSession(f"u-{n}") for n in range(20)))
        await it.works(120)
        assert it.suppliers.at_once_most == 1
        times = [at_s for at_s, *_ in it.suppliers.asked]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert min(gaps) >= 0.75
        assert 20 <= len(times) <= 60, "each once a minute or so"
        assert it.ghosts == {}
        assert not any(session.events for session in it.sessions.values())
        assert it.it.figures()["carrier"] == {"ok": True}

    clockwork.run(story())


def test_a_large_fleet_asks_no_more_often_than_a_small_one(house: Build) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("answered"))
        it.add(*(StubSession(f"u-{n}", media_age=9) for n in range(200)))
        it.it.fleet_size = 30
        await it.works(100)
        # 30 processes at 5 a second together: one in six seconds each.
        assert 12 <= len(it.suppliers.asked) <= 24

    clockwork.run(story())


def test_a_carrier_that_does_not_answer_is_asked_less_and_less_and_ends_nobody(
    house: Build,
) -> None:
    async def story() -> None:
        error = VonageError("Vonage GET call: HTTP 429", retryable=True, status=429)
        it = house(fails(error))
        it.add(*(StubSession(f"u-{n}", media_age=9) for n in range(20)))
        with log_lines() as lines:
            await it.works(300)
        assert 6 <= len(it.suppliers.asked) <= 14
        assert not any(session.events for session in it.sessions.values())
        figures = it.it.figures()
        assert figures["carrier"] == {"ok": False, "error": "Vonage GET call: HTTP 429"}
        assert figures["unanswered"] == figures["asked"]
        assert sum("cannot be asked" in line for line in lines.lines) == 1
        it.suppliers.answers = lambda uuid: leg("answered")
        before = len(it.suppliers.asked)
        await it.works(90)
        assert it.it.figures()["carrier"] == {"ok": True}
        assert len(it.suppliers.asked) - before > 10, "back to its pace"

    clockwork.run(story())


def test_a_fault_of_ours_does_not_end_the_looking(house: Build) -> None:
    async def story() -> None:
        def broken(uuid: str) -> Any:
            raise ValueError("a fault of ours")

        it = house(broken)
        it.add(StubSession("u-1", media_age=9))
        await it.works(30)
        assert len(it.suppliers.asked) > 1

    clockwork.run(story())


# ---------------------------------------------------------------------- lost calls


def test_the_caller_of_a_lost_call_who_is_still_there_is_led_to_words(house: Build) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("answered"))
        it.lose()
        await it.works(4)
        assert it.suppliers.asked == [], "Vonage's own webhook has its time first"
        await it.works(20)
        ((uuid, flow, _),) = it.suppliers.led
        assert uuid == "u-1"
        assert [action["action"] for action in flow] == ["talk", "connect"]
        assert it.peers == [("ws://10.0.0.7:5004", "dead")]
        assert it.ghosts == {"row_of_lost_process": 1, "leg_without_session": 1}
        assert it.notes == [("u-1", "leg_without_session", "led to an apology by here")]
        assert len(it.suppliers.asked) == 1

    clockwork.run(story())


@pytest.mark.parametrize("then", ["up", "up, and refuses once", "over", "led on"])
def test_a_leg_that_could_not_be_hung_up_is_hung_up_when_the_carrier_is_back(
    house: Build, then: str
) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("completed" if then == "over" else "answered"))
        it.suppliers.refuse_hang_ups = int(then == "up, and refuses once")
        it.it.left_up("u-1", "https://api-eu.vonage.com")
        await it.works(4)
        if then == "led on":
            it.led_to_words = True
        await it.works(30)
        hung_up = then.startswith("up")
        assert it.suppliers.hung_up == ["u-1"] * hung_up
        assert it.ghosts == ({"leg_without_session": 1} if hung_up else {})
        assert {region for _, _, region in it.suppliers.asked} <= {"https://api-eu.vonage.com"}
        assert it.it._left_up == {} and it.suppliers.led == []

    clockwork.run(story())


@pytest.mark.parametrize("why", ["led", "served", "over", "unknown"])
def test_a_caller_in_good_hands_or_gone_is_left_alone(house: Build, why: str) -> None:
    async def story() -> None:
        answer = {"over": leg("completed"), "unknown": None}.get(why, leg("answered"))
        it = house(lambda uuid: answer)
        it.led_to_words, it.serves = why == "led", why == "served"
        it.lose()
        await it.works(60)
        assert it.suppliers.led == [] and it.suppliers.hung_up == []
        assert len(it.suppliers.asked) == (why in ("over", "unknown"))
        assert it.it._lost == {}

    clockwork.run(story())


def test_a_leg_that_cannot_be_led_anywhere_is_hung_up(house: Build) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("answered"))
        it.suppliers.refuses = [
            VonageError("Vonage PUT call: HTTP 500", retryable=True),
            VonageError("Vonage PUT call: HTTP 400", retryable=False),
        ]
        it.lose()
        await it.works(30)
        assert it.suppliers.led == [] and it.suppliers.hung_up == ["u-1"]
        assert it.ghosts["leg_without_session"] == 1

    clockwork.run(story())


def test_while_the_database_is_away_no_leg_of_a_lost_call_is_touched(house: Build) -> None:
    async def story() -> None:
        it = house(lambda uuid: leg("answered"))
        it.lose(node="here")
        it.mirror.away = True
        await it.works(30)
        assert it.suppliers.led == []
        it.mirror.away = False
        await it.works(30)
        assert len(it.suppliers.led) == 1
        assert it.ghosts == {"row_without_session": 1, "leg_without_session": 1}
        # It was this process's own row: nobody else is asked.
        assert it.peers == []

    clockwork.run(story())


# ---------------------------------------------------------------------- what rounds found


def test_what_a_round_found_wrong_is_counted_and_a_call_that_moved_is_let_go(
    house: Build,
) -> None:
    async def story() -> None:
        it = house(lambda uuid: None)
        moved, stays = StubSession("moved"), StubSession("stays")
        it.add(moved, stays)
        manager: Any = SimpleNamespace(
            began=None, reconciler=it.it, get=it.sessions.get, node="here"
        )
        keeper = housekeeping._Keeper(manager)
        keeper._moved.extend(["moved", "gone"])
        keeper._reopened.append("stays")
        with log_lines() as lines:
            keeper._settle_ghosts()
            keeper._settle_ghosts()
        assert moved.events == [ev.EndRequested(ev.EndReason.REPLACED, hang_up=False)]
        assert stays.events == []
        assert it.ghosts == {Ghost.TWO_OWNERS.value: 1, Ghost.ROW_CLOSED_TOO_EARLY.value: 1}
        assert len([line for line in lines.lines if "a ghost" in line]) == 2

    clockwork.run(story())
