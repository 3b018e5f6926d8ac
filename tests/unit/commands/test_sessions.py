from __future__ import annotations

import pytest

from sessions_app.models import CallState
from tests.unit.commands.rows import a_call, end
from tests.unit.commands.running import output_of, rows_of

pytestmark = pytest.mark.django_db


def test_it_lists_the_live_calls_of_every_server() -> None:
    a_call("uuid-1", node="one")
    a_call("uuid-2", node="two", state=CallState.RINGING, caller="")
    end(a_call("over"))

    first, second = rows_of("sessions")

    assert (first["uuid"], first["state"], first["node"]) == ("uuid-1", "live", "one")
    assert first["agent"] == "Receptionist"
    assert 89 <= first["age_s"] <= 150
    assert (second["uuid"], second["state"], second["caller"]) == ("uuid-2", "ringing", "withheld")


def test_one_server_can_be_asked_for() -> None:
    a_call("uuid-1", node="one")
    a_call("uuid-2", node="two")

    assert [row["uuid"] for row in rows_of("sessions", "--node=two")] == ["uuid-2"]


def test_no_number_is_shown_in_full() -> None:
    a_call("uuid-1")

    for printed in (output_of("sessions"), output_of("sessions", "--json")):
        assert "447700900123" not in printed
        assert "123" in printed


def test_the_table_has_a_heading_and_a_line_for_each_call() -> None:
    a_call("uuid-1")

    heading, line = output_of("sessions").splitlines()

    assert heading.split() == ["uuid", "state", "node", "agent", "caller", "age_s"]
    assert line.startswith("uuid-1  live   one")


def test_silence_is_said() -> None:
    assert output_of("sessions") == "No live calls.\n"
    assert rows_of("sessions") == []
