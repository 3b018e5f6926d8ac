"""One tree of errors; each says whether trying again can help.

CallError
├── ProviderError      the speech model's service
└── SpeechError        the speech synthesis service
"""

from __future__ import annotations


class CallError(Exception):
    """Something outside failed during a call.

    `retryable` is the one bit the caller of the failing code needs: may the same thing, asked
    again, succeed? `code` is the other side's own short name for what went wrong.
    """

    def __init__(self, message: str, *, retryable: bool, code: str = "") -> None:
        super().__init__(message)
        self.retryable = retryable
        self.code = code


class ProviderError(CallError):
    """The speech model's service refused, failed or went away."""


class SpeechError(CallError):
    """The speech synthesis service refused, failed or went away."""
