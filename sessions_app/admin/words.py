"""How facts of a call are put into words on pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from sessions_app.logcontext import masked
from sessions_app.models import CallState

#: Never colour alone: each state has its word, its sign and its colour (a class of admin.css).
STATE_SIGNS = {
    CallState.HELD: "…",
    CallState.RINGING: "◌",
    CallState.ANSWERED: "◔",
    CallState.LIVE: "●",
    CallState.ENDED: "■",
}
_NUMBER = re.compile(r"\d{5}")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a small table."""

    label: str
    values: tuple[str, ...]


def state_badge(state: int) -> SafeString:
    known = CallState(state)
    return format_html(
        '<span class="call-state call-state-{}"><span aria-hidden="true">{}</span> {}</span>',
        known.name.lower(),
        STATE_SIGNS[known],
        known.label,
    )


def clock(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def shown_caller(caller: str) -> str:
    """A number is masked; the name of somebody who calls from a browser is not a number."""
    if not caller:
        return "withheld"
    return masked(caller) if _NUMBER.search(caller) else caller


def label(key: str) -> str:
    """`input_token_details.cached_tokens` as `Input token details: cached tokens`."""
    text = key.replace(".", ": ").replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def rows(data: Mapping[str, Any]) -> list[Row]:
    """JSON as lines to read; what is nested is named by its whole path."""
    found: list[Row] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += rows({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            found.append(Row(label(key), _values(value)))
    return found


def _values(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in _values(item)) or ("none",)
    if isinstance(value, Mapping):
        return ("; ".join(f"{row.label}: {', '.join(row.values)}" for row in rows(value)),)
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    if isinstance(value, int):
        return (f"{value:,}",)
    return ("–" if value in (None, "") else str(value),)
