"""What the product needs around it: a clean environment and a migrated database of its own.

Migrating SQLite takes seconds, so it is done once per test process and the file is copied.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parents[2]

#: Every variable of the contract; what a test does not set is empty, so that nothing of the
#: developer's own shell or `.env` comes in.
VARIABLES = (
    "SECRET_KEY", "DEBUG", "PUBLIC_URL", "MEDIA_URL", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS",
    "TRUST_PROXY", "DATABASE_URL", "REDIS_URL", "AI_PROVIDER", "OPENAI_API_KEY", "OPENAI_BASE_URL",
    "OPENAI_REALTIME_MODEL", "OPENAI_TRANSCRIPTION_MODEL", "OPENAI_SUMMARY_MODEL",
    "SPEECHMATICS_API_KEY", "SPEECHMATICS_TTS_URL", "VONAGE_API_KEY", "VONAGE_APPLICATION_ID",
    "VONAGE_PRIVATE_KEY", "VONAGE_SIGNATURE_SECRET", "VONAGE_API_URL", "VONAGE_MEDIA_RATE",
    "VONAGE_MEDIA_AUTH", "VONAGE_CONNECTS_PER_SECOND", "MAX_CONCURRENT_CALLS",
    "CALL_MAX_SECONDS", "CALL_IDLE_SECONDS",
    "DRAIN_SECONDS", "HEARTBEAT_SECONDS", "LOST_SECONDS", "HEALTH_TOKEN", "LOG_FORMAT",
    "STATIC_ROOT", "MEDIA_ROOT", "NODE_NAME", "PREPARE_AUDIO",
)  # fmt: skip


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now.

    Not one of those that the system gives to whoever asks for any: between our looking and the
    server's listening it would go to somebody else.
    """
    for _ in range(100):
        port = 12_000 + secrets.randbelow(18_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 12000 and 30000")


def clean_environment(directory: Path, values: Mapping[str, str]) -> dict[str, str]:
    """A whole environment: the contract's variables with these values, and what a process needs."""
    return {
        **dict.fromkeys(VARIABLES, ""),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "DEBUG": "0",
        "SECRET_KEY": "tests-only-" + "0123456789abcdef" * 3,
        "MEDIA_ROOT": str(directory / "media"),
        # A test that counts sessions and requests wants to see those of its calls only.
        "PREPARE_AUDIO": "0",
        # Tests ring dozens of times in an instant; those of the pacing set what Vonage has.
        "VONAGE_CONNECTS_PER_SECOND": "0",
        **values,
    }


def manage(
    env: Mapping[str, str], *arguments: str, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Runs `manage.py` and returns its exit code and output."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env=dict(env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def must_manage(env: Mapping[str, str], *arguments: str) -> str:
    """Runs `manage.py` and returns its standard output; raises with its words if it fails."""
    done = manage(env, *arguments)
    if done.returncode:
        command = f"manage.py {' '.join(arguments)}"
        raise RuntimeError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@lru_cache(maxsize=1)
def template() -> Path:
    """A directory with a migrated `db.sqlite3` and collected `static`, kept until the process ends.

    The environment it is made with has made-up credentials: nothing of them goes into either.
    """
    directory = Path(tempfile.mkdtemp(prefix="callcenter-template-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    env = clean_environment(
        directory,
        {
            "DATABASE_URL": sqlite_url(directory / "db.sqlite3"),
            "STATIC_ROOT": str(directory / "static"),
            "AI_PROVIDER": "sandbox",
        },
    )
    must_manage(env, "migrate", "--no-input", "-v", "0")
    must_manage(env, "collectstatic", "--no-input", "-v", "0")
    return directory


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def copy_of_template(directory: Path) -> str:
    """The DATABASE_URL of a migrated SQLite file of its own in this directory."""
    for name in ("db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"):
        if (template() / name).exists():
            shutil.copy(template() / name, directory / name)
    return sqlite_url(directory / "db.sqlite3")


@contextmanager
def postgres_database(server_url: str) -> Iterator[str]:
    """A new, empty database on that PostgreSQL, by its URL; dropped on leaving, whoever uses it."""
    import psycopg  # only when a test names a PostgreSQL

    name = f"callcenter_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True, connect_timeout=5) as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
