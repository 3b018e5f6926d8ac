"""What the caller says, turn by turn."""

from __future__ import annotations

from collections import deque

from sessions_app.core.events import CallerTranscript, Command, SaveTurn, Turn
from sessions_app.core.transcript import TEXT_MOST, CallerTurn

#: Turns whose words have not come; words this much later than the newest turn are given up.
WAITING_MOST = 20
#: Turns of keys pressed are called this and a number.
KEYS = "keys_"
#: So many turns are known to be final; what still comes for them is too late.
FINAL_KEPT = 64


class Listening:
    """Keeps the caller's turns until their words have come."""

    def __init__(self) -> None:
        self._turns: dict[str, CallerTurn] = {}
        self._final: deque[str] = deque(maxlen=FINAL_KEPT)
        self._speaking: str | None = None
        #: When the last key was pressed that no turn holds yet.
        self.pressed_s: float | None = None
        self._keys = ""
        self._key_turns = 0

    @property
    def caller_speaks(self) -> bool:
        return self._speaking is not None

    def started(self, item_id: str, at_ms: int) -> list[Command]:
        self._speaking = item_id
        self._turn(item_id, at_ms)
        return self._give_up_oldest(at_ms)

    def stopped(self, item_id: str, at_ms: int) -> list[Command]:
        self._speaking = None
        if turn := self._turns.get(item_id):
            turn.to_ms = at_ms
            return [SaveTurn(turn.turn(final=False))]
        return []

    def transcript(self, event: CallerTranscript, at_ms: int) -> list[Command]:
        """Words of a turn; of one never announced too, since the provider may skip its events."""
        announced = event.item_id in self._turns
        turn = self._turn(event.item_id, at_ms)
        if turn is None:
            return []
        if not announced:
            turn.to_ms = at_ms
        turn.text = event.text if event.final else turn.text + event.text
        turn.text = turn.text[:TEXT_MOST]
        if event.final:
            return self._settle(event.item_id, at_ms)
        return [SaveTurn(turn.turn(final=False)), *self._give_up_oldest(at_ms)]

    def failed(self, item_id: str, at_ms: int) -> list[Command]:
        """No words will come; the turn stays, with what there is."""
        return self._settle(item_id, at_ms) if item_id in self._turns else []

    def lost(self, at_ms: int) -> list[Command]:
        """The model's session is gone: no words will come any more, and no end of a turn."""
        self._speaking = None
        out: list[Command] = []
        for item_id in list(self._turns):
            out += self._settle(item_id, at_ms)
        return out

    def waits_for_words(self) -> bool:
        """Something the caller said is not known in words yet."""
        return bool(self._turns)

    def _turn(self, item_id: str, at_ms: int) -> CallerTurn | None:
        """The turn of that id, made if it is new; None if it is final already."""
        if item_id not in self._turns and item_id not in self._final:
            self._turns[item_id] = CallerTurn(item_id, at_ms)
        return self._turns.get(item_id)

    def _settle(self, item_id: str, at_ms: int) -> list[Command]:
        """Nothing more is to be learnt of this turn."""
        turn = self._turns.pop(item_id)
        turn.to_ms = at_ms if turn.to_ms is None else turn.to_ms
        self._final.append(item_id)
        return [SaveTurn(turn.turn(final=True))]

    def _give_up_oldest(self, at_ms: int) -> list[Command]:
        out: list[Command] = []
        while len(self._turns) > WAITING_MOST:
            out += self._settle(next(iter(self._turns)), at_ms)
        return out

    def press(self, key: str, now: float) -> None:
        """A key of the phone; keys pressed one after the other are one turn."""
        self._keys = (self._keys + key)[-64:]
        self.pressed_s = now

    def take_keys(self, at_ms: int) -> Turn:
        """The keys pressed so far, as a turn of the caller."""
        self._key_turns += 1
        turn = CallerTurn(f"{KEYS}{self._key_turns}", at_ms, at_ms, self._keys)
        self._keys, self.pressed_s = "", None
        return turn.turn(final=True)

    def close(self, at_ms: int) -> list[Command]:
        out = self.lost(at_ms)
        if self._keys:
            out.append(SaveTurn(self.take_keys(at_ms)))
        return out
