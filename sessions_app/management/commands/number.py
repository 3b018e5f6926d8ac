"""`manage.py number NUMBER --agent NAME`: which agent answers a phone number."""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from simple_history.utils import update_change_reason

from sessions_app.management.commands._lookup import agent_named, said, user_named
from sessions_app.models import PhoneNumber
from sessions_app.models.agents import normalised_number

_FLAGS: Final = {"number": "NUMBER", "label": "--label"}


class Command(BaseCommand):
    help = (
        "Routes a phone number to an agent, or changes what is given of a number that exists. "
        "Numbers are written in the international form, with or without a plus."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", metavar="NUMBER", help="Such as 442079460000.")
        parser.add_argument("--agent", metavar="NAME", help="Who answers; wanted for a new number.")
        parser.add_argument("--owner", metavar="USERNAME", help="Who sees its calls; '': nobody.")
        parser.add_argument("--label", metavar="TEXT", help="A name for people.")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted: dict[str, Any] = {}
        if options["agent"] is not None:
            wanted["agent"] = agent_named(options["agent"])
        if options["owner"] is not None:
            wanted["owner"] = user_named(options["owner"])
        if options["label"] is not None:
            wanted["label"] = options["label"]
        try:
            number = normalised_number(options["number"])
            with transaction.atomic():
                self.stdout.write(_make_or_change(number, wanted))
        except ValidationError as invalid:
            raise said(invalid, _FLAGS) from None


def _make_or_change(number: str, wanted: dict[str, Any]) -> str:
    """What was done, as a sentence. Raises ValidationError, CommandError."""
    row = PhoneNumber.objects.filter(number=number).first()
    if row is None:
        if "agent" not in wanted:
            raise CommandError(f"+{number} is new, so --agent is wanted: who answers it?")
        row = PhoneNumber(number=number, **wanted)
        _save(row)
        return f"Created +{number}, answered by {row.agent.name!r}."
    changed = [field for field, value in wanted.items() if getattr(row, field) != value]
    if not changed:
        return f"+{number} is unchanged, answered by {row.agent.name!r}."
    for field in changed:
        setattr(row, field, wanted[field])
    _save(row)
    return f"Changed +{number}: {', '.join(changed)}; answered by {row.agent.name!r}."


def _save(row: PhoneNumber) -> None:
    row.full_clean()
    row.save()
    update_change_reason(row, "manage.py number")
