from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from callcenter import desk, run
from sessions_app.models import Agent, PhoneNumber

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nobody set anything, put back afterwards."""
    for name in ("SECRET_KEY", "AI_PROVIDER", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")
    return monkeypatch


# ---------------------------------------------------------------------- what is filled in


def test_without_a_setting_there_is_a_kept_secret_and_the_sandbox(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk.fill_in(tmp_path)
    first = os.environ["SECRET_KEY"]
    assert len(first) >= 50
    assert os.environ["AI_PROVIDER"] == "sandbox"
    assert stat.S_IMODE((tmp_path / "var" / "secret_key").stat().st_mode) == 0o600

    clean.setenv("SECRET_KEY", "")
    desk.fill_in(tmp_path)
    assert os.environ["SECRET_KEY"] == first


def test_a_secret_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "secret_key"
    file.touch()

    made = desk.kept_secret(file)

    assert made and desk.kept_secret(file) == made


@pytest.mark.parametrize("where", ["environment", "file"])
def test_what_was_set_stays(clean: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    if where == "environment":
        clean.setenv("SECRET_KEY", "mine")
        clean.setenv("AI_PROVIDER", "openai")
    else:
        for name in ("SECRET_KEY", "AI_PROVIDER"):
            clean.delenv(name)
        (tmp_path / ".env").write_text("SECRET_KEY=mine\nAI_PROVIDER=openai\n")

    desk.fill_in(tmp_path)

    assert not (tmp_path / "var").exists()
    assert os.environ.get("AI_PROVIDER") == ("openai" if where == "environment" else None)


def test_a_key_is_enough_to_leave_the_sandbox(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setenv("OPENAI_API_KEY", "sk-mine")

    desk.fill_in(tmp_path)

    assert os.environ["AI_PROVIDER"] == ""


def test_commands_follow_only_where_it_has_run(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    desk.fill_in_as_before(tmp_path)
    assert os.environ["SECRET_KEY"] == ""

    made = desk.kept_secret(tmp_path / "var" / "secret_key")
    desk.fill_in_as_before(tmp_path)
    assert os.environ["SECRET_KEY"] == made


# ---------------------------------------------------------------------- where it listens


@pytest.mark.parametrize(
    ("public_url", "port"),
    [
        ("http://127.0.0.1:5004", 5004),
        ("http://localhost:5010", 5010),
        ("http://localhost", 5004),
        ("https://calls.example.com", 5004),
        ("https://calls.example.com:8443", 5004),
    ],
)
def test_the_port_is_that_of_an_address_of_this_machine(public_url: str, port: int) -> None:
    assert run.local_port(public_url) == port


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run.port_trouble(port).startswith(f"Port {port} of 127.0.0.1 cannot be used: ")
    assert run.port_trouble(port) == ""


# ---------------------------------------------------------------------- what is prepared


@pytest.mark.django_db
def test_the_admin_is_made_once_and_can_log_in(client: Any) -> None:
    password = run.make_admin()

    assert client.login(username="admin", password=password)
    assert User.objects.get().is_superuser
    assert run.make_admin() == ""


@pytest.mark.django_db
def test_whoever_is_there_already_is_left_alone() -> None:
    User.objects.create_user("admin", password="theirs")

    assert run.make_admin() == ""
    assert User.objects.get().check_password("theirs")


@pytest.mark.django_db
def test_there_is_a_number_to_ring_unless_there_is_one() -> None:
    run.make_demo_number()
    number = PhoneNumber.objects.get()
    number.full_clean()
    assert number.agent.is_default

    number.number = "442079460999"
    number.save()
    run.make_demo_number()
    assert PhoneNumber.objects.get().number == "442079460999"


@pytest.mark.django_db
def test_without_a_default_agent_there_is_nobody_to_answer_it() -> None:
    Agent.objects.update(is_default=False)

    run.make_demo_number()

    assert not PhoneNumber.objects.exists()


def test_the_box_tells_the_address_and_the_password_only_when_it_is_new() -> None:
    told = run.welcome("http://127.0.0.1:5004/admin/", "once-only")

    lines = told.strip().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "Open http://127.0.0.1:5004/admin/" in told
    assert "User: admin   Password: once-only" in told
    assert "Password" not in run.welcome("http://127.0.0.1:5004/admin/", "")


def test_the_server_ends_before_the_worker_that_its_calls_need() -> None:
    server, worker = run.programs(5010)

    assert server.command[-4:] == ["-b", "127.0.0.1", "-p", "5010"]
    assert "db_worker" in worker.command


# ---------------------------------------------------------------------- the whole


def started(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callcenter.run"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "callcenter.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_refuses_wrong_settings_and_tells_all_of_them() -> None:
    ended = started(PUBLIC_URL="nonsense", LOST_SECONDS="soon")

    assert ended.returncode == 1
    assert "2 settings are wrong" in ended.stderr
    assert "PUBLIC_URL: read 'nonsense'" in ended.stderr
    assert "LOST_SECONDS: read 'soon'" in ended.stderr


def test_it_refuses_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = started(PUBLIC_URL=f"http://127.0.0.1:{port}")

    assert ended.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in ended.stderr


def test_it_refuses_a_database_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]

    ended = started(
        PUBLIC_URL=f"http://127.0.0.1:{free}",
        DATABASE_URL="sqlite:////no/such/folder/db.sqlite3",
    )

    assert ended.returncode == 1
    assert "The database cannot be used: " in ended.stderr
