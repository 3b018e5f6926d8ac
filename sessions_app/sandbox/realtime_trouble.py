"""What a wanted fault does to one realtime connection, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sessions_app.sandbox.asgi import CutError
from sessions_app.sandbox.checks import WireError
from sessions_app.sandbox.conf import OwnSide, Tempo
from sessions_app.sandbox.faults import Fault, Phase, Wish
from sessions_app.sandbox.realtime_socket import ClosingError, EventSocket
from sessions_app.sandbox.strikes import CallNotes

#: The handshake is refused, or the socket says nothing from its beginning on.
AWAY: Final = frozenset(
    {
        Fault.OPENAI_REFUSED,
        Fault.OPENAI_UNAUTHORIZED,
        Fault.OPENAI_QUOTA,
        Fault.OPENAI_HANGS,
    }
)
#: They happen to the connection, at a moment.
_TO_CONNECTION: Final = AWAY | {
    Fault.OPENAI_SLOW,
    Fault.OPENAI_CLOSES,
    Fault.OPENAI_DROPS,
    Fault.OPENAI_EXPIRES,
    Fault.OPENAI_FREEZES,
    Fault.OPENAI_DEAF,
    Fault.OPENAI_GARBAGE,
}
#: They happen to a response, from its beginning.
_TO_RESPONSE: Final = frozenset(
    {
        Fault.OPENAI_MUTE,
        Fault.OPENAI_SILENT,
        Fault.OPENAI_TEXT,
        Fault.OPENAI_FAILS_ONCE,
        Fault.OPENAI_FAILS,
        Fault.OPENAI_INCOMPLETE,
        Fault.OPENAI_SERVER_ERROR,
        Fault.OPENAI_RATE_LIMIT,
        Fault.OPENAI_INVALID,
        Fault.OPENAI_UNKNOWN_ERROR,
    }
)
_ERRORS: Final[dict[Fault, tuple[str | None, str, str]]] = {
    Fault.OPENAI_SERVER_ERROR: (
        None,
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
    ),
    Fault.OPENAI_RATE_LIMIT: (
        "rate_limit_exceeded",
        "Rate limit reached for requests. Please try again in 1.2s.",
        "rate_limit_error",
    ),
    Fault.OPENAI_INVALID: (
        "invalid_value",
        "Invalid value: 'sandbox'.",
        "invalid_request_error",
    ),
    Fault.OPENAI_UNKNOWN_ERROR: ("flux_capacitor", "Something new went wrong.", "strange_error"),
}


class Trouble:
    """The fault of one connection; without a wish nothing ever happens."""

    def __init__(
        self,
        wish: Wish | None,
        notes: CallNotes,
        socket: EventSocket,
        tempo: Tempo,
        own_side: OwnSide | None = None,
    ) -> None:
        self.is_deaf = False
        self._wish = wish
        self._notes = notes
        self._socket = socket
        self._tempo = tempo
        self._own_side = own_side

    async def at(self, phase: Phase, *, in_speech: bool = False) -> None:
        """The call has come to ``phase``: what happens to the connection then. ``in_speech``: in
        the middle of what is being said. May raise ``ClosingError`` or ``CutError``.
        """
        if self._wish is not None and self._wish.phase is phase:
            await self._happen(self._wish, in_speech=in_speech)

    async def soon(self, phase: Phase, after_s: float) -> None:
        """The same a moment into the phase."""
        await asyncio.sleep(after_s)
        await self.at(phase)

    async def in_time(self, speaks: Callable[[], bool]) -> None:
        """``openai-expires`` without a phase: after some seconds, whatever is going on."""
        wish = self._wish
        if wish is not None and wish.fault is Fault.OPENAI_EXPIRES and wish.phase is None:
            await asyncio.sleep(self._tempo.expires_s)
            await self._happen(wish, in_speech=speaks())

    def with_response(self, phase: Phase) -> Fault | None:
        """What happens to a response that begins in ``phase``."""
        wish = self._wish
        if wish is None or wish.fault not in _TO_RESPONSE or wish.phase not in (None, phase):
            return None
        return wish.fault if self._notes.take(wish) else None

    def with_tool(self) -> bool:
        """Whether the function call that begins now is never completed."""
        wish = self._wish
        hangs = wish is not None and wish.fault is Fault.OPENAI_TOOL_HANGS
        return hangs and wish is not None and self._notes.take(wish)

    def caller_spoke(self) -> None:
        """A turn of the caller's is over: from here on the agent speaks answers, not greetings."""
        self._notes.caller_has_spoken = True

    def cut_short(self) -> None:
        """A response that went wrong by itself ended in the middle of what it said."""
        self._notes.was_cut = True

    async def _happen(self, wish: Wish, *, in_speech: bool) -> None:
        if wish.fault.is_of_server:
            if self._own_side is not None and self._notes.take(wish):
                self._own_side(wish.fault)
            return
        if wish.fault not in _TO_CONNECTION or not self._notes.take(wish):
            return
        if in_speech and wish.cuts_speech:
            self._notes.was_cut = True
        match wish.fault:
            case Fault.OPENAI_SLOW:
                self._socket.hold(self._tempo.slow_s)
            case Fault.OPENAI_CLOSES:
                raise ClosingError(1011, "internal error")
            case Fault.OPENAI_EXPIRES:
                await self._socket.error(session_expired())
                raise ClosingError(1001, "session expired")
            case Fault.OPENAI_FREEZES:
                self._socket.freeze()
            case Fault.OPENAI_DEAF:
                self.is_deaf = True
            case Fault.OPENAI_GARBAGE:
                self._socket.send_garbage()
            case _:  # dropped; where the model is away, the next handshake finds that out
                raise CutError


def is_away(wish: Wish | None, notes: CallNotes) -> bool:
    """Whether a handshake meets a model that is away: from the start, or since a later phase."""
    if wish is None or wish.fault not in AWAY:
        return False
    if notes.has_struck(wish):
        return True
    return wish.phase is Phase.BEFORE_GREETING and notes.take(wish)


def session_expired() -> WireError:
    """What is told at the end of a session's time."""
    return WireError("session_expired", "Your session hit the maximum duration of 60 minutes.")


def error_of(fault: Fault | None) -> WireError | None:
    """The ``error`` event that a response's fault stands for, if it is one."""
    if fault not in _ERRORS:
        return None
    code, message, kind = _ERRORS[fault]
    return WireError(code, message, kind=kind)
