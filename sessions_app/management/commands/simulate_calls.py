"""`manage.py simulate_calls`: callers of the sandbox ring a running server, and tell how it was."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from time import monotonic
from typing import Any, Final

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.management.commands._rows import as_table
from sessions_app.models import Node
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.load import CallResult, Script, Spread, Summary, Target, run_calls

#: What has ended must be gone from memory and from the rows within this long.
RELEASE_S: Final = 2.0
SILENCE_LIMIT_S: Final = Script().silence_limit_s
_POLL_S: Final = 0.1
_HTTP_TIMEOUT_S: Final = 5.0


class Command(BaseCommand):
    help = (
        "Rings a running server as Vonage would, with callers who speak, listen and interrupt, and "
        "prints what they went through. Exit status 1 if a caller met silence, a call broke, or "
        "something was left behind. The webhooks are signed with this installation's settings, "
        "so they must be the server's own."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        width = max(len(fault) for fault in Fault)
        faults = "\n".join(f"  {fault.ljust(width)}  {fault.help}" for fault in Fault)
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=f"faults:\n{faults}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--calls", type=_count, default=10, metavar="N", help="How many calls.")
        parser.add_argument(
            "--at-once", type=_count, default=5, metavar="N", help="How many at the same time."
        )
        parser.add_argument(
            "--faults",
            type=_faults,
            default=(None,),
            metavar="NAMES",
            help="Faults of the suppliers, in rotation: names with commas, 'none' for a call "
            "without one, or 'all'. Only a server in the sandbox has them.",
        )
        parser.add_argument(
            "--url",
            default=settings.PUBLIC_URL,
            help="The server, one process of it (default: PUBLIC_URL).",
        )
        parser.add_argument(
            "--called", default="442079460000", metavar="NUMBER", help="Which number they ring."
        )
        parser.add_argument(
            "--questions", type=_count, default=1, metavar="N", help="How many each caller asks."
        )
        parser.add_argument(
            "--silence-limit",
            type=float,
            default=SILENCE_LIMIT_S,
            metavar="SECONDS",
            help=f"A longer silence counts as met (default: {SILENCE_LIMIT_S:g}).",
        )
        parser.add_argument("--json", action="store_true", help="JSON instead of a table.")

    def handle(self, *args: Any, **options: Any) -> None:
        url = options["url"].rstrip("/")
        server = _Server(url)
        asyncio.run(server.look())
        target = Target(
            base_url=url,
            signature_secret=settings.VONAGE_SIGNATURE_SECRET,
            api_key=settings.VONAGE_API_KEY,
            application_id=settings.VONAGE_APPLICATION_ID,
            called=options["called"],
            control_url=_control_url(server.node),
        )
        progress = _Progress(self, options["calls"])
        script = Script(questions=options["questions"], silence_limit_s=options["silence_limit"])

        async def run() -> tuple[list[CallResult], Summary, list[str]]:
            results, summary = await run_calls(
                target,
                calls=options["calls"],
                at_once=options["at_once"],
                faults=options["faults"],
                script=script,
                on_result=progress.tell,
            )
            return results, summary, await server.left_behind({call.uuid for call in results})

        results, summary, left = asyncio.run(run())
        if options["json"]:
            told = {
                "summary": asdict(summary) | {"is_good": summary.is_good and not left},
                "left_behind": left,
                "calls": [asdict(result) for result in results],
            }
            self.stdout.write(json.dumps(told, indent=2, default=str))
        else:
            self.stdout.write(_table(summary, left))
        if wrong := _wrong(summary, left):
            raise CommandError(wrong)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"read {text!r}, wanted a whole number from 1")
    return int(text)


def _faults(text: str) -> tuple[Fault | None, ...]:
    if text == "all":
        return (None, *Fault)
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name != "none" and name not in tuple(Fault)]
    if unknown:
        known = ", ".join(("none", *Fault))
        raise argparse.ArgumentTypeError(f"read {', '.join(unknown)!r}, wanted some of: {known}")
    return tuple(None if name == "none" else Fault(name) for name in names)


class _Server:
    """What can be seen of the server from outside: its health. Raises CommandError."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/health"
        token = {"Authorization": f"Bearer {settings.HEALTH_TOKEN}"}
        self._headers = token if settings.HEALTH_TOKEN else {}
        self.node = ""

    async def look(self) -> None:
        """Whether it is there, takes calls and tells of them; which one it is."""
        async with self._client() as http:
            health = await self._health(http, "?node=self")
        if health["status"] in ("draining", "unavailable"):
            raise CommandError(f"{self._url}: it takes no calls, it is {health['status']}")
        self.node = health["node"]

    async def left_behind(self, uuids: set[str]) -> list[str]:
        """Those of our calls that are still live, in memory or as rows, when they must be gone."""
        deadline_s = monotonic() + RELEASE_S
        async with self._client() as http:
            while left := uuids & await self._live(http):
                if monotonic() >= deadline_s:
                    break
                await asyncio.sleep(_POLL_S)
        return sorted(left)

    async def _live(self, http: httpx.AsyncClient) -> set[str]:
        seen = [await self._health(http, query) for query in ("?node=self", "")]
        return {uuid for health in seen for uuid in health["sessions"]["uuids"]}

    async def _health(self, http: httpx.AsyncClient, query: str) -> dict[str, Any]:
        try:
            health: dict[str, Any] = (await http.get(f"{self._url}{query}")).json()
            if "uuids" in health["sessions"]:
                return health
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise CommandError(
                f"{self._url}: no server of ours answers there ({type(error).__name__}); "
                "`make run` starts one, --url names another"
            ) from None
        raise CommandError(f"{self._url}: it does not tell its calls; wanted its HEALTH_TOKEN")

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=self._headers, timeout=_HTTP_TIMEOUT_S)


