"""Turns while they happen: what the agent says, how much of it was heard, what the caller said."""

from __future__ import annotations

from dataclasses import dataclass, field

from sessions_app.core.clauses import Clauses
from sessions_app.core.events import Speaker, Turn

#: A calm voice; quicker ones say more in the same time.
MS_PER_CHARACTER = 65.0
#: Characters of one turn; nobody says more at one go.
TEXT_MOST = 20_000


def leading_words(text: str, share: float) -> str:
    """The words of a text that were spoken in the first `share` of its time, rounded down.

    A long word takes longer than a short one, so both words and letters are counted, and the fewer
    words it is.
    """
    if share >= 1.0:
        return text.strip()
    words = text.split()
    letters = len(" ".join(words)) * max(0.0, share)
    heard = 0
    for word in words[: int(len(words) * max(0.0, share))]:
        letters -= len(word) + 1
        if letters < -1:
            break
        heard += 1
    return " ".join(words[:heard])


def _heard(text: str, heard_ms: float, audio_ms: float, *, complete: bool) -> str:
    """The words of a piece that were heard, of which so much audio has come so far.

    While more is to come, the words at hand may run ahead of the sound: how long they all will
    sound can only be guessed, and too long is the safe side.
    """
    if audio_ms <= 0 or heard_ms <= 0:
        return ""
    if complete and heard_ms >= audio_ms - 1:
        return text.strip()
    whole_ms = audio_ms if complete else max(audio_ms, len(text) * MS_PER_CHARACTER)
    return leading_words(text, min(heard_ms, audio_ms) / whole_ms * 0.999)


@dataclass(slots=True)
class Clause:
    """A piece of an item spoken by another service, and how much audio that became."""

    text: str
    audio_ms: float = 0.0
    spoken: bool = False


@dataclass(slots=True)
class AgentItem:
    """One thing the agent says, from its first word to the moment it was heard or cut."""

    item_id: str
    response_id: str
    text: str = ""
    audio_ms: float = 0.0
    from_ms: int | None = None
    #: No more audio or words will come from the model.
    done: bool = False
    #: The phone was given the end of it (`FinishItem` went out).
    finished: bool = False
    #: Its last frame has been sent.
    written: bool = False
    #: It came as audio; its text is the transcript and is not spoken by a voice.
    speaks_itself: bool = False
    #: Of what came as audio, some can be heard.
    sounds: bool = False
    #: How much of its audio there was up to its last sound, and how much silence has come since.
    sounds_ms: float = 0.0
    silent_ms: float = 0.0
    #: The rest of it will never come: its words may run ahead of its sound.
    broken: bool = False
    splitter: Clauses = field(default_factory=Clauses)
    clauses: list[Clause] = field(default_factory=list)

    def heard_text(self, heard_ms: float) -> str:
        """The words that fit into what was heard; never more than was heard."""
        if not self.clauses:
            complete = self.done and not self.broken
            return _heard(self.text, heard_ms, self.audio_ms, complete=complete)
        heard: list[str] = []
        left_ms = heard_ms
        for clause in self.clauses:
            heard.append(_heard(clause.text, left_ms, clause.audio_ms, complete=clause.spoken))
            if not clause.spoken or left_ms < clause.audio_ms - 1:
                break
            left_ms -= clause.audio_ms
        return " ".join(part for part in heard if part)

    def spoken_text(self) -> str:
        """The words that will have been heard if nothing cuts them."""
        return self.heard_text(self.audio_ms) if self.broken else self.text

    def turn(self, heard_ms: float, to_ms: int | None, *, interrupted: bool, final: bool) -> Turn:
        start = self.from_ms or 0
        return Turn(
            item_id=self.item_id,
            speaker=Speaker.AGENT,
            text=self.heard_text(heard_ms),
            from_ms=start,
            to_ms=max(start, to_ms) if to_ms is not None else None,
            interrupted=interrupted,
            final=final,
        )


@dataclass(slots=True)
class CallerTurn:
    """One stretch of the caller speaking; its words come late, or never."""

    item_id: str
    from_ms: int
    to_ms: int | None = None
    text: str = ""

    def turn(self, *, final: bool) -> Turn:
        return Turn(
            item_id=self.item_id,
            speaker=Speaker.CALLER,
            text=self.text.strip(),
            from_ms=self.from_ms,
            to_ms=max(self.from_ms, self.to_ms) if self.to_ms is not None else None,
            interrupted=False,
            final=final,
        )
