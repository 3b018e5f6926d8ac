"""What lies here: settings, rows, Redis, the disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.migrations.executor import MigrationExecutor
from redis import Redis, RedisError

from sessions_app.diagnosis.finding import Finding, fail, ok, warn
from sessions_app.diagnosis.jobs import JOB_OVERDUE_S, overdue_jobs
from sessions_app.models import Agent, CallRecord, Node

_REDIS_TIMEOUT_S: Final = 3.0
_DISK_LOW_MB: Final = 1000
_DISK_FULL_MB: Final = 100


def settings_are_right() -> list[Finding]:
    """Each mistake that was found when the environment was read."""
    wrong = [
        fail("settings", str(mistake), f"Set {mistake.name} in the environment or in .env.")
        for mistake in settings.SETTINGS_MISTAKES
    ]
    return wrong or [ok("settings", "every value can be used")]


def database() -> Finding:
    """Whether it answers and has today's tables."""
    connection = connections[DEFAULT_DB_ALIAS]
    name = connection.display_name
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error as error:
        seen = f"{name} does not answer ({type(error).__name__})"
        return fail("database", seen, "Start it, or mend DATABASE_URL.")
    if pending:
        seen = f"{len(pending)} migrations are not applied, the first is {pending[0][0]}"
        return fail("database", seen, "Run `manage.py migrate`.")
    return ok("database", f"{name} answers, no migration is missing")


def rows() -> list[Finding]:
    """What is configured and what servers and workers have written; needs the tables."""
    return [_agents(), _servers(), _worker(), _lost_calls()]


def _agents() -> Finding:
    if not Agent.objects.exists():
        return fail(
            "agents",
            "there is none, so every caller hears an apology",
            "Run `manage.py agent Receptionist --default`.",
        )
    default = Agent.objects.filter(is_default=True).first()
    if default is None:
        return warn(
            "agents",
            "none is the default, so callers of a number without an agent hear an apology",
            "Run `manage.py agent NAME --default`.",
        )
    return ok("agents", f"{default.name!r} answers every number that no agent was given")


def _servers() -> Finding:
    alive = list(Node.objects.alive(settings.LOST_SECONDS))
    names = ", ".join(f"{node.name}{' (draining)' if node.draining else ''}" for node in alive)
    if not alive:
        return warn("servers", "none is alive", "Start `python -m callcenter.server`.")
    if len(alive) > 1 and any(node.channel_layer == "memory" for node in alive):
        return warn(
            "servers",
            f"{names}: several, and not all use Redis",
            "Set the same REDIS_URL for every server.",
        )
    return ok("servers", f"alive: {names}")


def _worker() -> Finding:
    waiting = overdue_jobs()
    if waiting:
        return fail(
            "worker",
            f"{waiting} jobs wait for more than {JOB_OVERDUE_S} s",
            "Start `manage.py db_worker`, or one more.",
        )
    return ok("worker", "no job waits")


def _lost_calls() -> Finding:
    lost = CallRecord.objects.silent_for(settings.LOST_SECONDS).count()
    if lost:
        return warn(
            "live calls",
            f"{lost} belong to servers that are gone",
            "Run `manage.py reap_sessions`; running servers do so by themselves.",
        )
    return ok("live calls", f"{CallRecord.objects.live().count()}, each with its server")


def redis() -> Finding:
    """Whether the Redis of REDIS_URL answers."""
    if not settings.REDIS_URL:
        return ok("Redis", "not used: one server process needs none")
    client = Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
    )
    try:
        client.ping()
    except (RedisError, OSError) as error:
        seen = f"it does not answer ({type(error).__name__})"
        return fail("Redis", seen, "Start it, or mend REDIS_URL.")
    finally:
        client.close()
    return ok("Redis", "it answers")


def disk() -> Finding:
    """Whether there is room where files are written."""
    place = Path(settings.MEDIA_ROOT)
    while not place.exists():
        place = place.parent
    free_mb = shutil.disk_usage(place).free // 1_000_000
    seen = f"{free_mb} MB free"
    mend = f"Make room on the disk of {settings.MEDIA_ROOT}."
    if free_mb < _DISK_FULL_MB:
        return fail("disk", seen, mend)
    return warn("disk", seen, mend) if free_mb < _DISK_LOW_MB else ok("disk", seen)
