"""Results of calls that nobody made."""

from __future__ import annotations

from typing import Any

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.conversation import Ending
from sessions_app.sandbox.faults import Wish
from sessions_app.sandbox.tally import CallResult


def a_result(index: int = 0, fault: str = "", **fields: Any) -> CallResult:
    values: dict[str, Any] = {
        "index": index,
        "uuid": f"uuid-{index}",
        "wish": Wish.parse(fault) if fault else None,
        "struck": bool(fault),
        "outcome": Outcome.CALLER_HUNG_UP,
        "ending": Ending.WENT_ON,
        "greeted": True,
        "replies_s": (0.8,),
        "unanswered": 0,
        "first_sound_s": 0.3,
        "longest_silence_s": 1.0,
        "met_silence": False,
        "released_s": None,
        "clears": 0,
        "frames_received": 500,
        "talked": (),
        "duration_s": 10.0,
        "errors": (),
    }
    return CallResult(**values | fields)
