"""The functions that a model may call, and the one answer that each call gets."""

from __future__ import annotations

import json
from collections import deque

from sessions_app.core.events import AnswerTool, ToolCalled

END_CALL = "end_call"
#: So many calls are remembered; a provider that tells of one twice does so at once.
_KEPT = 256


class Tools:
    """Answers every call once: an unanswered one would stand in the way of the next response."""

    def __init__(self) -> None:
        self._answered: deque[str] = deque(maxlen=_KEPT)

    def answer(self, event: ToolCalled, *, interrupted: bool) -> AnswerTool | None:
        """The answer; None if it was given. `interrupted`: the caller has moved on, so the call
        has no effect.
        """
        if event.call_id in self._answered:
            return None
        self._answered.append(event.call_id)
        output: dict[str, object] = {"ok": True}
        if interrupted:
            output = {"error": "the caller interrupted"}
        elif event.name != END_CALL:
            output = {"error": "there is no such function"}
        return AnswerTool(event.call_id, json.dumps(output))
