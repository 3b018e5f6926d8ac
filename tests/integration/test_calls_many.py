"""The thousandth call is answered like the first: many in a row, many at once, nothing left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.openai import Reply
from tests.fakes.stage import Stage
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    VOICES,
    House,
    Voice,
    calling,
    clean,
    end_lines,
    logged_at,
    quiet,
    ring,
)

ROW = 10
AT_ONCE = 30


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting="Hello.") as house:
        yield house


@dataclass(frozen=True, slots=True)
class Left:
    """What a process and its peers hold while no call is live.

    files: without the idle connections to the carrier's REST API, which are kept for the next call.
    """

    files: int
    to_model: int
    to_speech: int
    live_rows: int

    @classmethod
    def of(cls, house: House) -> Left:
        s = house.stage
        live = house.rows.ask("SELECT count(*) AS n FROM sessions_app_callrecord WHERE state <> 90")
        return cls(
            s.server.fds() - s.vonage.open_connections,
            s.openai.open_connections,
            s.speechmatics.open_connections,
            int(live[0]["n"]),
        )


async def one_call(s: Stage, voice: Voice, nth: int) -> tuple[str, Voice, float, float]:
    """A call of the nth caller; uuid, voice, seconds to the greeting, unix time of its end."""
    async with ring(s, voice, caller=f"4477009{nth:05}") as phone:
        greeted_s = await phone.wait_for_voice(20.0) - phone.started_s
        conn = await s.connection_of(phone, 20.0)
        await quiet(phone)
        asked_s = time.monotonic()
        await conn.caller_said("What is next?")
        await phone.wait_for_voice(20.0, since_s=asked_s)
        if nth % 3 == 0:
            await conn.call_tool("end_call", {}, say="Goodbye.")
            await phone.wait_ended(30.0)
            assert phone.ended_by == "platform"
        else:
            await phone.hang_up()
        assert phone.talked == [], "an apology"
        assert conn.errors == {}
        return phone.uuid, voice, greeted_s, time.time()


async def nothing_left(house: House, before: Left) -> None:
    """Two seconds after the last hang-up everything is as it was before the first call."""

    def same() -> bool:
        now = Left.of(house)
        return (
            now.live_rows == 0
            and now.files <= before.files
            and (now.to_model, now.to_speech) == (before.to_model, before.to_speech)
        )

    try:
        await eventually("everything released", same, 4.0, every_s=0.1)
    except AssertionError:
        raise AssertionError(
            f"before {before}, after {Left.of(house)}\n"
            + "\n".join(house.stage.server.process.fd_targets())
        ) from None


def told_in_full(house: House, calls: list[tuple[str, Voice, float, float]]) -> None:
    """The contract's lines for each, in time; and in the end no session is left."""
    server = house.stage.server
    for uuid, voice, _, over_s in calls:
        assert end_lines(server, uuid, voice) == []
        # Both clocks are this machine's; what our own loop was late by only makes it look slower.
        assert logged_at(server, uuid, "Session removed") - over_s < 2.0
    removed = [line.text for line in server.log if "Session removed. Active sessions:" in line.text]
    assert removed[-1].endswith("Active sessions: 0")
    assert not [line.text for line in server.log if "non-existent session" in line.text]


async def warm(house: House) -> Left:
    """Calls of each kind at once, so that everything that is made once has been made."""
    calls = [(VOICES[nth % 2], nth) for nth in range(12)]
    await asyncio.gather(*(one_call(house.stage, voice, nth) for voice, nth in calls))
    await house.stage.server.ahealth()
    await eventually("all rows ended", lambda: not Left.of(house).live_rows)
    return Left.of(house)


def test_ten_in_a_row_and_then_thirty_at_once(house: House) -> None:
    async def scenario() -> None:
        s = house.stage
        # Short answers, as the default sentence takes 2.4 s to say.
        s.openai.script.otherwise = Reply(audio_ms=500, text="This one.")
        s.openai.script.replies.clear()
        before = await warm(house)
        async with clean(s):
            row = [await one_call(s, VOICES[nth % 2], nth) for nth in range(ROW)]
        await nothing_left(house, before)
        told_in_full(house, row)
        print(f"in a row: greeted within {max(call[2] for call in row):.2f} s")
        async with clean(s, within_s=4.0):
            burst = await asyncio.gather(
                *(one_call(s, VOICES[nth % 2], nth) for nth in range(AT_ONCE))
            )
        await nothing_left(house, before)
        told_in_full(house, list(burst))
        print(f"at once: greeted within {max(call[2] for call in burst):.2f} s")
        listed = await s.server.amanage("sessions", "--json")
        assert json.loads(listed.stdout) == []
        ends = house.rows.ask(
            "SELECT end_reason, greeting_heard_at IS NULL AS mute, count(*) AS n "
            "FROM sessions_app_callrecord GROUP BY 1, 2"
        )
        assert {(e["end_reason"], e["mute"]) for e in ends} == {
            ("agent_ended", 0), ("caller_hung_up", 0)
        }  # fmt: skip

    house.run(scenario(), 110)
