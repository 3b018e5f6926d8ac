"""`manage.py reap_sessions`: closes the calls of servers that are gone."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.management.commands._rows import as_json
from sessions_app.rows import reap


class Command(BaseCommand):
    help = (
        "Ends, as lost, the calls whose server has not been heard for LOST_SECONDS by the "
        "database's clock. Servers do this for each other; this is for when none runs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--lost-after",
            type=float,
            default=settings.LOST_SECONDS,
            metavar="SECONDS",
            help="Instead of LOST_SECONDS; at least twice HEARTBEAT_SECONDS.",
        )
        parser.add_argument("--json", action="store_true", help="A JSON list of the calls.")

    def handle(self, *args: Any, **options: Any) -> None:
        lost_s, beat_s = options["lost_after"], settings.HEARTBEAT_SECONDS
        if lost_s < 2 * beat_s:
            # Or it would end calls that go on.
            raise CommandError(
                f"--lost-after: read {lost_s:g}, wanted at least twice HEARTBEAT_SECONDS, "
                f"which is {beat_s:g}"
            )
        uuids = reap(lost_s)
        if options["json"]:
            self.stdout.write(as_json([{"uuid": uuid} for uuid in uuids]))
            return
        for uuid in uuids:
            self.stdout.write(f"{uuid}: lost")
        self.stdout.write(f"{len(uuids)} {'call' if len(uuids) == 1 else 'calls'} closed as lost.")
