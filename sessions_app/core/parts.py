"""What the rules of one call share: each part keeps one thing, and none knows the rules."""

from __future__ import annotations

from dataclasses import dataclass

from sessions_app.core.agent import AgentProfile
from sessions_app.core.ending import Goodbye
from sessions_app.core.guard import Guard
from sessions_app.core.limits import Limits
from sessions_app.core.listening import Listening
from sessions_app.core.memory import Memory
from sessions_app.core.modelsession import ModelSession
from sessions_app.core.phoneline import PhoneLine
from sessions_app.core.phrases import Clips
from sessions_app.core.playback import Playback
from sessions_app.core.responses import Responses, Wanted
from sessions_app.core.speaking import Speaking


@dataclass(slots=True)
class Parts:
    agent: AgentProfile
    limits: Limits
    clips: Clips
    playback: Playback
    phone: PhoneLine
    speaking: Speaking
    listening: Listening
    responses: Responses
    model: ModelSession
    memory: Memory
    guard: Guard
    goodbye: Goodbye
    #: The greeting has been begun, or at least asked for.
    greeted: bool = False
    #: The caller said something that no words and no answer stand for yet.
    unanswered: bool = False

    def want(self, wanted: Wanted) -> None:
        """Once the call is to end, nothing but its goodbye is wanted."""
        if self.goodbye.ending is None:
            self.responses.want(wanted)

    @property
    def caller_busy(self) -> bool:
        """The caller is saying something, by the model's word or by our own ear."""
        return self.listening.caller_speaks or self.guard.audible
