"""`manage.py simulate_calls`: callers of the sandbox ring a running server, and tell how it was."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from sessions_app.management.commands._simulation_report import Report, write_markdown
from sessions_app.management.commands._watched_server import Server, Watch
from sessions_app.models import Agent, Node
from sessions_app.sandbox.conversation import Script
from sessions_app.sandbox.faults import FACTS, OF_A_CALL, OF_SERVER, Fault, Wish, in_every_phase
from sessions_app.sandbox.load import (
    FaultPlan,
    Target,
    at_random,
    in_rotation,
    new_run,
    run_calls,
)
from sessions_app.sandbox.soak import Figures
from sessions_app.sandbox.tally import CallResult

SILENCE_LIMIT_S: Final = Script().fault_silence_limit_s
_SCRIPTS: Final = ("talk", "short")
#: What a run is, and what a soak is, where nothing else is said.
_RUN: Final = {"calls": 10, "at_once": 5, "script": "talk"}
_SOAK: Final = {"calls": 5000, "at_once": 10, "script": "short", "fault_every": 10}
_KEPT_CALLS: Final = 1000
_GROUPS: Final = ("none", "all", "suppliers", "phone", "matrix", "server")

Wishes = tuple[Wish | None, ...]


class Command(BaseCommand):
    help = (
        "Rings a running server as Vonage would, with callers who speak, listen and interrupt, and "
        "prints what they went through. Exit status 1 if a caller met silence, a call broke, a "
        "conversation ended that had to go on, or something was left behind. The webhooks are "
        "signed with this installation's settings, so they must be the server's own."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=_explained(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--calls", type=_count, metavar="N", help="How many calls.")
        parser.add_argument(
            "--at-once", type=_count, metavar="N", help="How many at the same time."
        )
        parser.add_argument(
            "--faults",
            type=_faults,
            metavar="NAMES",
            help="Faults, in rotation: names with commas, each with @PHASE and ! as wanted; 'none' "
            "for a call without one; 'suppliers', 'phone', 'all'; 'matrix' for every fault in "
            "every phase; 'server' for those of its own side in every phase, which strike all its "
            "calls (use --at-once 1). All but the phone's need a server in the sandbox.",
        )
        parser.add_argument(
            "--fault-every",
            type=_count,
            metavar="N",
            help="One of the faults, at random, in every N-th call only.",
        )
        parser.add_argument("--seed", type=int, help="What those are drawn by (it is told).")
        parser.add_argument(
            "--script",
            choices=_SCRIPTS,
            help="talk: questions, interruptions, goodbyes. short: one question, and the caller "
            "hangs up on the first second of its answer. A call with a fault has its own.",
        )
        parser.add_argument(
            "--soak",
            action="store_true",
            help="5000 short calls, ten at a time, a fault in every tenth; watches the server's "
            "memory, descriptors, tasks and threads. Other options change what they name.",
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
            help="A longer wait in silence counts as met, in a call with a fault (default: "
            f"{SILENCE_LIMIT_S:g}; without a fault it is {Script().silence_limit_s:g}).",
        )
        parser.add_argument("--json", action="store_true", help="JSON instead of a table.")
        parser.add_argument(
            "--markdown",
            type=Path,
            metavar="FILE",
            help="Also puts the figures into this document, between its marks.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        options = _resolved(options)
        server = Server(options["url"].rstrip("/"))
        asyncio.run(server.look())
        run = _Run(self, options, server, _target(options, server.node))
        report = asyncio.run(run.run())
        if options["markdown"]:
            write_markdown(options["markdown"], report)
        if options["json"]:
            told = report.as_json() | {"calls": [_as_told(call) for call in run.kept]}
            self.stdout.write(json.dumps(told, indent=2, default=str))
        else:
            self.stdout.write(report.as_text())
        if report.wrong:
            raise CommandError(f"Of {report.summary.calls} calls, {', '.join(report.wrong)}.")


class _Run:
    """One run of calls, and what is seen of the server meanwhile."""

    def __init__(
        self, command: BaseCommand, options: dict[str, Any], server: Server, target: Target
    ) -> None:
        self._options = options
        self._command = command
        self._server = server
        self._target = target
        self.kept: deque[CallResult] = deque(maxlen=_KEPT_CALLS)
        """The last calls; a soak's are only counted."""

    async def run(self) -> Report:
        options, soak = self._options, self._options["soak"]
        script = Script(
            questions=options["questions"],
            is_short=options["script"] == "short",
            fault_silence_limit_s=options["silence_limit"],
        )
        before = await self._warm_up() if soak else Figures()
        run, progress = new_run(), _Progress(self._command, options["calls"])
        watch = Watch(self._server, run)

        def ended(result: CallResult) -> None:
            watch.note(result)
            progress.tell(result)
            if not soak:
                self.kept.append(result)

        async with asyncio.TaskGroup() as group:
            looking = group.create_task(watch.look_on())
            summary = await run_calls(
                self._target,
                calls=options["calls"],
                at_once=options["at_once"],
                faults=_plan(options, self._target),
                script=script,
                run=run,
                on_result=ended,
            )
            looking.cancel()
        await watch.finish()
        self.kept = deque(sorted(self.kept, key=lambda call: call.index))
        return Report(
            summary,
            watch.left,
            is_soak=soak,
            before=before,
            after=await self._server.settled(before) if soak else Figures(),
            slope=watch.memory.slope() if soak else None,
            seed=options["seed"],
        )

    async def _warm_up(self) -> Figures:
        """Pools and caches fill up to what so many callers at once need; only then is there
        something to compare with.
        """
        at_once = self._options["at_once"]
        self._command.stderr.write(f"warming up with {at_once} calls", lambda line: line)
        short = Script(is_short=True)
        await run_calls(self._target, calls=at_once, at_once=at_once, script=short)
        return await self._server.settled()


