"""Whatever fails, and whenever: what callers hear, 20 ms by 20 ms, on real processes and sockets.

The promise is that a fault of ours or of a supplier's leaves nobody in silence for three seconds;
where it can be recovered from, the conversation goes on, else the caller hears why it ends. The
whole matrix is `tests/unit/core/test_fault_matrix.py`, in virtual time; here is a cell at least of
each kind. Callers really speak, and the model's stand-in really listens. The calls of a test are
made beside each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from tests.fakes.openai import RealtimeConnection, Reply, Script
from tests.fakes.pattern import audible, voice_pcm
from tests.fakes.phone import Person
from tests.fakes.speechmatics import TtsReply
from tests.fakes.stage import Stage, stage
from tests.fakes.vonage import Faults, PhoneCall
from tests.fakes.waiting import eventually
from tests.integration.conversation import (
    ONE_MOMENT,
    PROMISE_S,
    House,
    answered,
    apologised,
    calling,
    clean,
    end_lines,
    furnish,
    hears,
    kinds,
    noises,
    quiet,
    ring,
    silence_for,
    talking,
    turns,
)
from tests.integration.support import Rows

GREETING = "Good day."
PERSON = "442079460111"
WITH_PERSON = "442079460002"
#: The pattern's voice with which callers ask their first question, and the next one.
FIRST, NEXT = 9, 12
QUESTION_MS = 800


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with calling(greeting=GREETING) as house:
        lines = (
            "from django.core.management import call_command as c",
            f"c('agent', 'Anna', greeting={GREETING!r}, fallback_number={PERSON!r})",
            f"c('number', {WITH_PERSON!r}, agent='Anna')",
        )
        done = house.stage.server.manage("shell", "-v", "0", "-c", "\n".join(lines))
        assert done.returncode == 0, done.stderr
        house.stage.openai.script = Script(listens=True)
        yield house


# ---------------------------------------------------------------------- what callers do and hear


async def asks(phone: PhoneCall, voice: int, during: Callable[[], Awaitable[None]] | None) -> float:
    """The caller says something, in the middle of which something may happen. When he was done."""
    phone.media.speak(voice_pcm(voice, 0, QUESTION_MS, phone.media.rate))
    if during is not None:
        await silence_for(QUESTION_MS / 2000)
        await during()
    media = phone.media
    await eventually("the end of the question", lambda: not (media.speaking and media.open))
    return time.monotonic()


async def session_that_heard(s: Stage, phone: PhoneCall, voice: int) -> RealtimeConnection:
    """The session of this caller that heard his whole question, from its first word."""

    def probe() -> RealtimeConnection | None:
        for conn in reversed(s.openai.connections):
            mine = conn.caller() == phone.tone
            for item in conn.conversation.items.values() if mine else ():
                if item.text.startswith(f"Caller's voice {voice} spoke"):
                    tenths = int(item.text.split()[5])
                    assert tenths >= QUESTION_MS / 100 - 1, f"the question was cut: {item.text}"
                    return conn
        return None

    found = await eventually(f"the question of {phone.tone}", probe, 30.0, every_s=0.02)
    assert found is not None
    return found


async def hears_out(phone: PhoneCall, conn: RealtimeConnection, since_s: float) -> float:
    """The agent answered after that moment, and has been heard to the end. When its last sound
    was heard.
    """
    await answered(phone, since_s, 16.0)
    await conn.wait_idle()
    await quiet(phone)
    parts = [part for part in phone.playback.played if audible(part.pcm)]
    return parts[-1].start_s + len(parts[-1].pcm) / (2 * phone.media.rate)


def kept(phone: PhoneCall, since_s: float, until_s: float) -> None:
    """The promise; and nothing but the agent's voice and recordings was heard."""
    silent_s = phone.playback.longest_silence_s(since_s, until_s)
    print(f"{phone.tone}: {silent_s:.2f} s of silence within {until_s - since_s:.1f} s")
    assert silent_s < PROMISE_S, f"{silent_s:.2f} s of silence"
    assert phone.talked == [] and noises(phone) == 0


async def goes_on(s: Stage, phone: PhoneCall) -> None:
    """The next question is heard, and answered."""
    done_s = await asks(phone, NEXT, None)
    conn = await session_that_heard(s, phone, NEXT)
    kept(phone, done_s, await hears_out(phone, conn, done_s))


