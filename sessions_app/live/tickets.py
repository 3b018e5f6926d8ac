"""Tickets of the sockets that staff open in a browser: short-lived, single-use, tied to a login.

A ticket is signed, names its user and agent, and carries a keyed hash of the login's session, so it
is worth nothing to another user, in another login, or after a log-out. Which tickets were used is
remembered in Django's default cache: with the local-memory cache that is per process, so the same
login could within the minute use one ticket once in each process. That gives nobody anything they
could not have by asking for a second ticket; a shared cache makes it once in the fleet.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from django.core import signing
from django.core.cache import cache
from django.utils.crypto import constant_time_compare, salted_hmac

TICKET_S: Final = 60
_PURPOSE: Final = "sessions_app.live.browser_call"


class TicketError(Exception):
    """The ticket does not open this socket; the text says why and holds nothing of the ticket."""


def issue(user_pk: Any, session_key: str, agent_pk: int) -> str:
    """A ticket for one call of `user_pk` to the agent; good in the path of an address."""
    return signing.dumps(
        {
            "user": str(user_pk),
            "login": _login(session_key),
            "agent": agent_pk,
            "once": secrets.token_urlsafe(12),
        },
        salt=_PURPOSE,
    )


def redeem(ticket: str, user_pk: Any, session_key: str) -> int:
    """The agent's pk; the ticket is spent. A ticket that is refused stays as it was.

    Raises TicketError.
    """
    try:
        claims = signing.loads(ticket, salt=_PURPOSE, max_age=TICKET_S)
    except signing.SignatureExpired:
        raise TicketError("the ticket is too old") from None
    except signing.BadSignature:
        raise TicketError("the ticket is not one of ours") from None
    if claims["user"] != str(user_pk):
        raise TicketError("the ticket is another user's")
    if not constant_time_compare(claims["login"], _login(session_key)):
        raise TicketError("the ticket is of another login")
    # Kept for longer than the signature is good, or the last second would be a way in.
    if not cache.add(f"{_PURPOSE}:{claims['once']}", True, timeout=2 * TICKET_S):
        raise TicketError("the ticket was used already")
    return int(claims["agent"])


def _login(session_key: str) -> str:
    return salted_hmac(_PURPOSE, session_key).hexdigest()
