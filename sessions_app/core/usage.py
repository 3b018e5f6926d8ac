"""Sums of what the suppliers count, over the responses of a call."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any


def flattened(usage: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Nested counts as one level, `input_token_details.cached_tokens` and the like.

    Whatever is not a non-negative number is left out: it is another's data.
    """
    flat: dict[str, int] = {}
    for key, value in usage.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{name}."))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            continue
        elif 0 <= value < math.inf:
            flat[name] = round(value)
    return flat


class UsageSum:
    """`responses`, and every count of every response; transcription under its own prefix."""

    def __init__(self, so_far: Mapping[str, int] | None = None) -> None:
        self._sum: Counter[str] = Counter(so_far)

    def add_response(self, usage: Mapping[str, Any]) -> None:
        self._sum["responses"] += 1
        self._sum.update(flattened(usage))

    def add_transcription(self, usage: Mapping[str, Any]) -> None:
        self._sum["transcriptions"] += 1
        self._sum.update(flattened(usage, "transcription."))

    def add_spoken(self, characters: int) -> None:
        """Text given to a speech synthesis service."""
        self._sum["speech_characters"] += characters

    def total(self) -> dict[str, int]:
        return dict(self._sum)
