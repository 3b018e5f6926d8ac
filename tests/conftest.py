"""For all tests: what migrations made is there again after a test that emptied the database."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.db import connections
from django.db.models.signals import post_migrate

receptionist = import_module("sessions_app.migrations.0002_receptionist")


def make_default_agent(sender: AppConfig, using: str, **_: Any) -> None:
    """Django flushes the database after a transactional test and says so by `post_migrate`; the
    rows of data migrations would be missing for whoever comes next.
    """
    if sender.name != "sessions_app":
        return
    if not apps.get_model("sessions_app", "Agent").objects.using(using).exists():
        with connections[using].schema_editor() as editor:
            receptionist.create(apps, editor)


@pytest.fixture(autouse=True, scope="session")
def _what_migrations_made() -> None:
    post_migrate.connect(make_default_agent, dispatch_uid="tests.make_default_agent")
