"""Tickets for the media socket: unguessable, bound to a call, short-lived.

A ticket is signed, so any process can check it, and made from what the call's row holds, so any
process can give the identical one again. Which of a call's tickets (its generation) has been spent
is kept on the row, and by whoever serves the call.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.core import signing

#: From the answer to the socket; Vonage connects as soon as it has spoken the words before it, at
#: most `core.pacing.LONGEST_DELAY_MS` by a fast voice, twice as long by a slow one.
LIFETIME_S = 90
#: Clocks of two machines may differ by so much.
SKEW_S = 30
_SIGNER = signing.Signer(salt="media-ticket")


class TicketRefused(Exception):
    """The ticket opens no socket; the text says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    call_uuid: str
    generation: int
    issued_s: int

    def text(self) -> str:
        """As it stands in the socket's address; the same fields always give the same text."""
        return str(_SIGNER.sign_object([self.call_uuid, self.generation, self.issued_s]))

    def fresh(self, now_s: float) -> bool:
        return -SKEW_S <= now_s - self.issued_s <= LIFETIME_S

    @classmethod
    def read(cls, text: str, now_s: float) -> Ticket:
        """Check signature and age. Raises TicketRefused."""
        try:
            uuid, generation, issued_s = _SIGNER.unsign_object(text)
            ticket = cls(str(uuid), int(generation), int(issued_s))
        except (signing.BadSignature, TypeError, ValueError):
            raise TicketRefused("not a ticket of ours") from None
        if not ticket.fresh(now_s):
            raise TicketRefused("the ticket has expired")
        return ticket
