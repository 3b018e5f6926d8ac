"""How a simulated caller judges what he had of a call."""

from __future__ import annotations

import asyncio
import time

import pytest

from sessions_app.sandbox.conversation import Conversation, Ending, Script
from sessions_app.sandbox.faults import Fault, Wish
from sessions_app.sandbox.vonage_call import Outcome
from tests.unit.bridge.clockwork import now, run


class OnePhone:
    """An agent who greets and answers for three seconds each, and hangs up while the caller says
    his second sentence.
    """

    def __init__(self, hung_up_after_s: float) -> None:
        self.agent_s = 0.0
        self.is_over = False
        self.connected_to = self.talked = None
        self.outcome = Outcome.HUNG_UP_BY_SERVICE
        self.first_sound_s = 0.5
        self.said: list[str] = []
        self._hung_up_after_s = hung_up_after_s

    async def say(self, text: str) -> None:
        self.said.append(text)
        if len(self.said) == 2:
            await asyncio.sleep(self._hung_up_after_s)
            self.is_over = True
        else:
            await asyncio.sleep(2.0)

    async def agent_starts(self, timeout_s: float) -> bool:
        return True

    async def agent_finished(self, quiet_s: float, longest_s: float, patience_s: float) -> bool:
        self.agent_s += 3.0
        return True

    def my_turn(self) -> None:
        pass


@pytest.mark.parametrize(
    ("hung_up_after_s", "ending"), [(0.2, Ending.APOLOGY), (1.8, Ending.CUT_OFF)]
)
def test_who_begins_to_speak_as_the_agent_hangs_up_has_heard_the_last_words(
    hung_up_after_s: float, ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", now)

    async def story() -> None:
        async def is_cut() -> bool:
            return False

        phone = OnePhone(hung_up_after_s)
        script, wish = Script(is_short=True), Wish(Fault.OPENAI_FAILS)
        caller = Conversation(phone, 0, script, wish, is_cut)  # type: ignore[arg-type]
        await caller.run()
        assert len(phone.said) == 2
        assert caller.ending() is ending

    run(story())
