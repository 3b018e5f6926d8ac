"""All settings, read from the environment and `.env` once.

Mistakes are collected in `SETTINGS_MISTAKES`, never raised here: servers refuse to start on them,
`manage.py` commands report them through the system checks, `doctor` explains them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from csp.constants import NONE, SELF
from redis.asyncio.connection import parse_url

from callcenter import __version__
from callcenter.desk import kept_secret
from callcenter.env import Env, Mistake

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env.load(BASE_DIR / ".env")

VERSION = __version__
DEBUG = env.flag("DEBUG")

# ------------------------------------------------------------------ addresses
PUBLIC_URL = env.url("PUBLIC_URL", "http://127.0.0.1:5004")
MEDIA_URL_BASE = env.url("MEDIA_URL", PUBLIC_URL, ("http", "https", "ws", "wss"))
TRUST_PROXY = env.flag("TRUST_PROXY")
_public = urlsplit(PUBLIC_URL)
_media = urlsplit(MEDIA_URL_BASE)
_https = _public.scheme == "https"
_local_hosts = ["127.0.0.1", "localhost"]
ALLOWED_HOSTS = env.names(
    "ALLOWED_HOSTS",
    list(dict.fromkeys([str(_public.hostname), str(_media.hostname), *_local_hosts])),
)
CSRF_TRUSTED_ORIGINS = env.names("CSRF_TRUSTED_ORIGINS", [f"{_public.scheme}://{_public.netloc}"])
for _origin in CSRF_TRUSTED_ORIGINS:
    if "://" not in _origin:
        env.wrong("CSRF_TRUSTED_ORIGINS", "origins with their scheme, as https://example.com")

# ------------------------------------------------------------------ who answers
AI_PROVIDER = env.choice(
    "AI_PROVIDER",
    "openai" if env.text("OPENAI_API_KEY") else "sandbox" if DEBUG else "unset",
    ("openai", "sandbox", "unset"),
)
SANDBOX = AI_PROVIDER == "sandbox"
if AI_PROVIDER == "unset":
    env.mistakes.append(
        Mistake("AI_PROVIDER", "nothing", "an OPENAI_API_KEY, or AI_PROVIDER=sandbox to try it out")
    )
OPENAI_API_KEY = env.text("OPENAI_API_KEY")
if AI_PROVIDER == "openai" and not OPENAI_API_KEY:
    env.wrong("OPENAI_API_KEY", "a key, because AI_PROVIDER is openai", secret=True)
OPENAI_BASE_URL = env.url("OPENAI_BASE_URL", "https://api.openai.com/v1")
OPENAI_REALTIME_MODEL = env.text("OPENAI_REALTIME_MODEL", "gpt-realtime-2.1")
OPENAI_TRANSCRIPTION_MODEL = env.text("OPENAI_TRANSCRIPTION_MODEL", "gpt-transcribe")
OPENAI_SUMMARY_MODEL = env.text("OPENAI_SUMMARY_MODEL", "gpt-6-luna")
SPEECHMATICS_API_KEY = env.text("SPEECHMATICS_API_KEY")
SPEECHMATICS_TTS_URL = env.url(
    "SPEECHMATICS_TTS_URL", "https://preview.tts.speechmatics.com/generate"
)

# ------------------------------------------------------------------ secrets
_made_up_secrets = DEBUG or SANDBOX
SECRET_KEY = env.text("SECRET_KEY")
if not SECRET_KEY:
    if DEBUG:
        SECRET_KEY = kept_secret(BASE_DIR / "var" / "secret_key")
    else:
        env.wrong("SECRET_KEY", "a long random text, because DEBUG is 0", secret=True)
        # Django imports nothing without one; a process with mistakes serves nothing with it.
        SECRET_KEY = secrets.token_urlsafe(48)
elif not DEBUG and len(SECRET_KEY) < 32:
    env.wrong("SECRET_KEY", "at least 32 characters", secret=True)


def _vonage(name: str, made_up: str) -> str:
    """A Vonage credential; without one the sandbox has its own, made from `SECRET_KEY`."""
    value = env.text(name)
    if value:
        return value
    if _made_up_secrets:
        return made_up
    env.wrong(name, "the value from the Vonage dashboard, because DEBUG is 0", secret=True)
    return ""


def _derived(label: str) -> str:
    return hashlib.sha256(f"{label}:{SECRET_KEY}".encode()).hexdigest()


VONAGE_API_KEY = _vonage("VONAGE_API_KEY", "sandbox0")
VONAGE_APPLICATION_ID = _vonage("VONAGE_APPLICATION_ID", "00000000-0000-4000-8000-000000000000")
VONAGE_SIGNATURE_SECRET = _vonage("VONAGE_SIGNATURE_SECRET", _derived("vonage signature"))
#: PEM text or a path; empty: made up for the sandbox when it is first needed.
VONAGE_PRIVATE_KEY = _vonage("VONAGE_PRIVATE_KEY", "")
VONAGE_API_URL = env.url("VONAGE_API_URL", "https://api.nexmo.com")
VONAGE_MEDIA_RATE = int(env.choice("VONAGE_MEDIA_RATE", "16000", ("8000", "16000", "24000")))
VONAGE_MEDIA_AUTH = env.choice("VONAGE_MEDIA_AUTH", "optional", ("optional", "required"))
#: Of the account, for all processes together; 0: no limit.
VONAGE_CONNECTS_PER_SECOND = env.whole("VONAGE_CONNECTS_PER_SECOND", 3, least=0, most=1000)

# ------------------------------------------------------------------ bounds
MAX_CONCURRENT_CALLS = env.whole("MAX_CONCURRENT_CALLS", 100, least=1, most=10_000)
CALL_MAX_SECONDS = env.seconds("CALL_MAX_SECONDS", 3300, least=1, most=7200)
CALL_IDLE_SECONDS = env.seconds("CALL_IDLE_SECONDS", 30, least=1, most=3600)
DRAIN_SECONDS = env.seconds("DRAIN_SECONDS", 600, least=0, most=7200)
HEARTBEAT_SECONDS = env.seconds("HEARTBEAT_SECONDS", 5, least=0.1, most=60)
LOST_SECONDS = env.seconds("LOST_SECONDS", 15, least=0.3, most=600)
if LOST_SECONDS < 2 * HEARTBEAT_SECONDS:
    env.wrong("LOST_SECONDS", f"at least twice HEARTBEAT_SECONDS, which is {HEARTBEAT_SECONDS:g}")
PREPARE_AUDIO = env.flag("PREPARE_AUDIO", True)
HEALTH_TOKEN = env.text("HEALTH_TOKEN")
NODE_NAME = env.text("NODE_NAME", f"{socket.gethostname()}-{os.getpid()}")[:100]

# ------------------------------------------------------------------ Django
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_tasks",
    "django_tasks_db",
    "simple_history",
    "callcenter",
    "sessions_app",
    "health",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
]
ROOT_URLCONF = "callcenter.urls"
ASGI_APPLICATION = "callcenter.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]


def _database(url: str) -> dict[str, Any]:
    """SQLite or PostgreSQL, each with the options without which it stalls or collides."""
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    except (ValueError, dj_database_url.UnknownSchemeError):
        parsed = {}
    engine = parsed.get("ENGINE", "")
    if engine == "django.db.backends.sqlite3" and parsed.get("NAME"):
        if parsed["NAME"] != ":memory:":
            parsed["NAME"] = str(BASE_DIR / str(parsed["NAME"]))
        parsed["ENGINE"] = "callcenter.sqlite"
        # Without IMMEDIATE, two writers that both read first end in "database is locked".
        parsed["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
        return parsed
    if engine == "django.db.backends.postgresql" and parsed.get("NAME"):
        # Each request runs in a thread of its own under ASGI, so only a pool keeps connections.
        parsed["OPTIONS"] = {
            **parsed.get("OPTIONS", {}),
            "connect_timeout": 3,
            # A server that hangs is as good as away; nobody waits for it without end.
            # Nor does anybody wait for a row that a process locked before it was stopped.
            "options": "-c statement_timeout=10000 -c lock_timeout=5000"
            " -c idle_in_transaction_session_timeout=10000",
            "tcp_user_timeout": 8000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "pool": {"min_size": 1, "max_size": 16, "timeout": 3},
        }
        # A connection that died while it lay unused is found out before it is used.
        parsed["CONN_HEALTH_CHECKS"] = True
        return parsed
    env.wrong(
        "DATABASE_URL", "sqlite:///FILE or postgres://USER:PASSWORD@HOST:PORT/NAME", secret=True
    )
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


DATABASES = {"default": _database(env.text("DATABASE_URL", "sqlite:///db.sqlite3"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.checked(
    "REDIS_URL",
    "an address such as redis://example.com:6379/0 or unix:///run/redis.sock",
    parse_url,
)
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "callcenter"},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}
TASKS = {
    "default": {
        "BACKEND": "django_tasks_db.DatabaseBackend",
        "QUEUES": ["default"],
    }
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / env.text("STATIC_ROOT", "var/static")
MEDIA_URL = "/uploads/"
MEDIA_ROOT = BASE_DIR / env.text("MEDIA_ROOT", "var/media")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"

# Webhook bodies are small; whatever is larger is refused before it is read.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = _https
SECURE_REDIRECT_EXEMPT = [r"^webhooks/", r"^api/health"]
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
_ws_origins = [
    f"{'wss' if parts.scheme in ('https', 'wss') else 'ws'}://{parts.netloc}"
    for parts in (_public, _media)
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "connect-src": [SELF, *dict.fromkeys(_ws_origins)],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}

LOG_FORMAT = env.choice("LOG_FORMAT", "text", ("text", "json"))
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"()": "callcenter.logs.TextFormatter"},
        "json": {"()": "callcenter.logs.JsonFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "callcenter": {"level": "INFO"},
        "sessions_app": {"level": "INFO"},
        "health": {"level": "INFO"},
        # Their own handlers would say things twice, or print queries that hold numbers.
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
        "django.server": {"handlers": [], "level": "ERROR", "propagate": True},
        # Says each retry with the arguments of the call, which we say ourselves where it matters.
        "stamina": {"level": "ERROR"},
        # With the database away, a line a second with the server's address.
        "psycopg.pool": {"level": "ERROR"},
        # Every scanner of the internet causes one.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # Uvicorn tells of each socket with its path, which ends in a ticket: through our formatter.
        "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"handlers": [], "level": "INFO", "propagate": True},
        "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}

SETTINGS_MISTAKES: list[Mistake] = env.mistakes

SILENCED_SYSTEM_CHECKS: list[str] = []
if not _https:
    # The scheme of PUBLIC_URL decides on these, and 127.0.0.1 has no certificate.
    SILENCED_SYSTEM_CHECKS += [
        "security.W004",
        "security.W008",
        "security.W012",
        "security.W016",
    ]
