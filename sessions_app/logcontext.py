"""Which call the running code works for, and how its caller is named to others.

Log lines carry the call by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.utils.crypto import salted_hmac

current_call: ContextVar[str] = ContextVar("current_call", default="")


@contextmanager
def call_context(call_uuid: str) -> Iterator[None]:
    """Log lines inside belong to this call."""
    token = current_call.set(call_uuid)
    try:
        yield
    finally:
        current_call.reset(token)


def masked(number: str) -> str:
    """A phone number for logs and pages: enough to recognise it, not enough to ring it."""
    if len(number) < 7:
        return "•" * len(number)
    return f"{number[:2]}{'•' * (len(number) - 5)}{number[-3:]}"


def pseudonym(number: str) -> str:
    """A stable name for a caller that suppliers may keep: nobody can find the number by trying."""
    return salted_hmac("caller", number, algorithm="sha256").hexdigest()[:32]
