"""The relay ladder: so many calls at once through each system, on one core, in one run.

    python -m benchmarks.relay                       # 1, 10, 30, 60 and 100 calls, all systems
    python -m benchmarks.relay --calls 30 --systems product-dense,bare --seconds 30

Every system has the same callers and the same model's stand-in, a core of its own, and one after
the other the same number of calls; ratios to the bare relay of the same rung are what counts.
Prints one table, writes JSON with `--json FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import command
from benchmarks.command import say, up_to, write_json
from benchmarks.figures import Noted, Rung, both_ms, percentile
from benchmarks.model import Conversation, Model
from benchmarks.phones import Phone
from benchmarks.report import relay_table
from benchmarks.running import PIPECAT_PYTHON, PRODUCTS, Cores, System, product, relay, run
from benchmarks.stamps import PHONES_MOST
from tests.fakes.waiting import NeverHappenedError, eventually

SYSTEMS = ("bare", *PRODUCTS, "pipecat")
LADDER = (1, 10, 30, 60, 100)
#: Calls begin so far apart, and their frames are spread over the 20 ms by that.
APART_S = 0.053
#: From the last call's beginning until its greeting is over and its conversation under way.
SETTLE_S = 6.0
#: Stamps are read of about so many calls; of all others the frames are only carried.
READ_MOST = 30


def _rungs(text: str) -> list[int]:
    return [up_to(PHONES_MOST)(each) for each in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__, SYSTEMS)
    ladder = ",".join(map(str, LADDER))
    parser.add_argument(
        "--calls", type=_rungs, default=LADDER, help=f"calls at once, a list (default {ladder})"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1, help="each rung so often; medians count")
    asked = parser.parse_args()
    if "pipecat" in asked.systems and not PIPECAT_PYTHON.exists():
        parser.error("pipecat has an environment of its own, which `make bench` makes")
    return asked


@asynccontextmanager
async def running(
    name: str, openai_url: str, cores: Cores, asked: argparse.Namespace
) -> AsyncIterator[System]:
    """One of `SYSTEMS`, ready for calls."""
    if name == "bare":
        async with relay(name, Path(sys.executable), "bare_relay.py", openai_url, cores) as it:
            yield it
    elif name == "pipecat":
        async with relay(name, PIPECAT_PYTHON, "pipecat_relay.py", openai_url, cores) as it:
            yield it
    else:
        async with product(
            name,
            PRODUCTS[name],
            openai_url,
            cores,
            database=asked.database,
            redis_url=asked.redis,
        ) as served:
            yield served


class Load:
    """The callers of one measurement and the model's stand-in."""

    def __init__(self, join: Callable[[Phone, Conversation], None] | None = None) -> None:
        """`join` is told which phone and which of the model's conversations are one call."""
        self.noted = Noted()
        self.phones: dict[int, Phone] = {}
        self.model = Model(self._known)
        self._join = join or self.noted.join

    def _known(self, conversation: Conversation) -> None:
        number = conversation.reader.phone
        assert number is not None
        phone = self.phones.get(number)
        if phone is None:
            raise ValueError(f"audio of phone {number}, which does not call")
        self._join(phone, conversation)
        conversation.read_stamps = number % max(1, round(len(self.phones) / READ_MOST)) == 0

    async def ring(self, system: System, calls: int) -> None:
        """All callers, one after the other, until the model hears each of them."""
        for number in range(calls):
            self.phones[number] = Phone(number, self.noted.load_late_s)
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        for number, phone in self.phones.items():
            where = urlsplit(await system.ring(number))
            assert where.hostname and where.port
            phone.on_sound = partial(self._greeted, phone)
            await phone.connect(where.hostname, where.port, where.path)
            due_s += APART_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
        await eventually(
            "every caller to be heard by the model",
            lambda: all(phone.known for phone in self.phones.values()),
            20.0,
            every_s=0.1,
        )

    def _greeted(self, phone: Phone, heard_s: float) -> None:
        self.noted.greeting_s.append(heard_s - phone.opened_s)

    async def hang_up(self, system: System) -> None:
        for number, phone in self.phones.items():
            phone.hang_up()
            await system.hung_up(number)
        await eventually(
            "the model's conversations to end", lambda: not self.model.open_conversations, 20.0
        )


