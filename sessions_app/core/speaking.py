"""What the agent says: from the model's words and sounds to what the caller heard of them."""

from __future__ import annotations

from collections import deque

from sessions_app.core.audio import audible, pcm_ms
from sessions_app.core.clauses import Clauses
from sessions_app.core.events import (
    AddAgentWords,
    AgentAudio,
    AgentText,
    ClearPhone,
    Command,
    CutItem,
    FinishItem,
    GreetingHeard,
    Play,
    SaveTurn,
    SpeakClause,
    SpokenAudio,
    StopSpeaking,
)
from sessions_app.core.phrases import Clip
from sessions_app.core.playback import Playback
from sessions_app.core.transcript import TEXT_MOST, AgentItem, Clause

#: How often a turn that is being spoken is shown to whoever reads along.
PROGRESS_S = 1.0
#: Of so much the lengths of an item before and after resampling and framing may differ.
ROUNDING_MS = 50.0
#: An item cut so shortly before its end was heard whole: its last sound was dying away.
TAIL_MS = 100.0
#: Nobody pauses for longer in the middle of a sentence; nor does a healthy model end in so much
#: silence.
PAUSE_MOST_MS = 1500.0
FELL_SILENT_MS = 3000.0
#: So many items are known to be over; what still comes for them is too late.
SETTLED_KEPT = 64


def speakable(text: str) -> bool:
    """Else there is nothing to say: a speech service gives no sound for it, and calls that a
    fault.
    """
    return any(sign.isalnum() for sign in text)


