"""People and rows that the admin's tests share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.utils import timezone

from sessions_app.models import Agent, CallRecord, CallState, PhoneNumber

RIGHTS = (
    "add_agent",
    "change_agent",
    "delete_agent",
    "view_agent",
    "add_phonenumber",
    "change_phonenumber",
    "delete_phonenumber",
    "view_phonenumber",
    "view_callrecord",
    "see_full_numbers",
    "hang_up_calls",
)


GROUPS = import_module("sessions_app.migrations.0005_rights").GROUPS


def staff(name: str, *rights: str) -> User:
    user = User.objects.create_user(name, password="secret", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="sessions_app", codename__in=rights)
    )
    return user


def of_group(name: str, group: str) -> User:
    """Somebody who has what the group of a fresh installation gives; the groups themselves may have
    gone with the rows of a test before.
    """
    user = staff(name)
    made, _ = Group.objects.get_or_create(name=group)
    rights = Permission.objects.filter(content_type__app_label="sessions_app")
    made.permissions.set(rights.filter(codename__in=GROUPS[group]))
    user.groups.add(made)
    return user


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def _collected_static(settings: Any, tmp_path: Path) -> None:
    """WhiteNoise warns of a directory that `collectstatic` has not made."""
    settings.STATIC_ROOT = tmp_path


@pytest.fixture
def alice(db: None) -> User:
    """A supervisor with every right, over her own rows only."""
    return staff("alice", *RIGHTS)


@pytest.fixture
def bob(db: None) -> User:
    return staff("bob", *RIGHTS)


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="secret")


@pytest.fixture
def agent_of() -> Callable[..., Agent]:
    def make(owner: User | None, name: str = "", **fields: Any) -> Agent:
        return Agent.objects.create(
            name=name or f"{owner.username if owner else 'nobody'}'s agent",
            owner=owner,
            instructions="Be kind.",
            **fields,
        )

    return make


@pytest.fixture
def number_of() -> Callable[..., PhoneNumber]:
    def make(owner: User | None, agent: Agent, number: str) -> PhoneNumber:
        return PhoneNumber.objects.create(owner=owner, agent=agent, number=number)

    return make


@pytest.fixture
def call_of() -> Callable[..., CallRecord]:
    """A live call, or an ended one with `ended=True`."""

    def make(owner: User | None, uuid: str, *, ended: bool = False, **fields: Any) -> CallRecord:
        began = timezone.now() - timedelta(minutes=2)
        values: dict[str, Any] = {
            "caller": "447700900123",
            "called": "442079460000",
            "state": CallState.LIVE,
            "ringing_at": began,
            "answered_at": began + timedelta(seconds=1),
            "media_opened_at": began + timedelta(seconds=2),
        }
        if ended:
            values |= {
                "state": CallState.ENDED,
                "ended_at": began + timedelta(seconds=66),
                "end_reason": "caller_hung_up",
            }
        return CallRecord.objects.create(uuid=uuid, user=owner, **{**values, **fields})

    return make
