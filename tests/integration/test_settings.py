"""Wrong settings: no server starts on them, all of them are told at once, and no secret is."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes import product
from tests.fakes.server import ServerKind
from tests.fakes.signing import Credentials

GOOD_KEY = "sk-a-key-that-nobody-may-read-4711"


def production(directory: Path) -> dict[str, str]:
    """A whole environment in which everything is right."""
    account = Credentials.generate()
    return product.clean_environment(
        directory,
        {
            "DATABASE_URL": product.sqlite_url(directory / "db.sqlite3"),
            "PUBLIC_URL": "https://calls.example.com",
            "TRUST_PROXY": "1",
            "OPENAI_API_KEY": GOOD_KEY,
            "VONAGE_API_KEY": account.api_key,
            "VONAGE_APPLICATION_ID": account.application_id,
            "VONAGE_SIGNATURE_SECRET": account.signature_secret,
            "VONAGE_PRIVATE_KEY": account.private_key_pem,
            "STATIC_ROOT": str(directory / "static"),
        },
    )


def started(kind: ServerKind, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A server that is expected to give up by itself."""
    return subprocess.run(
        kind.command(product.free_port()),
        env=dict(env),
        cwd=product.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


#: name -> (value, what the message must repeat of it; None: it is secret and must not)
WRONG: dict[str, tuple[str, str | None]] = {
    "SECRET_KEY": ("tooshort-S3CR3T", None),
    "DEBUG": ("perhaps", "perhaps"),
    "PUBLIC_URL": ("calls.example.com", "calls.example.com"),
    "MEDIA_URL": ("ftp://node-7.example.com", "ftp://node-7.example.com"),
    "CSRF_TRUSTED_ORIGINS": ("calls.example.com", "calls.example.com"),
    "TRUST_PROXY": ("on and off", "on and off"),
    "DATABASE_URL": ("mysql://root:S3CR3T@db/calls", None),
    "REDIS_URL": ("http://redis.example.com", "http://redis.example.com"),
    "AI_PROVIDER": ("oracle", "oracle"),
    "OPENAI_BASE_URL": ("api.openai.com", "api.openai.com"),
    "SPEECHMATICS_TTS_URL": ("ws://tts.example.com", "ws://tts.example.com"),
    "VONAGE_API_KEY": ("", None),
    "VONAGE_APPLICATION_ID": ("", None),
    "VONAGE_PRIVATE_KEY": ("-----BEGIN PRIVATE KEY-----\nS3CR3T\n-----END PRIVATE KEY-----", None),
    "VONAGE_SIGNATURE_SECRET": ("", None),
    "VONAGE_API_URL": ("api.nexmo.com", "api.nexmo.com"),
    "VONAGE_MEDIA_RATE": ("44100", "44100"),
    "VONAGE_MEDIA_AUTH": ("sometimes", "sometimes"),
    "MAX_CONCURRENT_CALLS": ("many", "many"),
    "CALL_MAX_SECONDS": ("0", "0"),
    "CALL_IDLE_SECONDS": ("-5", "-5"),
    "DRAIN_SECONDS": ("soon", "soon"),
    "HEARTBEAT_SECONDS": ("nan", "nan"),
    "LOST_SECONDS": ("inf", "inf"),
    "LOG_FORMAT": ("xml", "xml"),
}


def told(text: str, name: str) -> str:
    """The line about one setting: what was read and what is wanted."""
    lines = [line for line in text.splitlines() if f"{name}:" in line]
    assert len(lines) == 1, (name, text)
    assert "read " in lines[0] and "wanted " in lines[0], lines[0]
    return lines[0]


@pytest.mark.parametrize("kind", ServerKind)
def test_a_server_does_not_start_and_tells_every_mistake(kind: ServerKind, tmp_path: Path) -> None:
    env = production(tmp_path) | {name: value for name, (value, _) in WRONG.items()}

    ended = started(kind, env)

    assert ended.returncode not in (0, None)
    said = ended.stdout + ended.stderr
    for name, (_, repeated) in WRONG.items():
        line = told(said, name)
        if repeated is not None:
            assert repeated in line, line
    for secret in ("S3CR3T", "tooshort", GOOD_KEY):
        assert secret not in said
    assert "Traceback" not in said, said[-1500:]


@pytest.mark.parametrize("missing", ["SECRET_KEY", "OPENAI_API_KEY"])
def test_a_server_makes_up_no_secret_and_nobody_to_answer(missing: str, tmp_path: Path) -> None:
    """Not even where `make run` has been, which makes up both for itself and for `manage.py`."""
    ended = started(ServerKind.CALLCENTER, production(tmp_path) | {missing: ""})

    assert ended.returncode not in (0, None)
    assert missing in ended.stderr and "wanted" in ended.stderr


def test_manage_py_check_tells_every_mistake_too(tmp_path: Path) -> None:
    env = production(tmp_path) | {name: value for name, (value, _) in WRONG.items()}

    for command in (("check",), ("sessions",), ("migrate",)):
        ended = product.manage(env, *command)
        assert ended.returncode != 0, command
        for name in WRONG:
            told(ended.stdout + ended.stderr, name)
        for secret in ("S3CR3T", "tooshort", GOOD_KEY):
            assert secret not in ended.stdout + ended.stderr


def test_a_right_environment_passes_every_check(tmp_path: Path) -> None:
    ended = product.manage(production(tmp_path), "check", "--deploy", "--fail-level", "WARNING")

    assert ended.returncode == 0, ended.stderr


#: Each alone is wrong, and what the message must and must not hold.
ALONE: dict[str, tuple[dict[str, str], str, str]] = {
    "openai without a key": (
        {"AI_PROVIDER": "openai", "OPENAI_API_KEY": ""}, "OPENAI_API_KEY", "",
    ),
    "no signature secret": ({"VONAGE_SIGNATURE_SECRET": " "}, "VONAGE_SIGNATURE_SECRET", ""),
    "a private key that is not there": (
        {"VONAGE_PRIVATE_KEY": "/nowhere/vonage.pem"}, "VONAGE_PRIVATE_KEY", "",
    ),
    "lost before the second heartbeat": (
        {"HEARTBEAT_SECONDS": "10", "LOST_SECONDS": "15"}, "LOST_SECONDS", "",
    ),
    "no room for anybody": ({"MAX_CONCURRENT_CALLS": "0"}, "MAX_CONCURRENT_CALLS", ""),
    "a fraction of a call": ({"MAX_CONCURRENT_CALLS": "1.5"}, "MAX_CONCURRENT_CALLS", ""),
    "a port beyond all ports": ({"PUBLIC_URL": "http://a.example:99999"}, "PUBLIC_URL", ""),
    "half an address": ({"PUBLIC_URL": "http://[::1"}, "PUBLIC_URL", ""),
    "a public address with a query": (
        {"PUBLIC_URL": "https://a.example/?token=x"}, "PUBLIC_URL", "",
    ),
    "a database without a name": (
        {"DATABASE_URL": "postgres://u:S3CR3T@h"}, "DATABASE_URL", "S3CR3T",
    ),
    "a database of nonsense": ({"DATABASE_URL": "S3CR3T"}, "DATABASE_URL", "S3CR3T"),
    "a Redis password in a wrong address": (
        {"REDIS_URL": "http://:S3CR3T@redis.example.com:6379/0"}, "REDIS_URL", "S3CR3T",
    ),
    "an OpenAI address with a login": (
        {"OPENAI_BASE_URL": "ftp://me:S3CR3T@proxy.example.com/v1"}, "OPENAI_BASE_URL", "S3CR3T",
    ),
}  # fmt: skip


def packed(cases: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """The cases in as few environments as can be, since each costs a process a second."""
    packs: list[list[str]] = []
    for name, changes in cases.items():
        for pack in packs:
            if not any(changes.keys() & cases[other].keys() for other in pack):
                pack.append(name)
                break
        else:
            packs.append([name])
    return packs


def together(cases: Mapping[str, Mapping[str, str]], names: list[str]) -> dict[str, str]:
    return {key: value for name in names for key, value in cases[name].items()}


ALONE_CHANGES = {name: changes for name, (changes, _, _) in ALONE.items()}


@pytest.mark.parametrize("names", packed(ALONE_CHANGES), ids="; ".join)
def test_each_of_these_is_a_mistake(names: list[str], tmp_path: Path) -> None:
    ended = product.manage(production(tmp_path) | together(ALONE_CHANGES, names), "check")

    said = ended.stdout + ended.stderr
    assert ended.returncode != 0, said
    assert "Traceback" not in said, said[-1500:]
    for name in names:
        _, setting, secret = ALONE[name]
        told(said, setting)
        assert not secret or secret not in said, name


#: Not in the contract's letter, but these are addresses and numbers that people really have.
RIGHT: dict[str, dict[str, str]] = {
    "no call may wait for a drain": {"DRAIN_SECONDS": "0"},
    "a key in one line": {"VONAGE_PRIVATE_KEY": "one line"},
    "a key in a file": {"VONAGE_PRIVATE_KEY": "a file"},
    "a slash behind the address": {"PUBLIC_URL": "https://calls.example.com/"},
    "sockets of another process": {"MEDIA_URL": "wss://node-7.example.com:8443"},
    "a Redis with a password": {"REDIS_URL": "rediss://:S3CR3T@redis.example.com:6380/1"},
    "a Redis with an option": {"REDIS_URL": "rediss://:S3CR3T@r.example.com/0?ssl_cert_reqs=none"},
    "a Redis in a file": {"REDIS_URL": "unix:///run/redis/redis.sock"},
    "PostgreSQL with an option": {"DATABASE_URL": "postgres://u:S3CR3T@h/calls?sslmode=require"},
    "PostgreSQL by its long name": {"DATABASE_URL": "postgresql://u:S3CR3T@h:5432/calls"},
    "spaces around": {"MAX_CONCURRENT_CALLS": " 7 ", "AI_PROVIDER": " openai "},
}


@pytest.mark.parametrize("names", packed(RIGHT), ids="; ".join)
def test_each_of_these_is_right(names: list[str], tmp_path: Path) -> None:
    env = production(tmp_path)
    right = together(RIGHT, names)
    if right.get("VONAGE_PRIVATE_KEY") == "one line":
        right["VONAGE_PRIVATE_KEY"] = env["VONAGE_PRIVATE_KEY"].replace("\n", "\\n")
    if right.get("VONAGE_PRIVATE_KEY") == "a file":
        (tmp_path / "vonage.pem").write_text(env["VONAGE_PRIVATE_KEY"])
        right["VONAGE_PRIVATE_KEY"] = str(tmp_path / "vonage.pem")

    ended = product.manage(env | right, "check")

    assert ended.returncode == 0, ended.stderr
    assert "S3CR3T" not in ended.stdout + ended.stderr


def test_a_port_that_is_taken_is_told_and_ends_the_server(tmp_path: Path) -> None:
    env = production(tmp_path) | {"DATABASE_URL": product.copy_of_template(tmp_path)}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "callcenter.server", "-b", "127.0.0.1", "-p", port],
            env=env,
            cwd=product.ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert ended.returncode not in (0, None), ended.stderr
    assert "listen" in ended.stderr.lower() or "in use" in ended.stderr.lower()
