"""How a call begins: the greeting, from wherever it can be had soonest, and said once."""

from __future__ import annotations

from sessions_app.core import prompts
from sessions_app.core.events import Command, Purpose
from sessions_app.core.parts import Parts
from sessions_app.core.phrases import Phrase
from sessions_app.core.responses import Wanted

ITEM = "greeting_1"


class Greeting:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        #: Another session of the call has greeted the caller already, and led a conversation.
        self._resumes = parts.memory.last_speaker is not None
        parts.greeted = self._resumes

    def begin(self, out: list[Command]) -> None:
        """A greeting that is prepared begins when the phone's socket opens, model or not; else it
        is made as soon as the model is ready, maybe while the phone still rings. A fixed greeting
        in another service's voice needs no model; the model is told of it.
        """
        parts, text = self._parts, self._parts.agent.greeting.strip()
        if parts.greeted:
            self._resume()
            return
        clip = parts.clips.get(Phrase.GREETING) if text else None
        if clip is not None:
            if parts.phone.opened_s is not None:
                parts.greeted = True
                out += parts.speaking.play(ITEM, clip)
        elif parts.speaking.external_voice and text:
            parts.greeted = True
            out += parts.speaking.say(ITEM, text)
        elif parts.model.ready:
            parts.greeted = True
            wanted = prompts.say_exactly(text) if text else prompts.GREET_FREELY
            parts.want(Wanted(Purpose.GREETING, wanted, tools=False))

    def _resume(self) -> None:
        if self._resumes and self._parts.model.ready:
            self._resumes = False
            self._parts.want(Wanted(Purpose.ANSWER, prompts.RESUMED))

    def in_own_voice(self, item_id: str) -> Wanted | None:
        """What to ask of the model when the other voice could not say this item: the greeting, if
        it was that and nothing of it has been heard.
        """
        if item_id != ITEM or self._parts.speaking.heard_anything:
            return None
        text = prompts.say_exactly(self._parts.agent.greeting.strip())
        return Wanted(Purpose.GREETING, text, tools=False)
