"""What operators run from outside: checks of a whole environment, make, the CI script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = Path(__file__).resolve().parents[3]


def production() -> dict[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return {
        "SECRET_KEY": "u7Kp0vQ2mX9sR4tY6wZ1aB3cD5eF8gH0jL2nP4qS6uW8yA1bC3",
        "PUBLIC_URL": "https://calls.example.com",
        "TRUST_PROXY": "1",
        "DATABASE_URL": "postgres://callcenter@127.0.0.1/callcenter",
        "REDIS_URL": "redis://127.0.0.1",
        "OPENAI_API_KEY": "sk-example",
        "VONAGE_API_KEY": "abcd1234",
        "VONAGE_APPLICATION_ID": "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab",
        "VONAGE_SIGNATURE_SECRET": "example-of-a-signature-secret",
        "VONAGE_PRIVATE_KEY": pem,
    }


def checked(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`manage.py check --deploy`, and nothing set but this (a developer's `.env` neither)."""
    unset = dict.fromkeys(
        (*production(), "AI_PROVIDER", "DEBUG", "MEDIA_URL", "ALLOWED_HOSTS", "HEALTH_TOKEN"), ""
    )
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={
            **os.environ,
            **unset,
            **environment,
            "DJANGO_SETTINGS_MODULE": "callcenter.settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_proper_production_environment_is_clean() -> None:
    ended = checked(production())

    assert ended.returncode == 0, ended.stderr
    assert "no issues" in ended.stdout


def test_a_wrong_one_is_told_whole_and_without_secrets() -> None:
    ended = checked(
        production() | {"SECRET_KEY": "short-secret", "VONAGE_API_KEY": "", "DRAIN_SECONDS": "x"}
    )

    assert ended.returncode == 1
    for told in ("SECRET_KEY", "VONAGE_API_KEY: read nothing", "DRAIN_SECONDS: read 'x'"):
        assert told in ended.stderr
    assert "short-secret" not in ended.stderr


# ---------------------------------------------------------------------- make

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def made(*targets: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {shutil.which('make')} {' '.join(targets)}"],
        cwd=ROOT,
        # Not the flags of the make that may have started the tests.
        env={"PATH": str(path) if path else os.environ["PATH"], "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_make
def test_make_tells_what_there_is() -> None:
    ended = made()

    assert ended.returncode == 0, ended.stderr
    for target in ("run", "test", "lint", "types", "imports", "migrations", "deploy-check"):
        assert f"  make {target} " in ended.stdout


@needs_make
def test_without_a_python_make_says_which_one_is_wanted(tmp_path: Path) -> None:
    for name in ("sh", "cat", "cksum", "cut"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))

    ended = made("VENV=no-such-venv", "no-such-venv/bin/python", path=tmp_path)

    assert ended.returncode != 0
    assert "No Python 3.11 or later with venv and pip was found" in ended.stderr
    assert "python3-venv" in ended.stderr


def test_the_ci_script_can_be_run_and_read() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=10)
