"""What people may do with calls, beyond reading their own."""

from __future__ import annotations

from typing import Any, Final

#: Calls of every owner, and those that nobody owns; without it people see their own.
SEE_ALL: Final = "see_all_calls"
#: A caller's number in full; that somebody looked is kept in the call's history.
SEE_NUMBERS: Final = "see_full_numbers"
HANG_UP: Final = "hang_up_calls"
#: To the agent of a live call, unheard by the caller.
WHISPER: Final = "whisper_in_calls"

PERMISSIONS: Final = (
    (SEE_ALL, "Can see everybody's calls"),
    (SEE_NUMBERS, "Can see callers' numbers in full"),
    (HANG_UP, "Can hang up calls"),
    (WHISPER, "Can whisper to the agent in calls"),
)


def may(user: Any, right: str) -> bool:
    """Whether the user has one of these rights; superusers have all, nobody else has by himself."""
    return bool(user.has_perm(f"sessions_app.{right}"))