async def measure(system: System, load: Load, calls: int, window_s: float) -> Rung:
    """So many calls, for so long."""
    process = system.process
    idle_bytes = process.rss_bytes()
    await load.ring(system, calls)
    await asyncio.sleep(SETTLE_S)
    phones = list(load.phones.values())
    for phone in phones:
        phone.dry_s.clear()
    load.noted.begin()
    gc.collect()
    gc.disable()
    began_s, cpu_s, load_cpu_s = time.perf_counter(), process.cpu_s(), _own_cpu_s()
    await asyncio.sleep(window_s)
    elapsed_s = time.perf_counter() - began_s
    cpu_s, load_cpu_s = process.cpu_s() - cpu_s, _own_cpu_s() - load_cpu_s
    gc.enable()
    noted = load.noted
    problems = [text for phone in phones for text in phone.complaints[:1]]
    gone = sum(not phone.open for phone in phones)
    if gone:
        problems.append(f"{gone} of {calls} calls broke off")
    rung = Rung(
        system=system.name,
        calls=calls,
        window_s=round(elapsed_s, 2),
        cpu_ms_per_call_s=cpu_s * 1000 / (calls * elapsed_s),
        core_share=cpu_s / elapsed_s,
        to_model_ms=both_ms(noted.to_model_s),
        to_phone_ms=both_ms(noted.to_phone_s),
        clear_ms=both_ms(noted.clear_s),
        greeting_ms=both_ms(noted.greeting_s),
        dry=sum(len(phone.dry_s) for phone in phones),
        clears=len(noted.clear_s),
        very_late=noted.very_late,
        kb_per_call=(process.rss_bytes() - idle_bytes) / 1000 / calls,
        load_late_ms=percentile(noted.load_late_s, 0.99) * 1000,
        load_share=load_cpu_s / elapsed_s,
        problems=tuple(problems),
    )
    await load.hang_up(system)
    return rung


def _own_cpu_s() -> float:
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return mine.ru_utime + mine.ru_stime


async def one_rung(name: str, calls: int, cores: Cores, asked: argparse.Namespace) -> Rung:
    load = Load()
    await load.model.start()
    try:
        async with running(name, load.model.url, cores, asked) as system:
            try:
                return await measure(system, load, calls, asked.seconds)
            except NeverHappenedError as error:
                raise RuntimeError(
                    f"{name}, {calls} calls: {error}\n{system.process.tail()}"
                ) from None
    finally:
        load.model.stop()


async def main(asked: argparse.Namespace) -> int:
    cores = Cores.found()
    cores.take_load()
    rungs: list[Rung] = []
    saturated: set[str] = set()
    for calls in asked.calls:
        for number in range(asked.rounds):
            for name in asked.systems:
                if name in saturated:
                    continue
                say(f"{calls} calls, {name}" + (f", round {number + 1}" if number else ""))
                rung = await one_rung(name, calls, cores, asked)
                rungs.append(rung)
                say(
                    f"  {rung.cpu_ms_per_call_s:.1f} ms of CPU a call-second, "
                    f"{rung.core_share:.0%} of its core"
                )
        saturated |= {rung.system for rung in rungs if rung.calls == calls and rung.saturated}
    write_json(asked.json, rungs)
    print(relay_table(rungs))
    problems = [f"{r.system}, {r.calls} calls: {text}" for r in rungs for text in r.problems]
    for text in problems:
        say(f"PROBLEM {text}")
    return 1 if any(text.startswith("product") for text in problems) else 0


if __name__ == "__main__":
    sys.exit(run(main(arguments())))
