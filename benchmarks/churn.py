"""Calls that come and go: whether the thousandth leaves more behind than the tenth.

    python -m benchmarks.churn                            # 10,000 short calls, ten at a time
    python -m benchmarks.churn --calls 2000 --systems product-dense

Each caller is greeted and hangs up. The memory of the process is read every hundred calls; its
slope is the median of the slopes between all pairs of readings, after the first fifth (Sen's), and
the column beside it tells the last fifth's alone. Prints one table, writes JSON with `--json FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from urllib.parse import urlsplit

from benchmarks import command
from benchmarks.command import say, up_to, write_json
from benchmarks.figures import both_ms
from benchmarks.model import Model
from benchmarks.phones import Phone
from benchmarks.report import pair, table
from benchmarks.running import PRODUCTS, Cores, Product, product, run
from benchmarks.stamps import PHONES_MOST
from tests.fakes.waiting import eventually

READ_EVERY = 100


@dataclass(frozen=True, slots=True)
class Churned:
    """One system after so many calls."""

    system: str
    calls: int
    seconds: float
    greeting_ms: tuple[float, float]
    fds: tuple[int, int]
    #: Resident memory before the first call and after the last.
    memory_mb: tuple[float, float]
    bytes_per_call: float
    bytes_per_call_at_the_end: float
    cpu_ms_per_call: float


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__, PRODUCTS)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument(
        "--at-once", type=up_to(PHONES_MOST), default=10, help=f"at most {PHONES_MOST}"
    )
    return parser.parse_args()


def slope(readings: list[tuple[int, int]]) -> float:
    """Bytes a call, of (calls so far, bytes); 0 of fewer than two readings."""
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(readings, 2)]
    return median(slopes) if slopes else 0.0


async def one_call(served: Product, number: int, greetings_s: list[float]) -> None:
    phone = Phone(number % PHONES_MOST, [])
    greeted = asyncio.Event()

    def heard(now: float) -> None:
        greetings_s.append(now - phone.opened_s)
        greeted.set()

    phone.on_sound = heard
    where = urlsplit(await served.ring(number))
    assert where.hostname and where.port
    await phone.connect(where.hostname, where.port, where.path)
    async with asyncio.timeout(10):
        await greeted.wait()
    await asyncio.sleep(0.2)
    phone.hang_up()
    await served.hung_up(number)


async def churn(name: str, cores: Cores, asked: argparse.Namespace) -> Churned:
    model = Model(lambda conversation: None)
    await model.start()
    try:
        async with product(
            name,
            PRODUCTS[name],
            model.url,
            cores,
            database=asked.database,
            redis_url=asked.redis,
        ) as served:
            process = served.process
            greetings_s: list[float] = []
            for number in range(asked.at_once):
                await one_call(served, number, greetings_s)
            greetings_s.clear()
            fds, memory = process.fds(), process.rss_bytes()
            began_s, cpu_s = time.perf_counter(), process.cpu_s()
            readings: list[tuple[int, int]] = []
            numbers = iter(range(asked.calls))

            async def caller() -> None:
                for number in numbers:
                    await one_call(served, number, greetings_s)
                    if number % READ_EVERY == 0:
                        readings.append((number, process.rss_bytes()))
                        model.forget()
                    if number and number % 1000 == 0:
                        say(f"  {number} calls, {readings[-1][1] / 1e6:.1f} MB")

            async with asyncio.TaskGroup() as callers:
                for _ in range(asked.at_once):
                    callers.create_task(caller())
            elapsed_s, cpu_s = time.perf_counter() - began_s, process.cpu_s() - cpu_s
            await eventually("every call to be over", lambda: not served.live_calls(), 10.0)
            later = [each for each in readings if each[0] >= asked.calls / 5]
            last = [each for each in readings if each[0] >= asked.calls * 0.8]
            return Churned(
                system=name,
                calls=asked.calls,
                seconds=elapsed_s,
                greeting_ms=both_ms(greetings_s),
                fds=(fds, process.fds()),
                memory_mb=(memory / 1e6, process.rss_bytes() / 1e6),
                bytes_per_call=slope(later),
                bytes_per_call_at_the_end=slope(last),
                cpu_ms_per_call=cpu_s * 1000 / asked.calls,
            )
    finally:
        model.stop()


async def main(asked: argparse.Namespace) -> int:
    cores = Cores.found()
    cores.take_load()
    found: list[Churned] = []
    for name in asked.systems:
        say(f"{name}: {asked.calls} calls, {asked.at_once} at a time")
        found.append(await churn(name, cores, asked))
    write_json(asked.json, found)
    head = (
        "system", "calls", "in", "greeting p50 / p99 ms", "CPU ms a call", "descriptors",
        "memory MB", "bytes a call", "in the last fifth",
    )  # fmt: skip
    rows = [
        (
            each.system,
            str(each.calls),
            f"{each.seconds:.0f} s",
            pair([each.greeting_ms]),
            f"{each.cpu_ms_per_call:.0f}",
            "{} → {}".format(*each.fds),
            "{:.1f} → {:.1f}".format(*each.memory_mb),
            f"{each.bytes_per_call:+.0f}",
            f"{each.bytes_per_call_at_the_end:+.0f}",
        )
        for each in found
    ]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main(arguments())))
