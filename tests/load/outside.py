"""Calls the product from outside, many times, and tells whether anything was left behind.

    python -m tests.load.outside --calls 50 --at-once 30 --voice openai

Starts the stand-ins and the server, warms both up, makes the calls one after the other, then many
at once. Every caller must be greeted, may interrupt (some do), and hangs up. Afterwards no call may
be live two seconds after the last hang-up, no file descriptor, socket or row may be left, and each
call's end must be in the log, step by step. Prints a table; ends with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable

from tests.fakes.openai import Reply
from tests.fakes.server import ServerKind
from tests.fakes.speechmatics import TtsReply
from tests.fakes.stage import Stage, stage
from tests.fakes.waiting import NeverHappenedError, eventually
from tests.load.measure import ANSWER_MS, CallResult, Voice, check_log, one_call
from tests.load.report import Round, as_json, table

#: The contract of a call's end: nothing is live so soon after the last hang-up.
IDLE_S = 2.0
#: Idle keep-alive connections may take this long to be given up; only then are descriptors counted.
SETTLED_S = 15.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=50, help="calls one after the other")
    parser.add_argument("--at-once", type=int, default=30, help="calls at the same time, then")
    parser.add_argument("--voice", choices=("openai", "speechmatics"), default="openai")
    parser.add_argument("--database", default="", help="a PostgreSQL to make a database on")
    parser.add_argument("--redis", default="", help="the URL of a Redis for the channel layer")
    parser.add_argument("--kind", choices=list(ServerKind), default=ServerKind.CALLCENTER)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long calls at once last")
    parser.add_argument("--interrupt-every", type=int, default=5, help="which callers interrupt")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args()


def say(text: str) -> None:
    """Progress, beside the result on standard output."""
    print(text, file=sys.stderr, flush=True)


async def main(asked: argparse.Namespace) -> int:
    env = {"MAX_CONCURRENT_CALLS": str(max(asked.at_once, 1) + 10)}
    kind = ServerKind(asked.kind)
    say("starting the stand-ins and the server")
    async with stage(kind=kind, database=asked.database, redis_url=asked.redis, env=env) as stand:
        rounds = await _all_rounds(stand, asked)
        exit_code = await stand.server.aterminate()
        if kind is ServerKind.CALLCENTER and exit_code != 0:
            rounds[-1].problems.append(f"the server ended with {exit_code} after SIGTERM")
    problems = [text for each in rounds for text in each.all_problems()]
    print(as_json(rounds) if asked.json else table(rounds))
    for text in problems[:40]:
        say(f"PROBLEM {text}")
    if len(problems) > 40:
        say(f"and {len(problems) - 40} more")
    say("all is well" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


async def _all_rounds(stand: Stage, asked: argparse.Namespace) -> list[Round]:
    voice: Voice = asked.voice
    stand.openai.script.otherwise = Reply(text=_LONG_ANSWER, audio_ms=ANSWER_MS)
    stand.speechmatics.otherwise = TtsReply(ms_per_character=60)
    name = {"openai": "openai:marin", "speechmatics": "speechmatics:sarah"}[voice]
    made = await stand.server.amanage(
        "agent", "Receptionist", "--greeting", _GREETING, "--voice", name, "--default"
    )
    if made.returncode:
        raise RuntimeError(f"the agent could not be changed: {made.stdout}{made.stderr}")
    # Pools and caches fill up to what so many callers at once need; only then is there a baseline.
    rounds = [await _round(stand, "warm-up", voice, asked.at_once, together=True, linger_s=0.5)]
    every = max(asked.interrupt_every, 1)
    if asked.calls:
        rounds.append(
            await _round(stand, "one by one", voice, asked.calls, together=False, every=every)
        )
    if asked.at_once:
        rounds.append(
            await _round(
                stand,
                "at once",
                voice,
                asked.at_once,
                together=True,
                every=every,
                linger_s=asked.seconds,
            )
        )
    # A server that grows while it is warmed up does no harm.
    rounds[0].problems = [text for text in rounds[0].problems if "descriptors" not in text]
    return rounds


async def _round(
    stand: Stage,
    name: str,
    voice: Voice,
    count: int,
    *,
    together: bool,
    every: int = 0,
    linger_s: float = 0.1,
) -> Round:
    say(f"{name}: {count} calls")
    process = stand.server.process
    found = Round(name, fds_before=process.fds())
    told, cpu_s = Counter(stand.violations()), process.cpu_s()

    async def call(number: int) -> CallResult:
        interrupt = bool(every) and number % every == 0
        result = await one_call(stand, voice, interrupt=interrupt, linger_s=linger_s)
        if not together and (number + 1) % 10 == 0:
            say(f"  {number + 1}")
        return result

    if together:
        found.calls = list(await asyncio.gather(*map(call, range(count))))
    else:
        found.calls = [await call(number) for number in range(count)]
    hung_up_s = time.monotonic()
    await _check_idle(stand, found, hung_up_s)
    found.cpu_s = process.cpu_s() - cpu_s
    found.problems += await check_log(stand, [c.uuid for c in found.calls], voice, within_s=5)
    await _check_nothing_left(stand, found)
    # Those of the phones are already told with their calls.
    news = (Counter(stand.violations()) - told).elements()
    found.problems += [text for text in news if not text.startswith("phone ")]
    _forget(stand)
    return found


async def _check_idle(stand: Stage, found: Round, hung_up_s: float) -> None:
    """No live call soon after the last hang-up, in memory and in the rows."""
    while time.monotonic() - hung_up_s < IDLE_S + 8:
        mine = await stand.server.ahealth("/api/health?node=self")
        fleet = await stand.server.ahealth()
        if mine["sessions"]["active_count"] == fleet["sessions"]["active_count"] == 0:
            found.idle_after_s = time.monotonic() - hung_up_s
            break
        await asyncio.sleep(0.05)
    if found.idle_after_s is None or found.idle_after_s > IDLE_S:
        found.problems.append(f"calls were still live {IDLE_S} s after the last hang-up")
    listed = await stand.server.amanage("sessions", "--json")
    try:
        rows = json.loads(listed.stdout)
    except ValueError:
        found.problems.append(f"manage.py sessions --json is no JSON: {listed.stdout[:80]!r}")
        return
    left = rows if isinstance(rows, list) else [v for v in rows.values() if isinstance(v, list)]
    if any(left):
        found.problems.append(f"rows are still live: {str(left)[:200]}")


async def _check_nothing_left(stand: Stage, found: Round) -> None:
    """Neither the stand-ins nor the process hold anything that belonged to a call."""
    process = stand.server.process
    holders: dict[str, Callable[[], int]] = {
        "OpenAI": lambda: stand.openai.open_connections,
        "Speechmatics": lambda: stand.speechmatics.open_connections,
        "phones": lambda: stand.vonage.open_sockets,
    }
    for name, count in holders.items():
        if not await _comes_true(lambda: count() == 0, 5.0):  # noqa: B023 - awaited right here
            found.problems.append(f"{count()} connections to {name} are still open")
    targets = process.fd_targets()
    await _comes_true(lambda: process.fds() <= found.fds_before, SETTLED_S)
    found.fds_after = process.fds()
    found.rss_mib = process.rss_bytes() / 2**20
    if found.fds_after > found.fds_before:
        more = [each for each in targets if not each.startswith(("socket:", "pipe:", "anon"))]
        found.problems.append(
            f"file descriptors: {found.fds_before} before, {found.fds_after} after; files: {more}"
        )


async def _comes_true(probe: Callable[[], bool], within_s: float) -> bool:
    try:
        return await eventually("it", probe, within_s, every_s=0.1)
    except NeverHappenedError:
        return False


def _forget(stand: Stage) -> None:
    """What earlier rounds left in the stand-ins themselves must not slow down the next."""
    stand.openai.connections.clear()
    stand.openai.script.replies = deque()
    for phone in stand.vonage.phones:
        for media in phone.media_legs:
            media.playback.played.clear()


_GREETING = "Good morning, you have reached the reception. How may I help you today?"
_LONG_ANSWER = (
    "Of course, I am glad to help you with that. Let me tell you everything there is to know "
    "about it, from the very beginning to the very end, without leaving anything out."
)

if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
