"""Audio that exists before it is needed: made by a real server in each agent's own voice."""

from __future__ import annotations

import asyncio
import wave
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.fakes.openai import RealtimeConnection, Reply
from tests.fakes.pattern import audible
from tests.fakes.server import RunningServer
from tests.fakes.stage import Stage, stage
from tests.fakes.waiting import eventually
from tests.integration.conversation import VOICES, clean, furnish, ring

QUICK = {"PREPARE_AUDIO": "1", "HEARTBEAT_SECONDS": "0.5", "LOST_SECONDS": "2"}
GREETING = "Good morning, you have reached Acme."
#: The house's in English, and how many files two agents of two voices have.
HOUSE = {"one_moment", "still_here", "apology", "goodbye"}
FILES = 2 * (len(HOUSE) + 1)


@asynccontextmanager
async def preparing(env: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
    """A server with one agent for each voice; the agents are there before it looks."""
    async with stage(env={**QUICK, "PREPARE_AUDIO": "0", **(env or {})}) as s:
        await asyncio.to_thread(furnish, s.server, greeting=GREETING)
        await s.server.aterminate()
        s.server.env["PREPARE_AUDIO"] = "1"
        yield s


async def begin(s: Stage) -> None:
    await asyncio.to_thread(s.server.restart)


def clips(s: Stage) -> dict[str, list[str]]:
    """The file names of each phrase; every one of them can be played and heard."""
    found: dict[str, list[str]] = {}
    for path in sorted((Path(s.server.env["MEDIA_ROOT"]) / "prepared").glob("*.wav")):
        with wave.open(str(path)) as file:
            pcm, rate = file.readframes(10**7), file.getframerate()
            assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert len(pcm) > rate * 2 * 0.3, f"{path.name} is too short"
        assert audible(pcm[rate * 2 * 20 // 1000 :][: rate * 2 * 60 // 1000]), "it begins late"
        found.setdefault(path.name.partition("-")[0], []).append(path.name)
    return found


async def all_there(s: Stage, files: int = FILES, timeout_s: float = 45.0) -> None:
    await eventually(
        f"{files} clips", lambda: sum(map(len, clips(s).values())) >= files, timeout_s, every_s=0.1
    )
    assert sum(map(len, clips(s).values())) == files


async def nothing_left(s: Stage) -> None:
    await eventually("no socket to the model", lambda: not s.openai.open_connections)
    await eventually("no speech under way", lambda: not s.speechmatics.open_connections)
    assert s.violations() == []
    assert not [line.text for line in s.server.log if "Traceback" in line.text]


def asked(conn: RealtimeConnection) -> list[str]:
    """What the model was asked to say."""
    wanted = [event["response"] for event in conn.got("response.create")]
    assert all(response["tool_choice"] == "none" for response in wanted)
    return [response["instructions"].partition("Say exactly: ")[2] for response in wanted]


def test_every_agent_has_its_audio_soon_after_the_start_and_after_a_change() -> None:
    async def story() -> None:
        async with preparing() as s:
            await begin(s)
            await all_there(s)

            assert {phrase: len(names) for phrase, names in clips(s).items()} == dict.fromkeys(
                {"greeting", *HOUSE}, 2
            )
            (conn,) = s.openai.connections
            assert asked(conn)[0] == GREETING and len(asked(conn)) == 5
            assert "openai-safety-identifier" in conn.headers
            assert Counter(r.text for r in s.speechmatics.requests)[GREETING] == 1
            await nothing_left(s)

            changed = "Good evening, Acme is closed now."
            await s.server.amanage("agent", "Receptionist", "--greeting", changed)
            await all_there(s, FILES + 1)

            assert len(s.openai.connections) == 2 and asked(s.openai.connections[1]) == [changed]
            await nothing_left(s)

    asyncio.run(story())


def test_what_is_there_is_found_at_the_next_start_and_not_made_again() -> None:
    async def story() -> None:
        async with preparing() as s:
            await begin(s)
            await all_there(s)
            await s.server.aterminate()

            await begin(s)
            for voice in VOICES:
                async with clean(s), ring(s, voice) as phone:
                    await phone.wait_for_voice(8.0)

            assert len(s.openai.connections) == 3, "one to prepare, one for each call"
            assert sum(map(len, clips(s).values())) == FILES

    asyncio.run(story())


def test_a_supplier_that_is_away_is_tried_again_and_the_other_goes_on() -> None:
    async def story() -> None:
        async with preparing() as s:
            await s.openai.stop()
            await begin(s)
            await s.server.wait_for_log("cannot be made now, it is tried again later", 45.0)
            await all_there(s, FILES // 2)
            assert {request.voice_name for request in s.speechmatics.requests} == {"sarah"}

            await s.openai.start()
            await all_there(s)

            told = [line for line in s.server.log if "cannot be made now" in line.text]
            assert len(told) == 1
            await nothing_left(s)

    asyncio.run(story())


def test_a_model_that_will_not_say_the_greeting_leaves_only_that_out() -> None:
    async def story() -> None:
        async with preparing() as s:
            s.openai.script.replies.extend([Reply(text="Sure, I can say that!")] * 2)
            await begin(s)
            await s.server.wait_for_log("does not say 'greeting' as wanted", 45.0)
            await all_there(s, FILES - 1)

            (conn,) = s.openai.connections
            assert asked(conn)[:2] == [GREETING] * 2 and len(asked(conn)) == 6
            await nothing_left(s)

    asyncio.run(story())


def test_a_disk_that_takes_nothing_breaks_nothing() -> None:
    async def story() -> None:
        async with preparing() as s:
            s.server.env["MEDIA_ROOT"] = "/dev/null/media"
            await begin(s)
            await s.server.wait_for_log("made audio for agent 'Receptionist'", 45.0)
            await s.server.wait_for_log("made audio for agent 'Sarah'", 45.0)

            for voice in VOICES:
                async with clean(s), ring(s, voice) as phone:
                    await phone.wait_for_voice(8.0)

            assert len(s.openai.connections) == 3, "made once, for memory, and not again"
            told = Counter(line.text.partition(" WARNING ")[2] for line in s.server.log)
            assert max(count for text, count in told.items() if "prepared audio" in text) == 1
            await nothing_left(s)

    asyncio.run(story())


def test_processes_that_share_a_disk_do_not_all_make_the_same() -> None:
    async def story() -> None:
        async with preparing() as s, AsyncExitStack() as stack:
            others = [
                RunningServer(
                    s.openai,
                    s.speechmatics,
                    s.vonage,
                    beside=s.server,
                    env={**QUICK, "MEDIA_ROOT": s.server.env["MEDIA_ROOT"]},
                )
                for _ in range(2)
            ]
            for other in others:
                await stack.enter_async_context(other)
            await all_there(s)

            assert len(s.openai.connections) == 1
            assert len(s.speechmatics.requests) == 5
            await eventually("no socket to the model", lambda: not s.openai.open_sockets)
            assert s.violations() == []

    asyncio.run(story())
