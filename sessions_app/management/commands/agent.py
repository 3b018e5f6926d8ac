"""`manage.py agent NAME`: makes or changes an agent."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, transaction
from simple_history.utils import update_change_reason

from sessions_app.core.agent import TurnDetection, WhenBusy
from sessions_app.management.commands._lookup import said, user_named
from sessions_app.models import Agent
from sessions_app.models.agents import VOICES

DEFAULT_INSTRUCTIONS: Final = (
    "You are {name}, who answers the telephone. Be friendly, calm and brief: one or two short "
    "sentences at a time, one question at a time. Speak the way people speak on the phone, "
    "without lists or headings. If you did not understand, say so and ask again. Do not invent "
    "facts; if you do not know something, say so and offer to take a message."
)
VOICE_NAMES: Final = tuple(name for _, group in VOICES for name, _ in group)


@dataclass(frozen=True, slots=True)
class Option:
    """One field of an agent that can be told on the command line."""

    flag: str
    field: str
    kind: type[str] | type[int] | type[float]
    metavar: str
    help: str
    choices: tuple[str, ...] | None = None


OPTIONS: Final = (
    Option("--greeting", "greeting", str, "TEXT", "The first words of a call, as they stand."),
    Option(
        "--instructions",
        "instructions",
        str,
        "TEXT|@FILE",
        "Who the agent is and what it may do; @FILE reads them from a file.",
    ),
    Option(
        "--voice",
        "voice",
        str,
        "VOICE",
        f"One of: {', '.join(VOICE_NAMES)}.",
        choices=VOICE_NAMES,
    ),
    Option("--language", "language", str, "TAG", "Such as en-GB or fr."),
    Option("--model", "model", str, "MODEL", "The speech model; '': the installation's."),
    Option("--fallback-number", "fallback_number", str, "NUMBER", "A person; '': nobody."),
    Option("--apology", "apology", str, "TEXT", "Said when the agent cannot serve a call."),
    Option(
        "--when-busy",
        "when_busy",
        str,
        "WHAT",
        f"What callers get while there is no room: {', '.join(WhenBusy)}.",
        choices=tuple(WhenBusy),
    ),
    Option(
        "--turn-detection",
        "turn_detection",
        str,
        "HOW",
        f"How the end of a turn is found: {' or '.join(TurnDetection)}.",
        choices=tuple(TurnDetection),
    ),
    Option("--vad-threshold", "vad_threshold", float, "0-1", "Higher hears less noise as speech."),
    Option("--vad-prefix", "vad_prefix_ms", int, "MS", "Audio kept before speech."),
    Option("--vad-silence", "vad_silence_ms", int, "MS", "Silence that ends a turn."),
    Option("--nudge-after", "nudge_after_s", float, "SECONDS", "Silence before speaking again."),
    Option("--nudges", "nudges_max", int, "TIMES", "How often, before saying goodbye."),
    Option("--max-call", "max_call_s", int, "SECONDS", "Longest call; 0: the installation's."),
)
_FLAGS: Final = {option.field: option.flag for option in OPTIONS}


class Command(BaseCommand):
    help = (
        "Makes an agent, or changes what is given of one that exists. Changes apply to the next "
        "call. A new agent needs nothing but its name."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME")
        for option in OPTIONS:
            parser.add_argument(
                option.flag,
                dest=option.field,
                type=option.kind,
                choices=option.choices,
                metavar=option.metavar,
                help=option.help.replace("%", "%%"),
            )
        parser.add_argument(
            "--default",
            dest="is_default",
            action=argparse.BooleanOptionalAction,
            help="Answers every number that no agent was given, in place of the one that did.",
        )
        parser.add_argument("--owner", metavar="USERNAME", help="Who sees its calls; '': nobody.")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {name: options[name] for name in _FLAGS if options[name] is not None}
        if "instructions" in wanted:
            wanted["instructions"] = _text_or_file(wanted["instructions"])
        if options["is_default"] is not None:
            wanted["is_default"] = options["is_default"]
        if options["owner"] is not None:
            wanted["owner"] = user_named(options["owner"])
        try:
            with transaction.atomic():
                self.stdout.write(_make_or_change(options["name"], wanted))
        except ValidationError as invalid:
            raise said(invalid, _FLAGS) from None
        except IntegrityError:
            raise CommandError("Somebody else changed agents at this moment; try again.") from None


def _text_or_file(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CommandError(
            f"--instructions: read {value!r}, wanted a text, or @ and the path of a text file: "
            f"{why}"
        ) from None


def _make_or_change(name: str, wanted: dict[str, Any]) -> str:
    """What was done, as a sentence. Raises ValidationError."""
    agent = Agent.objects.filter(name=name).first()
    if agent is None:
        instructions = DEFAULT_INSTRUCTIONS.format(name=name)
        agent = Agent(**{"name": name, "instructions": instructions, **wanted})
        former = _displace(agent)
        _save(agent)
        return f"Created agent {name!r} ({agent.voice}, {agent.language}){former}."
    before = {field: getattr(agent, field) for field in wanted}
    for field, value in wanted.items():
        setattr(agent, field, value)
    agent.full_clean(validate_constraints=False)  # brings numbers into the form they are kept in
    changed = [field for field in wanted if getattr(agent, field) != before[field]]
    if not changed:
        return f"Agent {name!r} is unchanged."
    former = _displace(agent)
    _save(agent)
    return f"Changed agent {name!r}: {', '.join(_spoken(field) for field in changed)}{former}."


def _displace(agent: Agent) -> str:
    """Takes over from the former default agent; what to say of it."""
    former = Agent.objects.filter(is_default=True).exclude(pk=agent.pk).first()
    if not agent.is_default or former is None:
        return ""
    former.is_default = False
    _save(former)
    return f"; {former.name!r} answers every other number no more"


def _save(agent: Agent) -> None:
    agent.full_clean()
    agent.save()
    update_change_reason(agent, "manage.py agent")


def _spoken(field: str) -> str:
    return _FLAGS.get(field, field).removeprefix("--").replace("is_default", "default")
