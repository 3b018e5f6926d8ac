"""Answers in Speechmatics' voice: how soon a first sentence is asked for, and how soon heard.

    python -m benchmarks.speech                     # 30 calls, both servers
    python -m benchmarks.speech --calls 10 --systems product-dense

The model's stand-in writes twenty words a second, the voice's takes 150 ms to its first byte and
sends four times as fast as it sounds. Two delays are the product's own: from the word that makes
the first sentence complete to the request for it, and from the first byte of its sound to the
phone's first loud frame. Prints one table, writes JSON with `--json FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from dataclasses import dataclass, field

from benchmarks import command
from benchmarks.command import say, up_to, write_json
from benchmarks.figures import both_ms
from benchmarks.model import Conversation, tone
from benchmarks.phones import Phone
from benchmarks.relay import SETTLE_S, Load
from benchmarks.report import pair, table
from benchmarks.running import GREETING, PRODUCTS, Cores, product, run
from benchmarks.stamps import PHONES_MOST
from tests.fakes.waiting import NeverHappenedError
from tests.fakes.web import ClientGone, Exchange, WebServer

VOICE_HZ = 16_000
FIRST_BYTE_S = 0.15
SPEED = 4.0
PIECE_MS = 100
_MS_PER_LETTER = 60
_FIRST_SENTENCE = re.compile(r"Caller (\d+) wants")
_READY_S = 60.0


@dataclass(slots=True)
class Noted:
    """Delays in seconds."""

    #: From a first sentence that is complete to the request for its sound.
    asked_s: list[float] = field(default_factory=list)
    #: From the first byte of that to the first loud frame at the phone.
    heard_s: list[float] = field(default_factory=list)

    def begin(self) -> None:
        self.asked_s.clear()
        self.heard_s.clear()


class Voice:
    """Speechmatics' synthesis, as far as it is used; `tests.fakes.speechmatics` is the strict
    one.
    """

    def __init__(self, noted: Noted) -> None:
        self.web = WebServer(self._speak)
        self._noted = noted
        self._phones: dict[int, Phone] = {}
        self._complete_s: dict[int, float] = {}

    def join(self, phone: Phone, conversation: Conversation) -> None:
        """Phone and model of one call, once they are known to be."""
        phone.known = True
        self._phones[phone.number] = phone

        def first_sentence(now: float) -> None:
            self._complete_s[phone.number] = now

        conversation.on_first_sentence = first_sentence

    async def _speak(self, exchange: Exchange) -> None:
        asked_s = time.perf_counter()
        wanted = exchange.request.json()
        text = str(wanted["text"]) if isinstance(wanted, dict) else ""
        found = _FIRST_SENTENCE.match(text)
        phone = self._phones.get(int(found[1])) if found else None
        if phone is not None and (complete_s := self._complete_s.pop(phone.number, None)):
            self._noted.asked_s.append(asked_s - complete_s)
        try:
            await exchange.pause(FIRST_BYTE_S)
            await exchange.begin(200, "audio/pcm")
            if phone is not None:
                self._await_sound(phone)
            pieces = 1 + len(text) * _MS_PER_LETTER // PIECE_MS
            for _ in range(pieces):
                await exchange.send(_PIECE)
                await asyncio.sleep(PIECE_MS / 1000 / SPEED)
            await exchange.end()
        except ClientGone:
            pass

    def _await_sound(self, phone: Phone) -> None:
        sent_s = time.perf_counter()
        phone.on_sound = lambda heard_s: self._noted.heard_s.append(heard_s - sent_s)


_PIECE = tone(VOICE_HZ, PIECE_MS)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One system; times in milliseconds."""

    system: str
    calls: int
    answers: int
    asked_ms: tuple[float, float]
    heard_ms: tuple[float, float]
    core_share: float


def arguments() -> argparse.Namespace:
    parser = command.parser(__doc__, PRODUCTS)
    parser.add_argument(
        "--calls", type=up_to(PHONES_MOST), default=30, help=f"at once, at most {PHONES_MOST}"
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args()


async def one(name: str, cores: Cores, asked: argparse.Namespace) -> Spoken:
    noted = Noted()
    voice = Voice(noted)
    load = Load(voice.join)
    await load.model.start()
    try:
        async with (
            voice.web,
            product(
                name,
                PRODUCTS[name],
                load.model.url,
                cores,
                database=asked.database,
                redis_url=asked.redis,
                env={"SPEECHMATICS_API_KEY": "bench", "SPEECHMATICS_TTS_URL": voice.web.url},
            ) as served,
        ):
            made = await served.server.amanage(
                *("agent", "Sarah", "--voice", "speechmatics:sarah", "--default"),
                *("--greeting", GREETING),
            )
            if made.returncode:
                raise RuntimeError(made.stderr)
            await served.server.wait_for_log("made audio for agent 'Sarah'", _READY_S)
            try:
                await load.ring(served, asked.calls)
            except NeverHappenedError as never:
                raise RuntimeError(f"{never}\n{served.process.tail()}") from None
            await asyncio.sleep(SETTLE_S)
            noted.begin()
            began_s, cpu_s = time.perf_counter(), served.process.cpu_s()
            await asyncio.sleep(asked.seconds)
            elapsed_s = time.perf_counter() - began_s
            cpu_s = served.process.cpu_s() - cpu_s
            figures = Spoken(
                system=name,
                calls=asked.calls,
                answers=len(noted.heard_s),
                asked_ms=both_ms(noted.asked_s),
                heard_ms=both_ms(noted.heard_s),
                core_share=cpu_s / elapsed_s,
            )
            await load.hang_up(served)
            return figures
    finally:
        load.model.stop()


async def main(asked: argparse.Namespace) -> int:
    cores = Cores.found()
    cores.take_load()
    found: list[Spoken] = []
    for name in asked.systems:
        say(f"{name}: {asked.calls} calls")
        found.append(await one(name, cores, asked))
    write_json(asked.json, found)
    head = (
        "system", "calls", "answers", "first sentence → asked for p50 / p99 ms",
        "first byte → phone p50 / p99 ms", "of its core",
    )  # fmt: skip
    rows = [
        (
            each.system,
            str(each.calls),
            str(each.answers),
            pair([each.asked_ms]),
            pair([each.heard_ms]),
            f"{each.core_share:.0%}",
        )
        for each in found
    ]
    print(table(head, rows))
    return 0 if all(each.answers for each in found) else 1


if __name__ == "__main__":
    sys.exit(run(main(arguments())))
