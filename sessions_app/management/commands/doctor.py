"""`manage.py doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.diagnosis.examination import examine
from sessions_app.diagnosis.finding import Finding, Level
from sessions_app.management.commands._rows import as_json


class Command(BaseCommand):
    help = (
        "Looks at settings, database, Redis, keys and models, reachability, webhooks, clock, disk, "
        "servers and worker. Prints nothing secret. Exit status 1 if anything fails."
    )
    # Wrong settings would end the command before it could explain them.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="A JSON list of the findings.")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = examine()
        if options["json"]:
            self.stdout.write(as_json([asdict(finding) for finding in findings]))
        else:
            for finding in findings:
                self._tell(finding)
        failed = sum(finding.level is Level.FAIL for finding in findings)
        if failed:
            raise CommandError(f"{failed} of {len(findings)} findings are failures.")

    def _tell(self, finding: Finding) -> None:
        styles = {Level.WARN: self.style.WARNING, Level.FAIL: self.style.ERROR}
        style = styles.get(finding.level, self.style.SUCCESS)
        self.stdout.write(f"{style(finding.level.ljust(4))}  {finding.what}: {finding.seen}")
        if finding.mend:
            self.stdout.write(f"      → {finding.mend}")