class Speaking:
    """The items on their way to the caller, oldest first; each is settled once, heard or cut."""

    def __init__(
        self,
        playback: Playback,
        *,
        external_voice: bool,
        spare_voice: bool,
        provider_rate_hz: int,
        voice_rate_hz: int,
    ) -> None:
        self.external_voice = external_voice
        #: Another service could speak the model's words, should it not be heard itself.
        self._spare_voice = spare_voice
        self._provider_rate_hz = provider_rate_hz
        self._voice_rate_hz = voice_rate_hz
        self._playback = playback
        self._items: dict[str, AgentItem] = {}
        self._settled: deque[str] = deque(maxlen=SETTLED_KEPT)
        #: The caller has heard something of the agent.
        self.heard_anything = False
        self._progress_s = 0.0

    @property
    def silent(self) -> bool:
        """Nothing is being said and nothing of it is on its way."""
        return not self._items

    @property
    def only_prepared(self) -> bool:
        """All that is being said belongs to no response: it exists without the model."""
        return all(not item.response_id for item in self._items.values())

    @property
    def complete(self) -> bool:
        """Of nothing that can be heard is a rest still to come."""
        return all(
            item.finished or not (self.external_voice or item.speaks_itself)
            for item in self._items.values()
        )

    def waits_for(self, item_id: str) -> bool:
        return item_id in self._items

    def only_silence(self, response_id: str) -> bool:
        """Something of that response is on its way that holds no sound."""
        return any(
            item.response_id == response_id and item.speaks_itself and not item.sounds
            for item in self._items.values()
        )

    def pauses(self, item_id: str) -> bool:
        """What came last of it is sound, or no longer silence than a pause."""
        item = self._items.get(item_id)
        return item is not None and item.silent_ms <= PAUSE_MOST_MS

    def left_ms(self, now: float) -> float:
        """How long what is on its way still takes to be heard, as far as it has come."""
        return sum(
            max(0.0, item.audio_ms - self._playback.heard_ms(item.item_id, now))
            for item in self._items.values()
        )

    def _item(self, item_id: str, response_id: str) -> AgentItem | None:
        """The item, made if it is new; None if nothing more may be added to it."""
        item = self._items.get(item_id)
        if item is None and item_id not in self._settled:
            item = self._items[item_id] = AgentItem(item_id, response_id)
        return None if item is None or item.done else item

    # ------------------------------------------------------------------ from the model

    def audio(self, event: AgentAudio) -> list[Command]:
        item = self._item(event.item_id, event.response_id)
        if item is None:
            return []
        item.speaks_itself = True
        audio_ms, sounds = pcm_ms(len(event.pcm), self._provider_rate_hz), audible(event.pcm)
        item.silent_ms = 0.0 if sounds else item.silent_ms + audio_ms
        if item.silent_ms > PAUSE_MOST_MS:
            # It would only stand in the way of what is said next.
            return []
        item.audio_ms += audio_ms
        if sounds:
            item.sounds, item.sounds_ms = True, item.audio_ms
        return [Play(event.item_id, event.pcm, self._provider_rate_hz)]

    def words(self, event: AgentText) -> list[Command]:
        item = self._item(event.item_id, event.response_id)
        if item is None:
            return []
        text = event.text[: max(0, TEXT_MOST - len(item.text))]
        item.text += text
        if not self.external_voice or item.speaks_itself:
            return []
        return self._speak(item, item.splitter.feed(text))

    def item_done(self, item_id: str) -> list[Command]:
        item = self._items.get(item_id)
        if item is None or item.done:
            return []
        item.done = True
        if self.external_voice and not item.speaks_itself:
            out = self._speak(item, item.splitter.flush())
            return out + self._finish_if_spoken(item)
        if not item.speaks_itself:
            # Words without a sound: nobody hears them, so they are no turn.
            del self._items[item_id]
            return []
        return self._finish(item)

    def response_done(self, response_id: str) -> list[Command]:
        """What the provider left open when it ended a response is ended here."""
        out: list[Command] = []
        for item in [i for i in self._items.values() if i.response_id == response_id]:
            out += self.item_done(item.item_id)
        return out

    def fell_silent(self, response_id: str) -> list[Command]:
        """What to tell the model if silence came in place of the rest of what it said."""
        out: list[Command] = []
        for item in self._items.values():
            ours = item.response_id == response_id and item.speaks_itself
            if ours and item.sounds and item.silent_ms >= FELL_SILENT_MS:
                item.broken = True
                heard_ms = int(item.sounds_ms)
                out.append(CutItem(item.item_id, heard_ms, item.heard_text(heard_ms)))
        return out

    def play(self, item_id: str, clip: Clip) -> list[Command]:
        """Prepared audio; the model is told that it was said."""
        item = self._items[item_id] = AgentItem(item_id, "", clip.text, done=True)
        item.speaks_itself = item.sounds = item.finished = True
        item.audio_ms = pcm_ms(len(clip.pcm), clip.rate_hz)
        return [
            AddAgentWords(item_id, clip.text),
            Play(item_id, clip.pcm, clip.rate_hz),
            FinishItem(item_id),
        ]

    def say(self, item_id: str, text: str) -> list[Command]:
        """Fixed words in the external voice; the model is told that they were said."""
        item = self._items[item_id] = AgentItem(item_id, "", text, done=True)
        splitter = Clauses()
        clauses = [*splitter.feed(text), *splitter.flush()]
        return [AddAgentWords(item_id, text), *self._speak(item, clauses)]

    # ------------------------------------------------------------------ when the model is lost

    def broken_off(self) -> list[Command]:
        """Nothing more comes from the model: what there is may be heard to its end.

        Clauses that the other voice was asked for are whole, and are still spoken.
        """
        out: list[Command] = []
        for item in list(self._items.values()):
            if item.done:
                continue
            item.done = item.broken = True
            if item.speaks_itself:
                out += self._finish(item)
            elif item.clauses:
                item.text = " ".join(clause.text for clause in item.clauses)
                out += self._finish_if_spoken(item)
            else:
                self._forget(item)
        return out

    def voice_lost(self) -> list[Command]:
        """The other voice is gone, the model speaks itself from now on: what has been spoken may be
        heard to its end, the rest of each item is dropped.
        """
        self.external_voice = False
        out: list[Command] = [StopSpeaking()]
        for item in list(self._items.values()):
            if item.speaks_itself or item.finished:
                continue
            item.clauses = [clause for clause in item.clauses if clause.audio_ms > 0]
            item.done = item.broken = True
            if not item.clauses:
                out += self._settle(item, 0, 0, whole=False)
                continue
            # At once, since the model is about to go on behind these words.
            spoken_ms = int(item.audio_ms)
            text = item.spoken_text() if spoken_ms else ""
            out.append(CutItem(item.item_id, spoken_ms, text))
            out += self._finish(item)
        return out

    def take_spare_voice(self) -> bool:
        """The model's words are spoken by another service from now on; False: there is none, or it
        has been tried.
        """
        taken = self._spare_voice and not self.external_voice
        self._spare_voice = False
        self.external_voice = self.external_voice or taken
        return taken

    def in_progress(self) -> list[AddAgentWords]:
        """What is being heard right now, for a model that knows nothing of it. Cut later, or
        broken off, it will be told how far it was heard.
        """
        return [
            AddAgentWords(item.item_id, text)
            for item in self._items.values()
            if (text := item.spoken_text())
        ]

    # ------------------------------------------------------------------ from the external voice

    def _speak(self, item: AgentItem, texts: list[str]) -> list[Command]:
        out: list[Command] = []
        for text in texts:
            if not speakable(text):
                continue
            out.append(SpeakClause(item.item_id, len(item.clauses), text))
            item.clauses.append(Clause(text))
        return out

    def spoken(self, event: SpokenAudio) -> list[Command]:
        item = self._items.get(event.item_id)
        if item is None or item.finished:
            return []
        audio_ms = pcm_ms(len(event.pcm), self._voice_rate_hz)
        item.audio_ms += audio_ms
        item.clauses[event.clause].audio_ms += audio_ms
        return [Play(event.item_id, event.pcm, self._voice_rate_hz)]

    def clause_spoken(self, item_id: str, clause: int) -> list[Command]:
        item = self._items.get(item_id)
        if item is None or item.finished:
            return []
        item.clauses[clause].spoken = True
        return self._finish_if_spoken(item)

    def _finish_if_spoken(self, item: AgentItem) -> list[Command]:
        if not item.done or not all(clause.spoken for clause in item.clauses):
            return []
        if not item.clauses:
            del self._items[item.item_id]
            return []
        return self._finish(item)

    def _finish(self, item: AgentItem) -> list[Command]:
        if item.finished:
            return []
        item.finished = True
        return [FinishItem(item.item_id)]

    # ------------------------------------------------------------------ at the phone

    def item_written(self, item_id: str) -> None:
        if item := self._items.get(item_id):
            item.written = True

    def settle(self, now: float, clock_ms: int) -> list[Command]:
        """Turns that have been heard to their end, and how far the one being heard has come."""
        out: list[Command] = []
        for item in list(self._items.values()):
            heard = self._playback.heard_ms(item.item_id, now)
            out += self._begins(item, heard, clock_ms)
            if item.written and self._playback.over(item.item_id, now):
                # All of it, but for rounding; or as much as the phone was given of it.
                whole = not item.broken and heard >= item.audio_ms - ROUNDING_MS
                out += self._settle(item, heard, clock_ms, whole=whole)
            elif heard > 0 and now >= self._progress_s:
                self._progress_s = now + PROGRESS_S
                out.append(SaveTurn(item.turn(heard, None, interrupted=False, final=False)))
        return out

    def _begins(self, item: AgentItem, heard_ms: int, clock_ms: int) -> list[Command]:
        """Notes when the caller began to hear it."""
        if heard_ms <= 0 or item.from_ms is not None:
            return []
        item.from_ms = max(0, clock_ms - heard_ms)
        if self.heard_anything:
            return []
        self.heard_anything = True
        return [GreetingHeard()]

    def deadlines(self, after_s: float) -> list[float]:
        """When settling has something new to tell; all later than `after_s`, the last settling."""
        due = []
        for item in self._items.values():
            begins = self._playback.first_at_s(item.item_id)
            if begins is not None and item.from_ms is None:
                # A millisecond later it has certainly begun.
                due.append(max(begins + 0.002, after_s + 0.02))
        if self._items:
            due += [self._progress_s, self._playback.look_again_s() + 0.002]
        return [at for at in due if at > after_s]

    def cut(self, now: float, clock_ms: int) -> list[Command]:
        """Stop at once; the model's memory and the transcript end at what was heard.

        Nothing is said twice: items that had been heard whole are settled as heard.
        """
        if not self._items:
            return []
        out: list[Command] = []
        heard = {item_id: self._playback.heard_ms(item_id, now) for item_id in self._items}
        self._playback.cleared(now)
        out.append(ClearPhone())
        if self.external_voice:
            out.append(StopSpeaking())
        for item in list(self._items.values()):
            heard_ms = min(heard[item.item_id], int(item.audio_ms))
            out += self._begins(item, heard_ms, clock_ms)
            # The clock is late on purpose; what it lacks at the very end was heard.
            whole = item.finished and not item.broken and heard_ms >= int(item.audio_ms) - TAIL_MS
            out += self._settle(item, heard_ms, clock_ms, whole=whole)
        return out

    def _settle(
        self, item: AgentItem, heard_ms: int, clock_ms: int, *, whole: bool
    ) -> list[Command]:
        """The item is over; what was not heard of it is taken out of the model's memory."""
        out: list[Command] = []
        turn = item.turn(
            item.audio_ms if whole else heard_ms, clock_ms, interrupted=not whole, final=True
        )
        if not whole:
            out.append(CutItem(item.item_id, heard_ms, turn.text))
        if heard_ms > 0:
            out.append(SaveTurn(turn))
        self._forget(item)
        return out

    def close(self, now: float, clock_ms: int) -> list[Command]:
        """The call ends here: what was heard is what is kept."""
        kept = SaveTurn | GreetingHeard
        return [command for command in self.cut(now, clock_ms) if isinstance(command, kept)]

    def _forget(self, item: AgentItem) -> None:
        self._items.pop(item.item_id, None)
        self._settled.append(item.item_id)
        self._playback.forget(item.item_id)
