"""Tickets of the browser's sockets: one login, one minute, once."""

from __future__ import annotations

import time
from unittest import mock

import pytest
from django.core.cache import cache

from sessions_app.live import tickets
from sessions_app.live.tickets import TicketError, issue, redeem


def test_a_ticket_gives_its_agent_once() -> None:
    ticket = issue(7, "session", 42)
    assert redeem(ticket, 7, "session") == 42
    with pytest.raises(TicketError, match="used already"):
        redeem(ticket, 7, "session")


def test_two_tickets_of_one_login_are_two() -> None:
    assert issue(7, "session", 42) != issue(7, "session", 42)


@pytest.mark.parametrize(("user", "session"), [(8, "session"), (7, "another"), (7, "")])
def test_a_refused_ticket_is_not_spent(user: int, session: str) -> None:
    ticket = issue(7, "session", 42)
    with pytest.raises(TicketError):
        redeem(ticket, user, session)
    assert redeem(ticket, 7, "session") == 42


def test_a_forged_ticket_is_refused() -> None:
    ticket = issue(7, "session", 42)
    for forged in ("", "x", ticket[:-1], ticket.replace(":", ".", 1), f"A{ticket}"):
        with pytest.raises(TicketError, match="not one of ours"):
            redeem(forged, 7, "session")


def test_a_ticket_of_another_purpose_is_refused() -> None:
    from django.core import signing

    other = signing.dumps({"user": "7"}, salt="another purpose")
    with pytest.raises(TicketError, match="not one of ours"):
        redeem(other, 7, "session")


def test_a_ticket_is_good_for_a_minute() -> None:
    now = time.time()
    with mock.patch("django.core.signing.time.time", return_value=now - tickets.TICKET_S - 2):
        old = issue(7, "session", 42)
    with mock.patch("django.core.signing.time.time", return_value=now - tickets.TICKET_S + 2):
        fresh = issue(7, "session", 42)
    with pytest.raises(TicketError, match="too old"):
        redeem(old, 7, "session")
    assert redeem(fresh, 7, "session") == 42


def test_a_used_ticket_is_remembered_for_longer_than_it_is_good() -> None:
    with mock.patch.object(cache, "add", return_value=True) as add:
        redeem(issue(7, "session", 42), 7, "session")
    assert add.call_args.kwargs["timeout"] > tickets.TICKET_S


def test_a_ticket_tells_nothing_of_the_session() -> None:
    from django.core import signing

    ticket = issue(7, "the-session-key", 42)
    assert "the-session-key" not in str(signing.loads(ticket, salt=tickets._PURPOSE))
