"""`manage.py hangup UUID`: asks the server that owns a call to end it, and waits for its answer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.live.commands import ask, await_answer
from sessions_app.models import CallRecord, CommandKind, CommandState
from sessions_app.rows import HAS_ENDED


class Command(BaseCommand):
    help = (
        "Ends a live call, whichever server it is on. Exit status 0: it has ended; 1: it has not, "
        "or there is no such call."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("uuid", metavar="UUID", help="As `manage.py sessions` shows it.")
        parser.add_argument(
            "--timeout",
            type=float,
            default=5.0,
            metavar="SECONDS",
            help="How long to wait for the server's answer (default: 5).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        call = CallRecord.objects.filter(uuid=options["uuid"]).first()
        if call is None:
            raise CommandError(
                f"read {options['uuid']!r}, wanted the uuid of a call "
                "(`manage.py sessions` lists the live ones)"
            )
        command = ask(call, CommandKind.HANG_UP)
        answered = await_answer(command, options["timeout"])
        call.refresh_from_db(fields=["state", "node"])
        if command.state == CommandState.REFUSED:
            raise CommandError(f"{call.uuid}: refused: {command.answer}")
        if not answered and call.is_live:
            raise CommandError(
                f"{call.uuid}: its server {call.node or '(none yet)'} did not answer within "
                f"{options['timeout']:g} s. It still will when it is heard again; if it is gone, "
                "`manage.py reap_sessions` closes its calls."
            )
        self.stdout.write(f"{call.uuid}: {(command.answer if answered else '') or HAS_ENDED}")
