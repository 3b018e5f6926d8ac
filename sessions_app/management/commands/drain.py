"""`manage.py drain`: servers take no more calls and let the live ones end."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count
from django.db.models.functions import Now

from sessions_app.models import CallRecord, Node


class Command(BaseCommand):
    help = (
        "Asks servers to drain: they answer health with 503, lead new callers elsewhere and let "
        "live calls end. Each server looks for this within a heartbeat or so."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("nodes", metavar="NODE", nargs="*", help="The names of servers.")
        parser.add_argument("--all", action="store_true", help="Every server that is alive.")
        parser.add_argument("--undo", action="store_true", help="Take calls again.")
        parser.add_argument(
            "--wait",
            action="store_true",
            help="Return when it is done: no live call is left (with --undo: all take calls).",
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=settings.DRAIN_SECONDS + 30,
            metavar="SECONDS",
            help="How long --wait waits (default: DRAIN_SECONDS and 30 s).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        undo: bool = options["undo"]
        names = _chosen(options["nodes"], everyone=options["all"])
        Node.objects.filter(name__in=names).update(drain_requested_at=None if undo else Now())
        asked = "take calls again" if undo else "drain"
        self.stdout.write(f"Asked to {asked}: {', '.join(names)}")
        if options["wait"]:
            self._wait(names, undo=undo, timeout_s=options["timeout"])

    def _wait(self, names: list[str], *, undo: bool, timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        told = ""
        while waiting := (_still_draining(names) if undo else _still_busy(names)):
            now = ", ".join(f"{name}: {why}" for name, why in waiting.items())
            if now != told:
                self.stdout.write(f"  {now}")
                self.stdout.flush()
                told = now
            if monotonic() >= deadline:
                raise CommandError(f"Not done within {timeout_s:g} s: {now}")
            sleep(0.5)
        self.stdout.write("Done: all take calls again." if undo else "Done: no live call is left.")


def _chosen(named: list[str], *, everyone: bool) -> list[str]:
    """The names of living servers. Raises CommandError."""
    alive = list(Node.objects.alive(settings.LOST_SECONDS).values_list("name", flat=True))
    there = f"alive: {', '.join(alive) or 'none'}"
    if everyone == bool(named):
        raise CommandError(f"wanted either the names of servers or --all ({there})")
    unknown = [name for name in named if name not in alive]
    if unknown:
        raise CommandError(f"read {', '.join(unknown)}, wanted servers that are alive ({there})")
    if not alive:
        raise CommandError("no server is alive")
    return alive if everyone else named


def _still_busy(names: list[str]) -> dict[str, str]:
    """Servers that are not drained yet, and what is missing."""
    draining = dict(
        Node.objects.alive(settings.LOST_SECONDS)
        .filter(name__in=names)
        .values_list("name", "draining")
    )
    live = CallRecord.objects.live().filter(node__in=names).order_by()
    calls = dict(live.values_list("node").annotate(Count("id")))
    busy: dict[str, str] = {}
    for name in names:
        if draining.get(name) is False:
            busy[name] = "has not noticed yet"
        elif name in calls:
            gone = "" if name in draining else ", but the server is gone"
            busy[name] = f"{calls[name]} live{gone}"
    return busy


def _still_draining(names: list[str]) -> dict[str, str]:
    alive = Node.objects.alive(settings.LOST_SECONDS).filter(name__in=names, draining=True)
    return dict.fromkeys(alive.values_list("name", flat=True), "still draining")
