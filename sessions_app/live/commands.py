"""What people ask of a live call, whichever process serves it: a row, and its answer.

The owner of the call looks for such rows twice a second and writes its answer on them, so nothing
asked is lost and the record of who asked for what is there by itself.
"""

from __future__ import annotations

import time

from django.utils import timezone

from sessions_app.models import CallCommand, CallRecord, CommandKind, CommandState
from sessions_app.models.agents import User
from sessions_app.rows import HAS_ENDED


def ask(
    call: CallRecord, kind: CommandKind, user: User | None = None, text: str = ""
) -> CallCommand:
    """Ask something of a call. If it has ended already, the row says so at once."""
    by = user.pk if user else None
    command = CallCommand(call=call, kind=kind, requested_by_id=by, text=text)
    if not call.is_live:
        command.state = CommandState.DONE
        command.answer = HAS_ENDED
        command.answered_at = timezone.now()
    command.save()
    return command


def await_answer(command: CallCommand, timeout_s: float = 5.0, poll_s: float = 0.1) -> bool:
    """Wait until the owner has answered; False if it did not in time. For command lines."""
    deadline = time.monotonic() + timeout_s
    while command.state == CommandState.ASKED and time.monotonic() < deadline:
        time.sleep(poll_s)
        command.refresh_from_db()
    return command.state != CommandState.ASKED
