"""`manage.py sessions`: the live calls of the whole fleet."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from sessions_app.logcontext import masked
from sessions_app.management.commands._rows import as_json, as_table
from sessions_app.models import CallRecord

COLUMNS: Final = ("uuid", "state", "node", "agent", "caller", "age_s")


class Command(BaseCommand):
    help = "Lists the live calls of every server, oldest first, from the mirrored rows."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--node", metavar="NODE", help="Only the calls of this server.")
        parser.add_argument("--json", action="store_true", help="A JSON list instead of a table.")

    def handle(self, *args: Any, **options: Any) -> None:
        calls = CallRecord.objects.live().order_by("ringing_at", "id")
        if options["node"]:
            calls = calls.filter(node=options["node"])
        now = timezone.now()
        rows = [_row(call, now) for call in calls]
        if options["json"]:
            self.stdout.write(as_json(rows))
        elif rows:
            self.stdout.write(as_table(rows, COLUMNS))
        else:
            self.stdout.write("No live calls.")


def _row(call: CallRecord, now: datetime) -> dict[str, object]:
    return {
        "uuid": call.uuid,
        "state": call.get_state_display(),
        "node": call.node,
        "agent": call.agent_name,
        "caller": masked(call.caller) or "withheld",
        "age_s": max(0, round((now - call.ringing_at).total_seconds())),
    }
