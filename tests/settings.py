"""Settings of the in-process tests: the product's own, on an embedded database.

The environment is set before the product's settings read it, so a developer's `.env` or keys never
reach a test. Tests on PostgreSQL and Redis start server processes of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

_ours = {
    "DEBUG": "0",
    "SECRET_KEY": "tests-only-secret-key-that-is-long-enough-for-everybody",
    "AI_PROVIDER": "sandbox",
    "OPENAI_API_KEY": "",
    "SPEECHMATICS_API_KEY": "",
    "VONAGE_API_KEY": "testkey0",
    "VONAGE_APPLICATION_ID": "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab",
    "VONAGE_SIGNATURE_SECRET": "tests-only-signature-secret-of-decent-length",
    "VONAGE_PRIVATE_KEY": "",
    "VONAGE_CONNECTS_PER_SECOND": "0",
    "PUBLIC_URL": "http://127.0.0.1:5004",
    "MEDIA_URL": "",
    "DATABASE_URL": "sqlite:///:memory:",
    "REDIS_URL": "",
    "NODE_NAME": "test-node",
    "ALLOWED_HOSTS": "127.0.0.1,localhost,testserver",
    "CSRF_TRUSTED_ORIGINS": "",
    "TRUST_PROXY": "",
    "HEALTH_TOKEN": "",
    "LOG_FORMAT": "",
    "PREPARE_AUDIO": "0",
}
os.environ.update(_ours)

from callcenter.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
TASKS = {"default": {"BACKEND": "django_tasks.backends.dummy.DummyBackend"}}
# WhiteNoise warns of a directory that `collectstatic` has not made yet.
Path(STATIC_ROOT).mkdir(parents=True, exist_ok=True)  # noqa: F405
