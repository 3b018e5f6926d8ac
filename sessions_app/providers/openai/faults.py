"""What OpenAI says when something is wrong, and what that means for a call.

The same codes come in `error` events, in a failed response's `status_details`, in the body of a
refused upgrade, in a close reason and in the Responses API; some come as `type`, not as `code`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUSY = "conversation_already_has_active_response"
SESSION_EXPIRED = "session_expired"

#: Asking again cannot help: somebody has to change a key, a bill or a setting.
_FATAL = frozenset(
    {
        "account_deactivated",
        "authentication_error",
        "beta_api_shape_disabled",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "organization_usage_limit_exceeded",
    }
)
_FATAL_ENDING = "_spend_limit_exceeded"

#: Two sides acted at the same moment; both already agree again.
_BENIGN = frozenset(
    {
        "input_audio_buffer_commit_empty",
        "item_create_duplicate_item_id",
        "item_delete_invalid_item_id",
        "item_retrieve_invalid_item_id",
        "item_truncate_invalid_item_id",
        "response_cancel_not_active",
    }
)
_BENIGN_WORDS = ("already shorter than", "no active response found")

_SECRETS = re.compile(r"\b(?:sk|ek)-\S+|\d{6,}")


def is_fatal(*codes: str) -> bool:
    """Whether any of these codes or types means that trying again cannot help."""
    return any(code in _FATAL or code.endswith(_FATAL_ENDING) for code in codes)


@dataclass(frozen=True, slots=True)
class Fault:
    """An error object of the API. `event_id` is the client event it answers, if any."""

    code: str = ""
    type: str = ""
    param: str = ""
    message: str = ""
    event_id: str = ""

    @classmethod
    def of(cls, error: object) -> Fault:
        """Read an error object; whatever is missing or of another type is empty."""
        if not isinstance(error, Mapping):
            return cls()
        texts: Mapping[str, Any] = {k: v for k, v in error.items() if isinstance(v, str)}
        return cls(
            code=texts.get("code", ""),
            type=texts.get("type", ""),
            param=texts.get("param", ""),
            message=texts.get("message", ""),
            event_id=texts.get("event_id", ""),
        )

    @classmethod
    def of_body(cls, body: bytes | bytearray | None) -> Fault:
        """Read an HTTP error body, `{"error": {...}}`; anything else is an empty fault."""
        try:
            document = json.loads(body or b"")
        except (ValueError, RecursionError):
            return cls()
        return cls.of(document.get("error")) if isinstance(document, dict) else cls()

    @property
    def name(self) -> str:
        """Its short name: the code, or the type where there is none."""
        return self.code or self.type

    @property
    def fatal(self) -> bool:
        return is_fatal(self.code, self.type)

    @property
    def benign(self) -> bool:
        return self.code in _BENIGN or any(words in self.message for words in _BENIGN_WORDS)

    def __str__(self) -> str:
        """For logs and rows. The service quotes keys and content, so those are taken out."""
        param = f" ({self.param[:60]})" if self.param else ""
        message = f": {_SECRETS.sub('…', self.message)[:160]}" if self.message else ""
        return f"{self.name[:60] or 'error'}{param}{message}"
