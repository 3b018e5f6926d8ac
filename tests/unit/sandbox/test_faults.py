"""How a fault is asked for, and what is remembered of it."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sessions_app.sandbox.conf import Tempo
from sessions_app.sandbox.faults import FACTS, OF_SERVER, Fault, Phase, Wish, in_every_phase
from sessions_app.sandbox.realtime_socket import EventSocket
from sessions_app.sandbox.realtime_trouble import Trouble
from sessions_app.sandbox.strikes import CallNotes, Strikes


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_explained_and_applies_somewhere(fault: Fault) -> None:
    facts = FACTS[fault]
    assert fault.help
    assert facts.phases
    assert facts.default is None or facts.default in facts.phases


@pytest.mark.parametrize("wish", in_every_phase(tuple(Fault)))
def test_a_wish_survives_its_way_through_headers(wish: Wish) -> None:
    assert Wish.read(f" {str(wish).upper()} ") == wish
    assert Wish.parse(f"{wish}!") == Wish(wish.fault, wish.at, is_forced=True)


@pytest.mark.parametrize("fault", OF_SERVER)
def test_a_fault_of_the_servers_own_side_strikes_once_where_somebody_can_strike_it(
    fault: Fault,
) -> None:
    async def scenario() -> None:
        wish, notes, socket = Wish(fault, Phase.TOOL_RUNNING), CallNotes(), cast(EventSocket, None)
        await Trouble(wish, notes, socket, Tempo()).at(Phase.TOOL_RUNNING)
        assert not notes.has_struck(wish), "there is nobody who could"
        struck: list[Fault] = []
        trouble = Trouble(wish, notes, socket, Tempo(), struck.append)
        for phase in (Phase.AGENT_SPEAKING, Phase.TOOL_RUNNING, Phase.TOOL_RUNNING):
            await trouble.at(phase)
        assert struck == [fault] and notes.has_struck(wish)

    asyncio.run(scenario())


def test_a_bare_name_strikes_when_it_always_did() -> None:
    assert Wish.parse("openai-closes").phase is Phase.AGENT_SPEAKING
    assert Wish.parse("openai-expires").phase is None
    assert Wish.parse("openai-closes@tool-running").phase is Phase.TOOL_RUNNING


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("earthquake", "read 'earthquake', wanted some of: openai-refused"),
        ("openai-mute@lunch", "read 'lunch' for openai-mute, wanted one of: agent-speaking"),
        ("rest-slow@before-greeting", "wanted one of: at-hang-up"),
        ("openai-closes@", "read '' for openai-closes"),
    ],
)
def test_what_is_no_wish_is_told_by_whom_it_concerns_and_breaks_no_wire(
    text: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Wish.parse(text)
    assert Wish.read(text) is None
    assert Wish.read("") is None


def test_what_can_be_tried_again_strikes_once_unless_forced() -> None:
    once, forced, always = map(Wish.parse, ("openai-drops", "openai-drops!", "openai-fails"))
    assert (once.strikes_once, forced.strikes_once, always.strikes_once) == (True, False, False)
    assert (once.is_recoverable, forced.is_recoverable, always.is_recoverable) == (
        True,
        False,
        False,
    )
    # The other voice is there every time.
    assert Wish.parse("tts-refused").is_recoverable


def test_a_call_is_struck_once_whichever_connection_it_comes_by() -> None:
    strikes = Strikes()
    once, forced = Wish.parse("openai-drops"), Wish.parse("openai-drops!")
    assert strikes.of("a").take(once)
    assert not strikes.of("a").take(once)
    assert strikes.of("b").take(once)
    assert [strikes.of("a").take(forced) for _ in range(2)] == [True, True]
    assert strikes.of("a").struck == {"openai-drops": 1, "openai-drops!": 2}


def test_a_call_without_a_name_is_remembered_by_nobody_else() -> None:
    strikes = Strikes()
    assert strikes.of("").take(Wish(Fault.OPENAI_DROPS))
    assert strikes.of("").take(Wish(Fault.OPENAI_DROPS))
    assert strikes.look("") is None


def test_the_oldest_calls_are_forgotten_and_looking_keeps_nothing() -> None:
    strikes = Strikes()
    for number in range(1001):
        strikes.of(str(number))
    assert strikes.look("0") is None
    assert strikes.look("1000") == CallNotes()
    assert strikes.look("another") is None
    assert strikes.look("1") is not None