def _control_url(node: str) -> str | None:
    """Where that server's sandbox lets callers keep their legs; None outside the sandbox."""
    url = Node.objects.filter(name=node).values_list("sandbox_url", flat=True).first()
    return url or None


class _Progress:
    """A line on stderr for each tenth of the calls, and for each call that went wrong."""

    def __init__(self, command: BaseCommand, calls: int) -> None:
        self._command = command
        self._calls = calls
        self._done = 0

    def tell(self, result: CallResult) -> None:
        self._done += 1
        wrong = result.met_silence or result.broken
        if wrong:
            fault = f", fault {result.fault}" if result.fault else ""
            trouble = "; ".join(result.errors) or f"silent for {result.longest_silence_s:.1f} s"
            self._say(f"call {result.uuid}{fault}: {result.outcome}; {trouble}")
        tenth = max(1, self._calls // 10)
        if self._done % tenth == 0 or self._done == self._calls:
            self._say(f"{self._done} of {self._calls} calls are over")

    def _say(self, text: str) -> None:
        # As it is: only errors of the command itself are in red.
        self._command.stderr.write(text, lambda line: line)


def _table(summary: Summary, left: list[str]) -> str:
    rows: list[dict[str, object]] = [
        {"": "calls", " ": f"{summary.calls} in {summary.duration_s:.1f} s"},
        {"": "greeted", " ": summary.greeted},
        {"": "met silence", " ": summary.met_silence},
        {"": "broke", " ": summary.broken},
        {"": "questions unanswered", " ": summary.unanswered},
        {"": "left behind", " ": len(left)},
        {"": "longest silence", " ": f"{summary.longest_silence_s:.2f} s"},
        {"": "first sound", " ": _spread(summary.first_sound_s)},
        {"": "reply", " ": _spread(summary.reply_s)},
    ]
    for outcome, count in sorted(summary.outcomes.items(), key=lambda item: -item[1]):
        rows.append({"": f"ended: {outcome}", " ": count})
    return as_table(rows, ("", " ")).strip("\n")


def _spread(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None or spread.worst is None:
        return "none"
    return f"{spread.p50:.2f} s half, {spread.p95:.2f} s of 95 %, {spread.worst:.2f} s worst"


def _wrong(summary: Summary, left: list[str]) -> str:
    wrong = [
        f"{count} {what}"
        for count, what in (
            (summary.met_silence, "met silence"),
            (summary.broken, "broke"),
            (len(left), "left something behind"),
        )
        if count
    ]
    return f"Of {summary.calls} calls, {', '.join(wrong)}." if wrong else ""
