"""Finding what a command was told by name; what is not there is told with what there is."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from sessions_app.models import Agent


def user_named(name: str) -> AbstractBaseUser | None:
    """The user; None for an empty name, which stands for nobody. Raises CommandError."""
    if not name:
        return None
    users = get_user_model()
    try:
        found: AbstractBaseUser = users._default_manager.get_by_natural_key(name)
    except users.DoesNotExist:
        raise CommandError(
            f"--owner: read {name!r}, wanted the name of a user "
            "(`manage.py createsuperuser`, or the admin, makes one)"
        ) from None
    return found


def agent_named(name: str) -> Agent:
    """The agent. Raises CommandError naming those that there are."""
    try:
        return Agent.objects.get(name=name)
    except Agent.DoesNotExist:
        known = ", ".join(Agent.objects.values_list("name", flat=True)) or "none yet"
        raise CommandError(
            f"--agent: read {name!r}, wanted the name of an agent ({known})"
        ) from None


def said(invalid: ValidationError, options: dict[str, str]) -> CommandError:
    """What a row refused, by the options that it was told with (`options`: field -> option)."""
    if not hasattr(invalid, "error_dict"):
        return CommandError("; ".join(invalid.messages))
    lines = [
        f"{options.get(name, name)}: {' '.join(messages)}".removeprefix("__all__: ")
        for name, messages in invalid.message_dict.items()
    ]
    return CommandError("\n".join(lines))
