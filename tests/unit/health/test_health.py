from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from django_tasks_db.models import DBTaskResult, get_date_max

from callcenter.env import Mistake
from health import probes
from sessions_app.models import CallRecord, CallState

pytestmark = pytest.mark.django_db


class GoodMirror:
    trouble = ""

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        return await sync_to_async(ask)()


class AwayMirror:
    trouble = ""

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        raise OperationalError("could not connect to somebody@secret.example")


class HangingMirror:
    trouble = ""

    async def query(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        await asyncio.Event().wait()


@dataclass
class Told:
    """Something that has figures of its own."""

    told: dict[str, object]

    def figures(self) -> dict[str, object]:
        return self.told


@dataclass
class FakeManager:
    uuids: list[str] = field(default_factory=list)
    capacity: int = 100
    draining: bool = False
    node: str = "test-node"
    provider_trouble: str = ""
    mirror: Any = field(default_factory=GoodMirror)
    short_of_descriptors: bool = False
    descriptors: Told = field(default_factory=lambda: Told({"fds": 7}))
    loop_watch: Told = field(default_factory=lambda: Told({"stalls": 0}))
    reconciler: Told = field(default_factory=lambda: Told({"asked": 3}))

    def get_active_session_count(self) -> int:
        return len(self.uuids)

    def get_all_session_uuids(self) -> list[str]:
        return self.uuids


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    fake = FakeManager()
    monkeypatch.setattr("health.views.get_manager", lambda: fake)
    # How fast this machine is decides nothing here; the real bounds are tried on a real server.
    monkeypatch.setattr("health.probes.DATABASE_TIMEOUT_S", 20.0)
    monkeypatch.setattr("health.probes.LAYER_TIMEOUT_S", 20.0)
    return fake


def a_call(uuid: str, *, node: str = "test-node", ended: bool = False) -> CallRecord:
    now = timezone.now()
    end = {"state": CallState.ENDED, "ended_at": now, "end_reason": "caller_hung_up"}
    return CallRecord.objects.create(
        uuid=uuid, node=node, ringing_at=now, heartbeat_at=now, **(end if ended else {})
    )


def a_job(**fields: Any) -> DBTaskResult:
    at = fields.pop("enqueued_at", timezone.now())
    values = {
        "args_kwargs": {"args": [], "kwargs": {}},
        "task_path": "sessions_app.tasks.nothing",
        "backend_name": "default",
        "run_after": get_date_max(),
    }
    job = DBTaskResult.objects.create(**values | fields)
    DBTaskResult.objects.filter(pk=job.pk).update(enqueued_at=at)
    return job


def test_a_process_that_has_all_it_needs_is_ok(client: Client, manager: FakeManager) -> None:
    answer = client.get("/api/health")

    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert body["reasons"] == []
    assert body["node"] == "test-node"
    assert body["version"]
    assert body["sessions"] == {"active_count": 0, "uuids": [], "capacity": 100}
    assert {name: check["ok"] for name, check in body["checks"].items()} == {
        "database": True,
        "channel_layer": True,
        "provider": True,
        "worker": True,
    }
    assert body["checks"]["database"]["ms"] >= 0
    assert body["checks"]["channel_layer"]["kind"] == "memory"
    assert body["checks"]["provider"]["kind"] == "sandbox"


def test_no_answer_may_be_kept(client: Client, manager: FakeManager) -> None:
    assert client.get("/api/health")["Cache-Control"] == "no-store"
    assert client.get("/api/health/live")["Cache-Control"] == "no-store"


@pytest.mark.parametrize("address", ["/api/health", "/api/health/live"])
def test_it_is_only_read(client: Client, manager: FakeManager, address: str) -> None:
    assert client.head(address).status_code == 200
    assert client.post(address).status_code == 405
    assert client.get(f"{address}/").status_code == 404


def test_sessions_are_the_fleets_live_rows(client: Client, manager: FakeManager) -> None:
    manager.uuids = ["mine"]
    a_call("mine")
    a_call("theirs", node="other")
    a_call("over", ended=True)

    sessions = client.get("/api/health").json()["sessions"]

    assert sessions == {"active_count": 2, "uuids": ["mine", "theirs"], "capacity": 100}


def test_node_self_tells_this_process_from_memory(client: Client, manager: FakeManager) -> None:
    manager.uuids = ["mine"]
    a_call("theirs", node="other")

    sessions = client.get("/api/health?node=self").json()["sessions"]

    assert sessions == {"active_count": 1, "uuids": ["mine"], "capacity": 100}


@pytest.mark.parametrize("mirror", [AwayMirror(), HangingMirror()])
def test_without_its_database_a_process_still_takes_calls(
    client: Client, manager: FakeManager, monkeypatch: pytest.MonkeyPatch, mirror: Any
) -> None:
    monkeypatch.setattr("health.probes.DATABASE_TIMEOUT_S", 0.05)
    manager.mirror = mirror
    manager.uuids = ["mine"]

    answer = client.get("/api/health")

    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "degraded"
    assert body["reasons"] == ["database away"]
    assert body["sessions"]["active_count"] == 1
    assert body["sessions"]["uuids"] == ["mine"]
    assert "this process" in body["sessions"]["note"]
    assert body["checks"]["database"]["ok"] is False
    assert body["checks"]["database"]["ms"] < 10_000
    assert body["checks"]["worker"]["ok"] is False
    assert "secret" not in answer.content.decode()


def test_probes_together_take_less_than_a_second() -> None:
    assert max(probes.DATABASE_TIMEOUT_S, probes.LAYER_TIMEOUT_S) < 0.8  # they run at once


def test_a_full_process_is_degraded_and_says_so(client: Client, manager: FakeManager) -> None:
    manager.uuids, manager.capacity = ["a", "b"], 2

    answer = client.get("/api/health")

    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["reasons"] == ["full"]


def test_a_provider_that_is_away_degrades(client: Client, manager: FakeManager) -> None:
    manager.provider_trouble = "handshake refused with 503"

    body = client.get("/api/health").json()

    assert body["status"] == "degraded"
    assert body["reasons"] == ["provider away"]
    assert body["checks"]["provider"] == {
        "ok": False,
        "kind": "sandbox",
        "error": "handshake refused with 503",
    }


def test_a_draining_process_is_to_be_avoided(client: Client, manager: FakeManager) -> None:
    manager.draining = True
    manager.mirror = AwayMirror()

    answer = client.get("/api/health")

    assert answer.status_code == 503
    assert answer.json()["status"] == "draining"
    assert client.get("/api/health/live").status_code == 200


def test_a_process_with_wrong_settings_cannot_serve_webhooks(
    client: Client, manager: FakeManager, settings: Any
) -> None:
    settings.SETTINGS_MISTAKES = [Mistake("VONAGE_SIGNATURE_SECRET", "nothing", "a secret")]

    answer = client.get("/api/health")

    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["reasons"] == ["settings are wrong"]


def test_a_layer_that_swallows_messages_is_away(
    client: Client, manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(channel: str, message: dict[str, Any]) -> None:
        return None

    monkeypatch.setattr("health.probes.LAYER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(get_channel_layer(), "send", swallow)

    body = client.get("/api/health").json()

    assert body["status"] == "degraded"
    assert body["reasons"] == ["channel layer away"]
    assert body["checks"]["channel_layer"]["error"] == "TimeoutError"


def test_probing_the_layer_leaves_nothing_in_it(client: Client, manager: FakeManager) -> None:
    client.get("/api/health")

    layer: Any = get_channel_layer()
    assert not [name for name in layer.channels if name.startswith("health.")]


@pytest.mark.parametrize(
    "job",
    [
        {"enqueued_at": timezone.now() - timedelta(seconds=90)},
        {"run_after": timezone.now() - timedelta(seconds=90)},
    ],
)
def test_jobs_that_nobody_takes_degrade(
    client: Client, manager: FakeManager, job: dict[str, Any]
) -> None:
    a_job(**job)

    body = client.get("/api/health").json()

    assert body["status"] == "degraded"
    assert body["reasons"] == ["worker away"]
    assert body["checks"]["worker"] == {"ok": False, "waiting": 1}


@pytest.mark.parametrize(
    "ages",
    [
        {},
        {"run_after": timedelta(days=-1), "enqueued_at": timedelta(days=1)},
        {"run_after": timedelta(seconds=5), "enqueued_at": timedelta(days=1)},
        {"status": "RUNNING", "enqueued_at": timedelta(hours=1)},
    ],
    ids=["just enqueued", "due tomorrow", "due just now", "being run"],
)
def test_jobs_in_their_time_are_nobodys_fault(
    client: Client, manager: FakeManager, ages: dict[str, Any]
) -> None:
    """Ages are taken when the test runs, which may be long after it was collected."""
    now = timezone.now()
    job = {
        name: now - value if isinstance(value, timedelta) else value for name, value in ages.items()
    }
    a_job(**job)

    assert client.get("/api/health").json()["status"] == "ok"


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer", "Basic token-ü", "Bearer ü"])
def test_with_a_token_strangers_see_counts_and_nothing_else(
    client: Client, manager: FakeManager, settings: Any, header: str
) -> None:
    settings.HEALTH_TOKEN = "token"
    manager.provider_trouble = "refused"
    a_call("secret-uuid")

    answer = client.get("/api/health", headers={"Authorization": header} if header else {})

    body = answer.json()
    assert body["status"] == "degraded"
    assert body["sessions"] == {"active_count": 1, "capacity": 100}
    assert body["checks"]["provider"] == {"ok": False}
    assert "secret-uuid" not in answer.content.decode()


def test_with_its_token_a_monitor_sees_everything(
    client: Client, manager: FakeManager, settings: Any
) -> None:
    settings.HEALTH_TOKEN = "token"
    a_call("uuid-1")

    body = client.get("/api/health", headers={"Authorization": "Bearer token"}).json()

    assert body["sessions"]["uuids"] == ["uuid-1"]
    assert "ms" in body["checks"]["database"]


def test_figures_of_the_process_are_details(
    client: Client, manager: FakeManager, settings: Any
) -> None:
    told = {"process": {"fds": 7}, "event_loop": {"stalls": 0}, "reconciliation": {"asked": 3}}
    assert told.items() <= client.get("/api/health?node=self").json().items()
    settings.HEALTH_TOKEN = "s3cret"
    assert not told.keys() & client.get("/api/health").json().keys()


def test_rows_that_cannot_be_written_degrade_though_they_can_be_read(
    client: Client, manager: FakeManager
) -> None:
    manager.mirror.trouble = "database or disk is full"
    body = client.get("/api/health").json()
    assert (body["status"], body["reasons"]) == ("degraded", ["rows cannot be written"])


def test_a_process_that_is_short_of_descriptors_is_degraded(
    client: Client, manager: FakeManager
) -> None:
    manager.short_of_descriptors = True
    answer = client.get("/api/health")
    assert answer.status_code == 200
    assert answer.json()["reasons"] == ["few descriptors left"]
