from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError
from django.utils import timezone

from sessions_app.models import CallRecord, CallState
from tests.unit.commands.rows import a_call
from tests.unit.commands.running import output_of, rows_of

pytestmark = pytest.mark.django_db


def a_lost_call(uuid: str) -> CallRecord:
    return a_call(uuid, heartbeat_at=timezone.now() - timedelta(seconds=60))


def test_calls_of_a_silent_server_are_closed_as_lost() -> None:
    a_lost_call("uuid-1")
    a_call("uuid-2")

    assert output_of("reap_sessions") == "uuid-1: lost\n1 call closed as lost.\n"

    lost = CallRecord.objects.get(uuid="uuid-1")
    assert (lost.state, lost.end_reason) == (CallState.ENDED, "lost")
    assert CallRecord.objects.live().get().uuid == "uuid-2"


def test_scripts_get_the_uuids() -> None:
    a_lost_call("uuid-1")

    assert rows_of("reap_sessions") == [{"uuid": "uuid-1"}]
    assert rows_of("reap_sessions") == []


def test_patience_has_a_lower_bound() -> None:
    a_call("uuid-1")

    with pytest.raises(CommandError, match="--lost-after: read 1, wanted at least twice"):
        output_of("reap_sessions", "--lost-after=1")
    assert output_of("reap_sessions", "--lost-after=90") == "0 calls closed as lost.\n"
