"""What the caller says, turn by turn."""

from __future__ import annotations

from sessions_app.core.events import CallerTranscript, Command, SaveTurn, Turn
from sessions_app.core.transcript import CallerTurn

#: Turns whose words have not come; words this much later than the newest turn are given up.
WAITING_MOST = 20


class Listening:
    """Keeps the caller's turns until their words have come."""

    def __init__(self) -> None:
        self._turns: dict[str, CallerTurn] = {}
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
        if item_id not in self._turns:
            self._turns[item_id] = CallerTurn(item_id, at_ms)
        out: list[Command] = []
        while len(self._turns) > WAITING_MOST:
            oldest = next(iter(self._turns))
            out.append(SaveTurn(self._turns.pop(oldest).turn(final=True)))
        return out

    def stopped(self, item_id: str, at_ms: int) -> list[Command]:
        self._speaking = None
        if turn := self._turns.get(item_id):
            turn.to_ms = at_ms
            return [SaveTurn(turn.turn(final=False))]
        return []

    def transcript(self, event: CallerTranscript, at_ms: int) -> list[Command]:
        """Words of a turn; of one never announced too, since the provider may skip its events."""
        turn = self._turns.get(event.item_id) or CallerTurn(event.item_id, at_ms, at_ms)
        if event.final:
            turn.text = event.text
            self._turns.pop(event.item_id, None)
        else:
            turn.text += event.text
            self._turns[event.item_id] = turn
        return [SaveTurn(turn.turn(final=event.final))]

    def failed(self, item_id: str) -> list[Command]:
        """No words will come; the turn stays, with what there is."""
        if self._speaking == item_id:
            self._speaking = None
        turn = self._turns.pop(item_id, None)
        return [SaveTurn(turn.turn(final=True))] if turn else []

    def press(self, key: str, now: float) -> None:
        """A key of the phone; keys pressed one after the other are one turn."""
        self._keys = (self._keys + key)[-64:]
        self.pressed_s = now

    def take_keys(self, at_ms: int) -> Turn:
        """The keys pressed so far, as a turn of the caller."""
        self._key_turns += 1
        turn = CallerTurn(f"keys_{self._key_turns}", at_ms, at_ms, self._keys)
        self._keys, self.pressed_s = "", None
        return turn.turn(final=True)

    def close(self, at_ms: int) -> list[Command]:
        out: list[Command] = []
        for turn in self._turns.values():
            turn.to_ms = turn.to_ms if turn.to_ms is not None else at_ms
            out.append(SaveTurn(turn.turn(final=True)))
        self._turns.clear()
        return out
