from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone
from django_tasks_db.models import DBTaskResult, get_date_max

from callcenter.env import Mistake
from sessions_app.diagnosis import examination, local
from sessions_app.diagnosis.finding import Finding, Level
from sessions_app.diagnosis.web import Web
from sessions_app.models import Agent
from tests.unit.commands.rows import a_call, a_node

# ---------------------------------------------------------------------- what lies here


def test_wrong_settings_are_failures(settings: Any) -> None:
    assert [it.level for it in local.settings_are_right()] == [Level.OK]

    settings.SETTINGS_MISTAKES = [Mistake("SECRET_KEY", "nothing", "a long random text")]

    (found,) = local.settings_are_right()
    assert found.level is Level.FAIL
    assert "SECRET_KEY" in found.seen and "SECRET_KEY" in found.mend


@pytest.mark.django_db
class TestRows:
    def test_a_database_with_all_tables_is_good(self) -> None:
        assert local.database().level is Level.OK

    def test_missing_migrations_fail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Behind(local.MigrationExecutor):
            def migration_plan(self, targets: Any, clean_start: bool = False) -> Any:
                return super().migration_plan(targets, clean_start=True)

        monkeypatch.setattr(local, "MigrationExecutor", Behind)

        found = local.database()

        assert found.level is Level.FAIL
        assert "migrate" in found.mend

    def test_a_database_that_is_away_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(connection: object) -> None:
            raise OperationalError("connection to secret.example refused")

        monkeypatch.setattr(local, "MigrationExecutor", away)

        found = local.database()

        assert found.level is Level.FAIL
        assert "secret" not in found.seen

    def test_a_fresh_installation_only_lacks_a_server(self) -> None:
        found = {it.what: it.level.value for it in local.rows()}

        assert found == {"agents": "ok", "servers": "warn", "worker": "ok", "live calls": "ok"}

    def test_a_server_that_is_alive_is_named(self) -> None:
        a_node("one", draining=True)
        a_node("gone", heard_s_ago=3600)

        (found,) = (it for it in local.rows() if it.what == "servers")

        assert found == Finding("servers", Level.OK, "alive: one (draining)")

    def test_several_servers_need_redis(self) -> None:
        a_node("one")
        a_node("two", channel_layer="redis")

        (found,) = (it for it in local.rows() if it.what == "servers")

        assert found.level is Level.WARN

    def test_nobody_who_answers_fails(self) -> None:
        Agent.objects.update(is_default=False)
        assert local.rows()[0].level is Level.WARN

        Agent.objects.all().delete()
        assert local.rows()[0].level is Level.FAIL

    def test_jobs_that_wait_fail(self) -> None:
        job = DBTaskResult.objects.create(
            args_kwargs={}, task_path="x", backend_name="default", run_after=get_date_max()
        )
        DBTaskResult.objects.filter(pk=job.pk).update(
            enqueued_at=timezone.now() - timedelta(minutes=5)
        )

        (found,) = (it for it in local.rows() if it.what == "worker")

        assert found.level is Level.FAIL
        assert "db_worker" in found.mend

    def test_calls_of_a_lost_server_are_doubtful(self) -> None:
        a_call("uuid-1", heartbeat_at=timezone.now() - timedelta(minutes=5))

        (found,) = (it for it in local.rows() if it.what == "live calls")

        assert found.level is Level.WARN
        assert "reap_sessions" in found.mend


def test_redis_that_nobody_runs_fails_within_its_bound(settings: Any) -> None:
    assert local.redis().level is Level.OK

    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert local.redis().level is Level.FAIL


@pytest.mark.parametrize(("free_mb", "level"), [(50, "fail"), (500, "warn"), (5000, "ok")])
def test_room_on_the_disk(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_mb: int, level: str
) -> None:
    class Usage:
        free = free_mb * 1_000_000

    settings.MEDIA_ROOT = tmp_path / "not" / "made yet"
    monkeypatch.setattr("sessions_app.diagnosis.local.shutil.disk_usage", lambda place: Usage)

    assert local.disk().level == level


# ---------------------------------------------------------------------- the command


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401 if "webhooks" in request.url.path else 200)

    monkeypatch.setattr(examination, "Web", lambda: Web(httpx.MockTransport(answer)))


@pytest.mark.django_db
def test_where_nothing_fails_it_succeeds_and_tells_each_finding(answers: None) -> None:
    out = StringIO()

    call_command("doctor", stdout=out, no_color=True)

    lines = out.getvalue().splitlines()
    assert "ok    settings: every value can be used" in lines
    assert "warn  servers: none is alive" in lines
    assert "      → Start `python -m callcenter.server`." in lines
    assert any(line.startswith("ok    webhooks") for line in lines)


@pytest.mark.django_db
def test_it_explains_wrong_settings_instead_of_refusing(answers: None, settings: Any) -> None:
    settings.SETTINGS_MISTAKES = [Mistake("SECRET_KEY", "nothing", "a long random text")]
    out = StringIO()

    with pytest.raises(CommandError, match=r"1 of .* failures"):
        call_command("doctor", "--json", stdout=out)

    first = json.loads(out.getvalue())[0]
    assert first == {
        "what": "settings",
        "level": "fail",
        "seen": "SECRET_KEY: read nothing, wanted a long random text",
        "mend": "Set SECRET_KEY in the environment or in .env.",
    }
