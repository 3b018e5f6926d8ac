from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.management import CommandError

from sessions_app.management.commands import hangup
from sessions_app.models import CallCommand, CallRecord, CommandKind, CommandState
from tests.unit.commands.rows import a_call, end
from tests.unit.commands.running import output_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the call's server answer at once, or not at all."""

    def answers(state: CommandState, answer: str) -> None:
        def awaited(command: CallCommand, timeout_s: float) -> bool:
            command.state, command.answer = state, answer
            command.save()
            return state != CommandState.ASKED

        monkeypatch.setattr(hangup, "await_answer", awaited)

    return answers


def test_the_owners_answer_is_printed(owner: Callable[..., None]) -> None:
    a_call("uuid-1")
    owner(CommandState.DONE, "hung up")

    assert output_of("hangup", "uuid-1") == "uuid-1: hung up\n"

    asked = CallCommand.objects.get()
    assert (asked.kind, asked.requested_by) == (CommandKind.HANG_UP, None)


def test_a_call_that_has_ended_is_as_good() -> None:
    end(a_call("uuid-1"))

    assert output_of("hangup", "uuid-1") == "uuid-1: the call has ended\n"


def test_an_unknown_call_is_an_error() -> None:
    with pytest.raises(CommandError, match="read 'uuid-9', wanted the uuid of a call"):
        output_of("hangup", "uuid-9")


def test_a_refusal_is_an_error(owner: Callable[..., None]) -> None:
    a_call("uuid-1")
    owner(CommandState.REFUSED, "not here")

    with pytest.raises(CommandError, match="uuid-1: refused: not here"):
        output_of("hangup", "uuid-1")


def test_a_server_that_does_not_answer_is_named() -> None:
    a_call("uuid-1", node="gone-4711")

    with pytest.raises(CommandError, match=r"gone-4711 did not answer within 0.01 s"):
        output_of("hangup", "uuid-1", "--timeout=0.01")
    assert CallCommand.objects.get().state == CommandState.ASKED


def test_a_call_that_ends_meanwhile_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_call("uuid-1")

    def ends_by_itself(command: CallCommand, timeout_s: float) -> bool:
        end(CallRecord.objects.get(pk=call.pk))
        return False

    monkeypatch.setattr(hangup, "await_answer", ends_by_itself)

    assert output_of("hangup", "uuid-1") == "uuid-1: the call has ended\n"
