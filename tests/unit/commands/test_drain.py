from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.core.management import CommandError

from sessions_app.management.commands import drain
from sessions_app.models import CallRecord, Node
from tests.unit.commands.rows import a_call, a_node, end
from tests.unit.commands.running import output_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What servers do, one step for each wait of the command."""

    def do(*steps: Callable[[], object]) -> None:
        coming: Iterator[Callable[[], object]] = iter(steps)
        monkeypatch.setattr(drain, "sleep", lambda s: next(coming)())

    return do


def test_named_servers_are_asked() -> None:
    one, two = a_node("one"), a_node("two")

    assert output_of("drain", "one") == "Asked to drain: one\n"

    one.refresh_from_db()
    two.refresh_from_db()
    assert one.drain_requested_at is not None
    assert two.drain_requested_at is None


def test_all_that_are_alive_are_asked() -> None:
    a_node("one")
    a_node("two")
    gone = a_node("gone", heard_s_ago=3600)

    assert output_of("drain", "--all") == "Asked to drain: one, two\n"

    gone.refresh_from_db()
    assert gone.drain_requested_at is None


def test_it_can_be_undone() -> None:
    node = a_node("one")
    output_of("drain", "one")

    assert output_of("drain", "one", "--undo") == "Asked to take calls again: one\n"

    node.refresh_from_db()
    assert node.drain_requested_at is None


def test_waiting_shows_each_step_until_no_call_is_left(meanwhile: Callable[..., None]) -> None:
    a_node("one")
    calls = [a_call("uuid-1"), a_call("uuid-2")]
    meanwhile(
        lambda: Node.objects.update(draining=True),
        lambda: end(calls[0]),
        lambda: None,
        lambda: end(calls[1]),
    )

    assert output_of("drain", "one", "--wait").splitlines() == [
        "Asked to drain: one",
        "  one: has not noticed yet",
        "  one: 2 live",
        "  one: 1 live",
        "Done: no live call is left.",
    ]


def test_a_server_that_vanishes_with_its_calls_is_not_drained(
    meanwhile: Callable[..., None],
) -> None:
    a_node("one", draining=True)
    call = a_call("uuid-1")
    meanwhile(lambda: Node.objects.all().delete(), lambda: end(call))

    told = output_of("drain", "one", "--wait")

    assert "one: 1 live, but the server is gone" in told
    assert not CallRecord.objects.live().exists()


def test_waiting_for_the_undo(meanwhile: Callable[..., None]) -> None:
    a_node("one", draining=True)
    meanwhile(lambda: Node.objects.update(draining=False))

    told = output_of("drain", "--all", "--undo", "--wait")

    assert "one: still draining" in told
    assert told.endswith("Done: all take calls again.\n")


def test_waiting_has_an_end() -> None:
    a_node("one", draining=True)
    a_call("uuid-1")

    with pytest.raises(CommandError, match="Not done within 0 s: one: 1 live"):
        output_of("drain", "one", "--wait", "--timeout=0")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "wanted either the names of servers or --all .alive: one"),
        (["one", "--all"], "wanted either"),
        (["three"], "read three, wanted servers that are alive .alive: one"),
        (["gone"], "read gone, wanted"),
    ],
)
def test_what_is_wrong_is_told(arguments: list[str], told: str) -> None:
    a_node("one")
    a_node("gone", heard_s_ago=3600)

    with pytest.raises(CommandError, match=told):
        output_of("drain", *arguments)


def test_nobody_to_ask_is_an_error() -> None:
    with pytest.raises(CommandError, match="no server is alive"):
        output_of("drain", "--all")