async def at_once(cells: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All of them beside each other; errors tell which it was."""

    async def one(name: str, cell: Coroutine[Any, Any, None]) -> None:
        try:
            await cell
        except BaseException as error:
            error.add_note(f"in the call: {name}")
            raise

    failed = await asyncio.gather(*(one(*cell) for cell in cells.items()), return_exceptions=True)
    errors = [error for error in failed if isinstance(error, Exception)]
    if errors:
        raise ExceptionGroup("calls in which the promise was not kept", errors)


async def went_well(house: House, phone: PhoneCall) -> None:
    """The row of a call that went on until the caller hung up."""
    row = await house.rows.ended(phone.uuid)
    assert row["end_reason"] == "caller_hung_up", kinds(house.rows, phone.uuid)
    said = [turn.text for turn in turns(house.rows, phone.uuid, "agent")]
    assert said.count(GREETING) == 1 and said[0] == GREETING, said


# ---------------------------------------------------------------------- the model


async def expires(conn: RealtimeConnection) -> None:
    await conn.error("session_expired")
    await conn.close(1001)


async def drops(conn: RealtimeConnection) -> None:
    conn.abort()


async def freezes(conn: RealtimeConnection) -> None:
    conn.freeze()


async def fails_twice(conn: RealtimeConnection) -> None:
    conn.script.replies.extend([Reply(status="failed", code="rate_limit_exceeded")] * 2)


LOSSES: Mapping[str, Callable[[RealtimeConnection], Awaitable[None]]] = {
    "dropped": drops,
    "closed 1011": lambda conn: conn.close(1011, "keepalive ping timeout"),
    "session_expired": expires,
    "frozen": freezes,
}


def test_a_model_lost_while_the_caller_speaks_hears_all_of_it_in_its_next_session(
    house: House,
) -> None:
    s = house.stage

    async def lost(how: Callable[[RealtimeConnection], Awaitable[None]]) -> None:
        async with talking(s, "openai") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            done_s = await asks(talk.phone, FIRST, lambda: how(talk.conn))
            conn = await session_that_heard(s, talk.phone, FIRST)
            kept(talk.phone, done_s, await hears_out(talk.phone, conn, done_s))
            if how is not fails_twice:
                assert conn is not talk.conn and conn.told[0] == ("assistant", GREETING)
            await goes_on(s, talk.phone)
        await went_well(house, talk.phone)

    async def scenario() -> None:
        async with clean(s):
            await at_once({name: lost(how) for name, how in LOSSES.items()})

    house.run(scenario())


def test_a_model_lost_while_the_agent_speaks_goes_on_in_its_next_session(house: House) -> None:
    s = house.stage
    text = " ".join(f"word{number}" for number in range(20))

    async def lost(how: Callable[[RealtimeConnection], Awaitable[None]]) -> None:
        async with talking(s, "openai") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            # No faster than it is heard, so that its rest is lost with the session.
            talk.conn.script.replies.append(Reply(text=text, audio_ms=8000, burst_ms=8000))
            done_s = await asks(talk.phone, FIRST, None)
            await talk.hears(2, 1000)
            before = talk.conn.index
            await how(talk.conn)

            def next_session() -> RealtimeConnection | None:
                found = s.openai.connections[before + 1 :]
                return next((c for c in found if c.caller() == talk.phone.tone), None)

            conn = await eventually("the next session", next_session, 20.0)
            assert conn is not None
            asked = await conn.wait_for("response.create", timeout_s=20.0)
            kept(talk.phone, done_s, await hears_out(talk.phone, conn, asked.at_s))
            told = [words for role, words in conn.told if role == "assistant"]
            # Of the answer, what was heard; and perhaps that the caller was asked to wait.
            assert told[0] == GREETING and told[1] and text.startswith(told[1]), told
            assert told[1] != text
            await goes_on(s, talk.phone)
        await went_well(house, talk.phone)

    async def scenario() -> None:
        async with clean(s):
            await at_once({name: lost(how) for name, how in LOSSES.items()})

    house.run(scenario())


def test_a_session_that_nears_its_end_is_renewed_unheard(house: House) -> None:
    s = house.stage

    async def scenario() -> None:
        usual = s.openai.script
        async with clean(s):
            s.openai.script = Script(listens=True, expires_in_s=12.0)
            async with talking(s, "openai") as talk:
                phone = talk.phone
                heard_s = await hears_out(phone, talk.conn, phone.started_s)
                s.openai.script = usual
                sessions = len(s.openai.connections)
                await eventually(
                    "the next session", lambda: len(s.openai.connections) > sessions, 15.0
                )
                await eventually("the end of the first", lambda: not talk.conn.open, 10.0)
                assert talk.conn.close_code != 1001, "it was left to expire"
                # From here on only the caller's silence is heard, and nothing of the change.
                assert phone.playback.first_audible_s(heard_s + 0.1) is None
                await goes_on(s, phone)
                told = [words for role, words in s.openai.connections[-1].told]
                assert told[0] == GREETING
            await went_well(house, phone)
        found = kinds(house.rows, phone.uuid)
        assert found.count("session_renewed") == 1 and "provider_lost" not in found

    house.run(scenario())


def test_a_model_that_is_deaf_mute_or_fails_is_asked_again_or_replaced(house: House) -> None:
    s = house.stage

    async def once(*replies: Reply) -> None:
        """Something other than an answer is the answer."""
        async with talking(s, "openai") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            talk.conn.script.replies.extend(replies)
            done_s = await asks(talk.phone, FIRST, None)
            conn = await session_that_heard(s, talk.phone, FIRST)
            kept(talk.phone, done_s, await hears_out(talk.phone, conn, done_s))
            await goes_on(s, talk.phone)
        await went_well(house, talk.phone)

    async def deaf() -> None:
        """He is asked to say it again; then another session hears it."""
        async with talking(s, "openai") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            talk.conn.deaf = True
            done_s = await asks(talk.phone, NEXT - 1, None)
            kept(talk.phone, done_s, await hears_out(talk.phone, talk.conn, done_s))
            done_s = await asks(talk.phone, FIRST, None)
            conn = await session_that_heard(s, talk.phone, FIRST)
            assert conn is not talk.conn
            kept(talk.phone, done_s, await hears_out(talk.phone, conn, done_s))
            await goes_on(s, talk.phone)
        await went_well(house, talk.phone)
        assert kinds(house.rows, talk.phone.uuid).count("caller_unheard") == 2

    failed = Reply(status="failed", code="rate_limit_exceeded")

    async def scenario() -> None:
        async with clean(s):
            await at_once(
                {
                    "a response fails": once(failed),
                    "two responses fail": once(failed, failed),
                    "audio of silence": once(Reply(text="Not to be heard.", sound="silence")),
                    "text without audio": once(Reply(text="Not to be heard.", sound="none")),
                    "deaf": deaf(),
                }
            )

    house.run(scenario())


def test_where_no_session_helps_there_are_words_or_a_person(house: House) -> None:
    s = house.stage
    failed = Reply(status="failed", code="rate_limit_exceeded")
    greeted = asyncio.Barrier(4)

    async def lost(how: str, *, person: bool) -> None:
        called = {"called": WITH_PERSON} if person else {}
        async with s.call(**called) as phone:
            await answered(phone, phone.started_s)
            conn = await s.connection_of(phone)
            await hears_out(phone, conn, phone.started_s)
            await greeted.wait()
            if how == "fails":
                # Sessions that begin from here on are like that from their beginning.
                conn.script.otherwise = s.openai.script.otherwise = failed
                done_s = await asks(phone, FIRST, None)
            else:
                done_s = await asks(phone, FIRST, lambda: conn.error("insufficient_quota"))
            if not person:
                await apologised(house, phone)
                assert phone.hung_up_s is not None
                kept(phone, done_s, phone.hung_up_s)
                return
            await eventually("the person", lambda: phone.connected_to, 20.0)
            assert phone.connected_to == [PERSON] and "sorry" in phone.talked[0].lower()
            (transfer,) = [r for r in s.vonage.rest if r.path.endswith(phone.uuid)]
            silent_s = phone.playback.longest_silence_s(done_s, transfer.at_s)
            assert silent_s < PROMISE_S, f"{silent_s:.2f} s of silence"
            assert noises(phone) == 0
            phone.person_hangs_up()
            await phone.wait_ended()
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "transferred"

    async def scenario() -> None:
        usual = s.openai.script.otherwise
        try:
            async with clean(s):
                await at_once(
                    {
                        f"{how}, {'a person' if person else 'nobody'}": lost(how, person=person)
                        for how in ("fails", "quota")
                        for person in (True, False)
                    }
                )
        finally:
            s.openai.script.otherwise = usual

    house.run(scenario())


@pytest.mark.parametrize("person", ["unanswered", "busy", "rejected"])
def test_a_person_who_does_not_answer_leaves_nobody_with_a_dead_line(
    house: House, person: Person
) -> None:
    s = house.stage

    async def scenario() -> None:
        async with clean(s), s.call(called=WITH_PERSON, person=person) as phone:
            conn = await s.connection_of(phone)
            await hears_out(phone, conn, phone.started_s)
            await asks(phone, FIRST, lambda: conn.error("insufficient_quota"))
            await phone.wait_ended(20.0)
            assert phone.connected_to == []
            assert "sorry" in phone.talked[0].lower() and "nobody can take" in phone.talked[-1]
            assert len(phone.talked) == 2 and len(phone.person_legs) == 1
        assert (await house.rows.ended(phone.uuid))["end_reason"] == "transferred"

    house.run(scenario())


# ---------------------------------------------------------------------- the other voice


def test_a_model_that_writes_and_is_not_heard_is_spoken_for_by_the_other_service(
    house: House,
) -> None:
    s = house.stage

    async def mute(sound: Literal["silence", "none"]) -> None:
        async with talking(s, "openai") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            talk.conn.script = Script(listens=True, otherwise=Reply(text=sound, sound=sound))
            done_s = await asks(talk.phone, FIRST, None)
            kept(talk.phone, done_s, await hears_out(talk.phone, talk.conn, done_s))
            assert talk.conn.session["output_modalities"] == ["text"]
            await goes_on(s, talk.phone)
            assert len([c for c in s.openai.connections if c.caller() == talk.phone.tone]) == 1
        await went_well(house, talk.phone)
        assert kinds(house.rows, talk.phone.uuid).count("voice_failed") == 1
        said = [turn.text for turn in turns(house.rows, talk.phone.uuid, "agent")]
        assert said.count(sound) == 2, "what nobody heard is no turn"
        assert end_lines(s.server, talk.phone.uuid, "speechmatics") == []

    async def scenario() -> None:
        async with clean(s):
            await at_once({"silence": mute("silence"), "no audio": mute("none")})

    house.run(scenario())


BROKEN_VOICES: Mapping[str, TtsReply] = {
    "refused": TtsReply(status=503, content_type="text/plain", body=b"no"),
    "an HTML page": TtsReply(content_type="text/html", body=b"<html>" + b"welcome " * 5000),
    "a nameless page": TtsReply(content_type="", body=b"<html>" + b"welcome " * 5000),
    "silence": TtsReply(body=bytes(64_000)),
    "never begins": TtsReply(first_byte_delay_s=30.0),
    "stalls": TtsReply(stall_after_ms=600),
    "is cut": TtsReply(cut_after_ms=600),
}


def test_a_voice_that_fails_is_replaced_by_the_models_own(house: House) -> None:
    s = house.stage

    async def broken(name: str, reply: TtsReply) -> None:
        async with talking(s, "speechmatics") as talk:
            await hears_out(talk.phone, talk.conn, talk.phone.started_s)
            s.speechmatics.by_text[name] = reply
            text = f"Here is the first. The second {name} in its middle. And the third is lost."
            talk.conn.script.replies.append(Reply(text=text))
            done_s = await asks(talk.phone, FIRST, None)
            own = await eventually("its own voice", lambda: talk.conn.spoken, 15.0)
            assert talk.conn.session["output_modalities"] == ["audio"]
            begun_s = talk.conn.got("response.create")
            assert len(begun_s) == 1, "the rest is asked for once"
            await talk.conn.wait_idle()
            await hears(talk.phone, own[0].voice or 0, own[0].audio_ms - 40)
            kept(talk.phone, done_s, await hears_out(talk.phone, talk.conn, done_s))
            await goes_on(s, talk.phone)
            assert len([c for c in s.openai.connections if c.caller() == talk.phone.tone]) == 1
            # The answer may have been complete in the moment in which it was cancelled.
            assert talk.conn.errors.keys() <= {"response_cancel_not_active"}
        await went_well(house, talk.phone)
        assert kinds(house.rows, talk.phone.uuid).count("voice_failed") == 1
        said = turns(house.rows, talk.phone.uuid, "agent")
        broken_off = next(turn for turn in said if turn.text.startswith("Here is the first."))
        assert broken_off.interrupted and "third" not in broken_off.text

    async def scenario() -> None:
        try:
            async with clean(s):
                await at_once({name: broken(name, r) for name, r in BROKEN_VOICES.items()})
        finally:
            s.speechmatics.by_text.clear()

    house.run(scenario())


# ---------------------------------------------------------------------- the phone


def test_a_phone_that_is_reached_no_more_is_reached_again_by_the_carrier(house: House) -> None:
    s = house.stage

    async def struck(how: Callable[[PhoneCall], None]) -> None:
        async with talking(s, "openai") as talk:
            phone = talk.phone
            await hears_out(phone, talk.conn, phone.started_s)
            talk.conn.script.replies.append(Reply(text="word " * 39 + "end.", audio_ms=12_000))
            await asks(phone, FIRST, None)
            await talk.hears(2, 800)
            struck_s = time.monotonic()
            how(phone)
            assert await spoken_to(phone, struck_s) == ONE_MOMENT
            await back(phone)
        await went_well(house, phone)
        assert kinds(house.rows, phone.uuid).count("media_half_dead") == 1

    async def spoken_to(phone: PhoneCall, since_s: float) -> str:
        words = await phone.wait_for_talk("", 10.0)
        (transfer,) = [r for r in s.vonage.rest if r.path.endswith(phone.uuid)]
        assert transfer.body["action"] == "transfer" and transfer.status == 204
        print(f"{phone.tone}: the carrier speaks after {transfer.at_s - since_s:.2f} s")
        assert transfer.at_s - since_s < PROMISE_S
        return words

    async def back(phone: PhoneCall) -> None:
        """The conversation goes on over another socket."""
        await eventually("another socket", lambda: len(phone.media_legs) == 2)
        opened_s = (await phone.wait_connected()).opened_s or 0.0
        back_s = await answered(phone, opened_s)
        assert phone.playback.longest_silence_s(opened_s, back_s) < PROMISE_S
        phone.talked.clear()
        await goes_on(s, phone)

    async def stalls() -> None:
        """The line, for a moment, while nobody says anything: the call is not given away."""
        async with talking(s, "openai") as talk:
            phone = talk.phone
            await hears_out(phone, talk.conn, phone.started_s)
            await silence_for(2.0)
            phone.media.freeze()
            await silence_for(1.4)
            phone.media.thaw()
            await goes_on(s, phone)
        await went_well(house, phone)

    async def never_opens() -> None:
        async with ring(s, "openai", faults=Faults(socket_delay_s=20.0)) as phone:
            (up,) = await eventually("the leg being up", lambda: phone.events("answered"))
            # The product cannot know of it before the event has come in.
            words = await spoken_to(phone, up.at_s + up.elapsed_ms / 1000)
            assert "sorry" in words.lower()
            await phone.wait_ended()
        row = await house.rows.ended(phone.uuid)
        assert row["end_reason"] == "transferred"
        assert "media_not_opened" in kinds(house.rows, phone.uuid)

    async def aborted() -> None:
        async with talking(s, "openai") as talk:
            phone = talk.phone
            await hears_out(phone, talk.conn, phone.started_s)
            await asks(phone, FIRST, lambda: cut(phone))
            struck_s = time.monotonic()
            assert await phone.wait_for_talk("", 10.0) == ONE_MOMENT
            assert time.monotonic() - struck_s < PROMISE_S
            await back(phone)
        await went_well(house, phone)

    async def cut(phone: PhoneCall) -> None:
        phone.cut_media()

    async def scenario() -> None:
        async with clean(s):
            await at_once(
                {
                    "half-dead": struck(lambda phone: setattr(phone.media, "half_dead", True)),
                    "stalls": stalls(),
                    "frozen": struck(lambda phone: phone.media.freeze()),
                    "never opens": never_opens(),
                    "aborted": aborted(),
                }
            )

    house.run(scenario())


# ---------------------------------------------------------------------- ourselves


@pytest.mark.parametrize("asked_by", ["a signal", "the command"])
def test_a_call_that_a_drain_cuts_off_is_told_so_once_and_hung_up(asked_by: str) -> None:
    async def scenario() -> None:
        # Many heartbeats within one apology.
        env = {"DRAIN_SECONDS": "1", "HEARTBEAT_SECONDS": "0.5", "NODE_NAME": "node-a"}
        async with stage(env=env) as s:
            await asyncio.to_thread(furnish, s.server, greeting=GREETING)
            house = _Rows(s, Rows.of(s.server))
            s.openai.script = Script(listens=True)
            async with talking(s, "openai") as talk:
                phone = talk.phone
                await hears_out(phone, talk.conn, phone.started_s)
                talk.conn.script.replies.append(Reply(text="word " * 39 + "end.", audio_ms=12_000))
                done_s = await asks(phone, FIRST, None)
                await talk.hears(2, 300)
                if asked_by == "a signal":
                    exit_code = asyncio.create_task(s.server.aterminate())
                else:
                    assert (await s.server.amanage("drain", "node-a")).returncode == 0
                await apologised(house, phone, reason="drained")  # type: ignore[arg-type]
                assert phone.hung_up_s is not None
                kept(phone, done_s, phone.hung_up_s)
                if asked_by == "a signal":
                    assert await exit_code == 3
            said = turns(house.rows, phone.uuid, "agent")
            assert said[1].text.startswith("word") and said[1].interrupted
            assert s.violations() == []

    asyncio.run(scenario())


@dataclass(frozen=True, slots=True)
class _Rows:
    """As much of a `House` as looking at an end needs."""

    stage: Stage
    rows: Rows
