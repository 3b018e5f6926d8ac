"""The answer webhook while calls are live: so many answers a second, beside so many calls.

    python -m benchmarks.answer                     # 30 a second beside 50 calls, both servers
    python -m benchmarks.answer --rate 10 --calls 100 --seconds 30

Each answer begins a call whose caller hangs up a moment later, before his media has come; the
delays are from the moment the webhook was due, so a server that falls behind is not asked more
gently. Health is asked twice a second beside it. Prints one table, writes JSON with `--json FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from benchmarks import command
from benchmarks.command import say, write_json
from benchmarks.figures import both_ms, percentile
from benchmarks.relay import SETTLE_S, Load
from benchmarks.report import pair, table
from benchmarks.running import PRODUCTS, CallRequests, Cores, Product, product, run
from benchmarks.webhooks import Answer, Client, request

#: From an answer to the hang-up of a caller who changes his mind.
PATIENCE_S = 0.5
HEALTH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Answered:
    """One system under so many answers; times in milliseconds."""

    system: str
    calls: int
    rate: float
    answers: int
    failed: int
    answer_ms: tuple[float, float]
    health_ms: tuple[float, float]
    #: A frame of the live calls, from the phone to the model, meanwhile.
    to_model_ms: tuple[float, float]
    core_share: float
    #: How late the callers themselves were with their frames.
    load_late_ms: float


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__, PRODUCTS)
    parser.add_argument("--calls", type=int, default=50, help="live calls beside it")
    parser.add_argument("--rate", type=float, default=30.0, help="answers a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args()


async def rush(served: Product, signed: list[CallRequests], rate: float) -> tuple[list[float], int]:
    """These calls' answers at that rate; the delays in seconds of those that were good, and how
    many requests failed.
    """
    delays: list[float] = []
    failed = 0
    client = Client(served.server.url)

    def fails(what: str, answer: Answer) -> None:
        nonlocal failed
        failed += 1
        say(f"PROBLEM {what} with {answer.status}: {answer.body!r}")

    async def caller(number: int, calls: CallRequests, due_s: float) -> None:
        served.legs[number] = calls.leg
        answer = await client.ask(calls.answer)
        if answer.status != 200 or b'"connect"' not in answer.body:
            fails("an answer", answer)
            return
        delays.append(answer.at_s - due_s)
        if (told := await client.ask(calls.answered)).status != 204:
            fails("an event", told)
        await asyncio.sleep(PATIENCE_S)
        del served.legs[number]
        if (told := await client.ask(calls.completed)).status != 204:
            fails("an event", told)

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for count, calls in enumerate(signed):
            due_s = began_s + count / rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            callers.create_task(caller(1000 + count, calls, due_s))
    client.close()
    return delays, failed


async def ask_health(served: Product, delays: list[float]) -> None:
    url = served.server.url
    client, asking = Client(url), request("GET", f"{url}/api/health", {})
    try:
        while True:
            asked_s = time.perf_counter()
            answer = await client.ask(asking)
            if answer.status != 200:
                raise RuntimeError(f"health answered with {answer.status}: {answer.body!r}")
            delays.append(answer.at_s - asked_s)
            await asyncio.sleep(HEALTH_EVERY_S)
    finally:
        client.close()


async def one(name: str, cores: Cores, asked: argparse.Namespace) -> Answered:
    load = Load()
    await load.model.start()
    try:
        async with product(
            name,
            PRODUCTS[name],
            load.model.url,
            cores,
            database=asked.database,
            redis_url=asked.redis,
        ) as served:
            if asked.calls:
                await load.ring(served, asked.calls)
            # Whatever is made once, for the first calls, is made.
            await rush(served, [served.signed(number) for number in range(10)], 5.0)
            signed = [served.signed(n) for n in range(math.floor(asked.rate * asked.seconds))]
            await asyncio.sleep(SETTLE_S)
            load.noted.begin()
            health_s: list[float] = []
            asking = asyncio.create_task(ask_health(served, health_s))
            began_s, cpu_s = time.perf_counter(), served.process.cpu_s()
            delays, failed = await rush(served, signed, asked.rate)
            elapsed_s = time.perf_counter() - began_s
            cpu_s = served.process.cpu_s() - cpu_s
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            figures = Answered(
                system=name,
                calls=asked.calls,
                rate=asked.rate,
                answers=len(delays),
                failed=failed,
                answer_ms=both_ms(delays),
                health_ms=both_ms(health_s),
                to_model_ms=both_ms(load.noted.to_model_s),
                core_share=cpu_s / elapsed_s,
                load_late_ms=percentile(load.noted.load_late_s, 0.99) * 1000,
            )
            await load.hang_up(served)
            return figures
    finally:
        load.model.stop()


async def main(asked: argparse.Namespace) -> int:
    cores = Cores.found()
    cores.take_load()
    found: list[Answered] = []
    for name in asked.systems:
        say(f"{name}: {asked.rate:g} answers a second beside {asked.calls} calls")
        found.append(await one(name, cores, asked))
    write_json(asked.json, found)
    head = (
        "system", "live calls", "answers a second", "failed", "answer p50 / p99 ms",
        "health p50 / p99 ms", "frame → model p50 / p99 ms", "of its core",
        "load late p99 ms",
    )  # fmt: skip
    rows = [
        (
            each.system,
            str(each.calls),
            f"{each.rate:g}",
            str(each.failed),
            pair([each.answer_ms]),
            pair([each.health_ms]),
            pair([each.to_model_ms]),
            f"{each.core_share:.0%}",
            f"{each.load_late_ms:.1f}",
        )
        for each in found
    ]
    print(table(head, rows))
    return 1 if any(each.failed for each in found) else 0


if __name__ == "__main__":
    sys.exit(run(main(arguments())))
