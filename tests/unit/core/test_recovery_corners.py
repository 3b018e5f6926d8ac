"""Awkward moments of a recovery, and healthy calls that must not be taken for broken ones."""

from __future__ import annotations

import pytest

from sessions_app.core import events as ev
from sessions_app.core.limits import Limits
from tests.unit.core.line import CLIPS, GREETING_CLIP, Line, agent, of, pcm

PERSON = "442079460111"


def talk(*, person: str = "", nudge_after_s: float = 120.0, life_s: float | None = None) -> Line:
    """A call whose prepared greeting has been heard, on a phone that returns its marks."""
    profile = agent(
        greeting="Hello, how can I help you?", fallback_number=person, nudge_after_s=nudge_after_s
    )
    line = Line(profile, Limits(), clips=(*CLIPS, GREETING_CLIP), ready=False)
    line.phone.mark_every_ms = 500.0
    line.do(ev.ProviderReady(life_s))
    line.wait(3)
    assert line.turn("greeting_1").final
    return line


def played(line: Line) -> list[str]:
    """The items that were given to the phone, in order, each once."""
    return list(dict.fromkeys(play.item_id for play in line.all(ev.Play)))


# ---------------------------------------------------------------------- the phone


@pytest.mark.parametrize("stalls_s", [0.9, 1.05, 1.5])
def test_a_phone_that_is_silent_for_a_moment_while_nobody_speaks_is_asked_and_believed(
    stalls_s: float,
) -> None:
    line = talk(person=PERSON)
    line.wait(10)
    line.caller_sends = False
    line.wait(stalls_s)
    line.caller_sends = True
    line.wait(5)
    assert len(line.all(ev.AskPhone)) == (stalls_s > 1.0)
    assert "media_half_dead" not in line.notes()
    assert not line.all(ev.TransferToPerson)
