"""System checks: wrong settings are errors, doubtful ones warnings, each with an id and a hint.

Settings collect their mistakes instead of raising; `refuse_on_mistakes` is how a server tells them
all together and does not start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections

from callcenter.env import Mistake
from sessions_app.telephony.vonage.client import load_private_key

#: A setting's place decides its id (E001 is the first), so new ones go to the end.
CHECKED_SETTINGS: Final = (
    "SECRET_KEY",
    "DEBUG",
    "PUBLIC_URL",
    "MEDIA_URL",
    "CSRF_TRUSTED_ORIGINS",
    "TRUST_PROXY",
    "DATABASE_URL",
    "REDIS_URL",
    "AI_PROVIDER",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "SPEECHMATICS_TTS_URL",
    "VONAGE_API_KEY",
    "VONAGE_APPLICATION_ID",
    "VONAGE_PRIVATE_KEY",
    "VONAGE_SIGNATURE_SECRET",
    "VONAGE_API_URL",
    "VONAGE_MEDIA_RATE",
    "VONAGE_MEDIA_AUTH",
    "MAX_CONCURRENT_CALLS",
    "CALL_MAX_SECONDS",
    "CALL_IDLE_SECONDS",
    "DRAIN_SECONDS",
    "HEARTBEAT_SECONDS",
    "LOST_SECONDS",
    "LOG_FORMAT",
    "VONAGE_CONNECTS_PER_SECOND",
    "PREPARE_AUDIO",
)


def mistakes() -> list[Mistake]:
    """Every wrong setting; the private key, which settings do not open, is tried here."""
    found: list[Mistake] = list(settings.SETTINGS_MISTAKES)
    if settings.VONAGE_PRIVATE_KEY:
        try:
            load_private_key(settings.VONAGE_PRIVATE_KEY)
        except ValueError as wrong:
            read, _, wanted = str(wrong).removeprefix("read ").partition(", wanted ")
            found.append(Mistake("VONAGE_PRIVATE_KEY", read, wanted))
    return found


def refuse_on_mistakes() -> None:
    """Ends the process with status 1 and every mistake on stderr; returns if there is none."""
    found = mistakes()
    if not found:
        return
    count = "one setting is" if len(found) == 1 else f"{len(found)} settings are"
    lines = [f"This server does not start: {count} wrong.", ""]
    lines += [f"  {mistake}" for mistake in found]
    lines += ["", "Settings are read from the environment and from .env; the environment wins."]
    print("\n".join(lines), file=sys.stderr, flush=True)
    raise SystemExit(1)


@register
def settings_are_right(**_: Any) -> list[CheckMessage]:
    """One error for each mistake, so that any `manage.py` command tells all of them."""
    return [
        Error(
            str(mistake),
            hint=f"Set {mistake.name} in the environment or in .env.",
            id=_error_id(mistake.name),
        )
        for mistake in mistakes()
    ]


def _error_id(name: str) -> str:
    place = CHECKED_SETTINGS.index(name) + 1 if name in CHECKED_SETTINGS else 0
    return f"callcenter.E{place:03d}"


@register
def addresses_fit_together(**_: Any) -> list[CheckMessage]:
    """What is not wrong by itself but surprises behind a proxy."""
    found: list[CheckMessage] = []
    secure = settings.PUBLIC_URL.startswith("https:")
    if secure and not settings.TRUST_PROXY:
        found.append(
            Warning(
                "PUBLIC_URL is https, but TRUST_PROXY is 0: behind a proxy that ends TLS every "
                "page of the admin would redirect to itself for ever.",
                hint="Set TRUST_PROXY=1, unless this server itself ends TLS.",
                id="callcenter.W001",
            )
        )
    if secure and settings.MEDIA_URL_BASE.startswith(("http:", "ws:")):
        found.append(
            Warning(
                "PUBLIC_URL is https, but MEDIA_URL is not: what callers say would cross the "
                "internet in the clear.",
                hint="Set MEDIA_URL to an https or wss address.",
                id="callcenter.W002",
            )
        )
    return found


@register(deploy=True)
def ready_for_callers(**_: Any) -> list[CheckMessage]:
    """What is fine at a desk and not where people ring."""
    found: list[CheckMessage] = []
    if settings.SANDBOX:
        found.append(
            Warning(
                "AI_PROVIDER is sandbox: callers would talk to a stand-in.",
                hint="Set OPENAI_API_KEY, and AI_PROVIDER to openai or to nothing.",
                id="callcenter.W003",
            )
        )
    if _is_local(urlsplit(settings.PUBLIC_URL).hostname or ""):
        found.append(
            Warning(
                f"PUBLIC_URL is {settings.PUBLIC_URL}, which Vonage cannot reach.",
                hint="Set PUBLIC_URL to the address under which the internet sees this service.",
                id="callcenter.W004",
            )
        )
    return found


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@register(Tags.database)
def servers_reach_each_other(
    *, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Two servers whose channel layer ends at the process: runs only when databases are checked."""
    from sessions_app.models import Node

    if "default" not in (databases or ()):
        return []
    if Node._meta.db_table not in _tables():
        return []
    alive = dict(Node.objects.alive(settings.LOST_SECONDS).values_list("name", "channel_layer"))
    alone = sorted(name for name, layer in alive.items() if layer == "memory")
    if len(alive) < 2 or not alone:
        return []
    return [
        Warning(
            f"{len(alive)} servers are alive, but {', '.join(alone)} runs without Redis: what "
            "happens in one server does not reach those who watch through another.",
            hint="Set the same REDIS_URL for every server.",
            id="callcenter.W005",
        )
    ]


def _tables() -> list[str]:
    """No table when the database is away: that is for the database's own errors to tell."""
    try:
        connection = connections["default"]
        with connection.cursor() as cursor:
            return connection.introspection.table_names(cursor)
    except DatabaseError:
        return []
