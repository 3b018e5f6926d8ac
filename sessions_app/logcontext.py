"""Which call the running code works for; log lines carry it by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
