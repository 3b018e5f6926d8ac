"""The services that tests may use; see CONTRIBUTING.md."""

from __future__ import annotations

import pytest

from tests.integration.support import service


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL on which databases may be made; each test makes and drops its own."""
    return service("TEST_DATABASE_URL", "PostgreSQL")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis of which one database may be used, and is never flushed."""
    return service("TEST_REDIS_URL", "Redis")