def _resolved(options: dict[str, Any]) -> dict[str, Any]:
    """What was not said is what a run, or a soak, is by itself."""
    defaults: dict[str, Any] = _SOAK if options["soak"] else _RUN
    said = {name: value for name, value in options.items() if value is not None}
    faults = _faults("all") if options["soak"] else (None,)
    resolved = dict.fromkeys(options) | {"faults": faults} | defaults | said
    if resolved["fault_every"]:
        resolved["seed"] = (
            secrets.randbelow(1 << 31) if options["seed"] is None else options["seed"]
        )
    return resolved


def _plan(options: dict[str, Any], target: Target) -> FaultPlan:
    """The faults of the calls; those of a voice that no agent has would strike nobody."""
    wishes: Wishes = options["faults"]
    if not options["fault_every"]:
        return in_rotation(wishes)
    drawn = tuple(
        wish
        for wish in wishes
        if wish is not None and (target.speech_agent or not wish.fault.is_of_speech)
    )
    if not drawn:
        return in_rotation((None,))
    return at_random(drawn, options["fault_every"], options["seed"])


def _target(options: dict[str, Any], node: str) -> Target:
    """Whom they ring, and how. The sandbox's address is on the server's row."""
    control_url = Node.objects.filter(name=node).values_list("sandbox_url", flat=True).first()
    speaks = Agent.objects.filter(voice__startswith="speechmatics:").order_by("id").first()
    return Target(
        base_url=options["url"].rstrip("/"),
        signature_secret=settings.VONAGE_SIGNATURE_SECRET,
        api_key=settings.VONAGE_API_KEY,
        application_id=settings.VONAGE_APPLICATION_ID,
        called=options["called"],
        control_url=control_url or None,
        speech_agent=speaks.name if speaks is not None else "",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"read {text!r}, wanted a whole number from 1")
    return int(text)


def _faults(text: str) -> Wishes:
    wishes: list[Wish | None] = []
    for name in text.split(","):
        wishes += _named(name.strip())
    return tuple(wishes)


def _named(name: str) -> list[Wish | None]:
    match name:
        case "none":
            return [None]
        case "all":
            return [None, *map(Wish, OF_A_CALL)]
        case "suppliers" | "phone":
            return [Wish(fault) for fault in OF_A_CALL if fault.is_of_phone == (name == "phone")]
        case "server":
            return [*in_every_phase(OF_SERVER)]
        case "matrix":
            return [None, *in_every_phase()]
    try:
        return [Wish.parse(name)]
    except ValueError as error:
        known = str(error).replace(
            "some of: ", "some of: none, all, suppliers, phone, matrix, server, "
        )
        raise argparse.ArgumentTypeError(known) from None


def _explained() -> str:
    width = max(len(fault) for fault in Fault)
    lines = []
    for fault in Fault:
        phases = ", ".join(FACTS[fault].phases)
        lines.append(f"  {fault.ljust(width)}  {fault.help}\n  {' ' * width}  at {phases}")
    return "faults:\n" + "\n".join(lines)


def _as_told(call: CallResult) -> dict[str, Any]:
    return asdict(call) | {"wish": call.fault, "broken": call.broken, "given_up": call.given_up}


class _Progress:
    """A line on stderr for each tenth of the calls, and for each call that went wrong."""

    def __init__(self, command: BaseCommand, calls: int) -> None:
        self._command = command
        self._calls = calls
        self._done = 0

    def tell(self, result: CallResult) -> None:
        self._done += 1
        if result.met_silence or result.broken or result.given_up:
            fault = f", fault {result.fault}" if result.wish else ""
            trouble = [f"silent for {result.longest_silence_s:.1f} s"] if result.met_silence else []
            told = "; ".join([result.ending, *trouble, *result.errors])
            self._say(f"call {result.uuid}{fault}: {result.outcome}; {told}")
        tenth = max(1, self._calls // 10)
        if self._done % tenth == 0 or self._done == self._calls:
            self._say(f"{self._done} of {self._calls} calls are over")

    def _say(self, text: str) -> None:
        # As it is: only errors of the command itself are in red.
        self._command.stderr.write(text, lambda line: line)
