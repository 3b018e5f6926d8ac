"""What the black-box tests of whole calls share: agents of both voices, scripts, what is left.

One server per module, as in `support`: `with calling() as house:` in a module's fixture, then
`house.run(scenario(house.stage))` in each test. Numbers are always `NUMBERS[voice]`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tests.fakes import recordings
from tests.fakes.openai import RealtimeConnection, Reply, Script
from tests.fakes.pattern import audible, decode, is_voice
from tests.fakes.playback import FRAME_S, Playback, Played
from tests.fakes.server import RunningServer
from tests.fakes.speechmatics import TtsReply
from tests.fakes.stage import Stage
from tests.fakes.vonage import PhoneCall
from tests.fakes.waiting import eventually
from tests.integration.support import Row, Rows, Shared, shared_stage

Voice = Literal["openai", "speechmatics"]
VOICES: tuple[Voice, ...] = ("openai", "speechmatics")
NUMBERS: Mapping[Voice, str] = {"openai": "442079460000", "speechmatics": "442079460001"}
_AGENTS: Mapping[Voice, tuple[str, str]] = {
    "openai": ("Receptionist", "openai:marin"),
    "speechmatics": ("Sarah", "speechmatics:sarah"),
}

#: The contract's lines for the end of one call, in their order.
_END_LINES = (
    "🧹 Starting session cleanup...",
    "✓ Closed OpenAI WebSocket",
    "✓ Closed Vonage WebSocket",
    "✓ Closed Speechmatics HTTP client",
    "✅ Session cleanup completed - all resources released",
    "Closing and removing session from SessionManager",
)
_REMOVED = re.compile(r"Session removed\. Active sessions: \d+")

# ---------------------------------------------------------------------- the house


@dataclass(frozen=True, slots=True)
class House:
    """A running stage whose two numbers are answered in the two voices."""

    shared: Shared
    rows: Rows

    @property
    def stage(self) -> Stage:
        return self.shared.stage

    def run(self, scenario: Any, timeout_s: float = 100.0) -> Any:
        return self.shared.run(scenario, timeout_s)


@contextmanager
def calling(env: Mapping[str, str] | None = None, **agent: str) -> Iterator[House]:
    """A stage with an agent per voice; `agent` is options of both, `nudge_after_s="2"` say."""
    with shared_stage(env=env) as shared:
        furnish(shared.stage.server, **agent)
        yield House(shared, Rows.of(shared.stage.server))


def furnish(server: RunningServer, **agent: str) -> None:
    """Makes the two agents; one process for all, since each costs most of a second."""
    lines = ["from django.core.management import call_command as c"]
    for voice in VOICES:
        name, sound = _AGENTS[voice]
        options = {"voice": sound, **agent}
        lines += [
            f"c('agent', {name!r}, **{options!r})",
            f"c('number', {NUMBERS[voice]!r}, agent={name!r})",
        ]
    done = server.manage("shell", "-v", "0", "-c", "\n".join(lines))
    assert done.returncode == 0, done.stderr


def ring(s: Stage, voice: Voice, **more: Any) -> AbstractAsyncContextManager[PhoneCall]:
    """A caller of the agent with that voice."""
    return s.call(called=NUMBERS[voice], **more)


def expect(
    s: Stage, voice: Voice, *answers: Reply, greeting_ms: int | None = None, **more: Any
) -> Script:
    """How the next connection to the model behaves: the greeting, these answers, then short ones.

    A greeting that is fixed words is spoken by the other service without the model.
    """
    replies = list(answers)
    if voice == "openai":
        replies.insert(0, Reply(audio_ms=greeting_ms, burst_ms=0))
    elif greeting_ms is not None:
        s.speechmatics.replies.append(TtsReply(audio_ms=greeting_ms))
    behaviour = Script(replies=deque(replies), **more)
    s.openai.next_scripts.append(behaviour)
    return behaviour


@dataclass(frozen=True, slots=True)
class Sound:
    """One thing the agent said: the pattern's voice, and how long it is as it was made."""

    voice: int
    audio_ms: float


@dataclass(frozen=True, slots=True)
class Talk:
    """A call that has been greeted; the only one at its time if `sounds` is asked for."""

    stage: Stage
    phone: PhoneCall
    conn: RealtimeConnection
    voice: Voice
    first_request: int

    def sounds(self) -> list[Sound]:
        """What the agent has said so far, whoever gave it a voice; whole as it was made."""
        if self.voice == "openai":
            return [Sound(i.voice or 0, i.audio_ms) for i in self.conn.spoken]
        requests = self.stage.speechmatics.requests[self.first_request :]
        return [Sound(r.voice, r.audio_ms) for r in requests if r.first_byte_s is not None]

    async def sound(self, nth: int, timeout_s: float = 8.0) -> Sound:
        """The nth thing the agent says (from 1); waits for its beginning."""
        what = f"sound number {nth} of the agent"
        return (await eventually(what, lambda: self.sounds()[nth - 1 : nth], timeout_s))[0]

    async def hears(self, nth: int, up_to_ms: float | None = None) -> Sound:
        """The caller has heard so much of it; by default all, and then nothing for a moment."""
        begun = await self.sound(nth)
        if up_to_ms is None:
            await self.conn.wait_idle()
            begun = self.sounds()[nth - 1]
        await hears(self.phone, begun.voice, begun.audio_ms - 20 if up_to_ms is None else up_to_ms)
        if up_to_ms is None and not self.phone.over.is_set():
            await quiet(self.phone)
        return begun

    def heard_ms(self, sound: Sound, until_s: float | None = None) -> float:
        return self.phone.playback.voice_heard_ms(sound.voice, until_s)


@asynccontextmanager
async def talking(s: Stage, voice: Voice, **more: Any) -> AsyncIterator[Talk]:
    """A call whose caller has heard the first sound of the greeting; hung up on leaving."""
    first_request = len(s.speechmatics.requests)
    async with ring(s, voice, **more) as phone:
        await phone.wait_for_voice(8.0)
        conn = await s.connection_of(phone, 8.0)
        yield Talk(s, phone, conn, voice, first_request)


# ---------------------------------------------------------------------- what must be true after


@asynccontextmanager
async def clean(s: Stage, *, within_s: float = 5.0) -> AsyncIterator[None]:
    """Whatever happens in here: nobody complains, and nothing of it is left."""
    before, logged = Counter(s.violations()), len(s.server.log)
    yield
    await eventually("no live session", lambda: not s.server.active_count(), within_s)
    await eventually("no socket to the model", lambda: not s.openai.open_sockets, within_s)
    await eventually("no media socket", lambda: not s.vonage.open_sockets, within_s)
    await eventually("no speech under way", lambda: not s.speechmatics.in_flight, within_s)
    news = Counter(s.violations()) - before
    assert not news, list(news)
    log = [line.text for line in s.server.log[logged:]]
    faults = [at for at, text in enumerate(log) if "Traceback" in text]
    assert not faults, "\n".join(log[max(faults[0] - 3, 0) :][:60])


def end_lines(server: RunningServer, call_uuid: str, voice: Voice) -> list[str]:
    """What is missing or out of order in the log's story of a call's end; empty if all is well."""
    wanted = [line for line in _END_LINES if voice == "speechmatics" or "Speechmatics" not in line]
    said = [line.partition("] ")[2] for line in server.lines_of(call_uuid)]
    of_the_end = [line for line in said if line in _END_LINES or _REMOVED.fullmatch(line)]
    if of_the_end[:-1] == wanted and of_the_end and _REMOVED.fullmatch(of_the_end[-1]):
        return []
    return [f"wanted {wanted} and the removal, read {of_the_end}"]


def logged_at(server: RunningServer, call_uuid: str, text: str) -> float:
    """Unix time of a call's first log line with this text, by the server's own clock."""
    for line in server.log:
        if f"[{call_uuid}] {text}" in line.text:
            stamp = line.text.split(" ", 1)[0].rstrip("Z")
            return datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()
    raise AssertionError(f"no line {text!r} of {call_uuid}")


# ---------------------------------------------------------------------- what a fault sounds like

#: Nobody listens to silence for longer, whatever happens; and what a loaded machine adds to it: the
#: product speaks 2.4 s after the last sound.
PROMISE_S = 3.0
APOLOGY = (
    "I am sorry, we have a technical problem and I cannot go on. "
    "Please call again in a few minutes. Goodbye."
)
ONE_MOMENT = "One moment, please."


async def answered(phone: PhoneCall, since_s: float, timeout_s: float = 10.0) -> float:
    """When the agent's voice was first heard at or after a moment; a recording is none."""

    def probe() -> float | None:
        if not phone.media_legs:
            return None
        playback = phone.playback
        playback.advance(time.monotonic())
        for part in _since(playback, since_s):
            if is_voice(part.pcm, playback.rate):
                return part.start_s
        return None

    found = await eventually(f"an answer on {phone.uuid}", probe, timeout_s, every_s=0.03)
    assert found is not None
    return found


def _since(playback: Playback, since_s: float) -> list[Played]:
    """What was played at or after a moment, oldest first; looks at nothing else."""
    found = []
    for part in reversed(playback.played):
        if part.start_s < since_s:
            break
        found.append(part)
    return found[::-1]


def noises(phone: PhoneCall) -> int:
    """Frames that were heard and are neither the agent's voice nor a recording."""
    playback = phone.playback
    spans = [
        (each.start_s, each.start_s + each.heard_ms / 1000)
        for phrase in ("one_moment", "still_here", "apology", "goodbye")
        for each in recordings.heard(playback, phrase)
    ]
    return sum(
        1
        for part in playback.played
        if audible(part.pcm)
        and len(part.pcm) == phone.media.frame_bytes
        and not is_voice(part.pcm, playback.rate)
        and not any(start_s <= part.start_s <= end_s for start_s, end_s in spans)
    )


async def apologised(
    house: House, phone: PhoneCall, timeout_s: float = 20.0, *, reason: str = "provider_failed"
) -> None:
    """The caller heard, once, why the call cannot go on, and then it was over. If he was connected
    to us, he heard prepared words, and his leg was hung up at the carrier; else its voice spoke.
    """
    await phone.wait_ended(timeout_s)
    row = await house.rows.ended(phone.uuid)
    assert row["end_reason"] == reason
    if row["media_opened_at"] is None:
        assert len(phone.talked) == 1 and "sorry" in phone.talked[0].lower(), phone.talked
        return
    assert phone.talked == []
    (apology,) = recordings.heard(phone.playback, "apology")
    assert apology.whole, f"only {apology.heard_ms} ms of it"
    assert phone.ended_by == "platform" and phone.hung_up_s is not None
    hang_ups = [r for r in house.stage.vonage.rest if r.path.endswith(phone.uuid)]
    assert [(r.body.get("action"), r.status) for r in hang_ups] == [("hangup", 204)]
    assert phone.hung_up_s - (apology.start_s + apology.heard_ms / 1000) < PROMISE_S
    said = turns(house.rows, phone.uuid, "agent")[-1]
    assert (said.text, said.interrupted, said.final) == (APOLOGY, False, True)


# ---------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the transcript."""

    item_id: str
    speaker: str
    text: str
    from_ms: int
    to_ms: int | None
    interrupted: bool
    final: bool


def turns(rows: Rows, call_uuid: str, speaker: str = "") -> list[Said]:
    """The transcript of a call, in the order in which it is shown."""
    found = rows.ask(
        "SELECT t.item_id, t.speaker, t.text, t.from_ms, t.to_ms, t.interrupted, t.final "
        "FROM sessions_app_transcriptturn t JOIN sessions_app_callrecord c ON c.id = t.call_id "
        "WHERE c.uuid = ? ORDER BY t.from_ms, t.id",
        call_uuid,
    )
    said = [
        Said(**{**row, "interrupted": bool(row["interrupted"]), "final": bool(row["final"])})
        for row in found
    ]
    return [turn for turn in said if speaker in ("", turn.speaker)]


def usage(row: Row) -> dict[str, int]:
    found = json.loads(row["usage"]) if isinstance(row["usage"], str) else row["usage"]
    return dict(found)


def kinds(rows: Rows, call_uuid: str) -> list[str]:
    """The events of a call without the carrier's own."""
    found = [event.partition(" ")[0] for event in rows.events(call_uuid)]
    return [kind for kind in found if kind != "carrier"]


# ---------------------------------------------------------------------- what the phone hears


async def hears(phone: PhoneCall, voice: int, up_to_ms: float, timeout_s: float = 10.0) -> None:
    """The caller has heard this much of a voice; each frame is looked at once, at its end."""
    playback, looked_at, reached_ms = phone.playback, 0, 0.0

    def probe() -> bool:
        nonlocal looked_at, reached_ms
        now_s = time.monotonic()
        playback.advance(now_s)
        for part in playback.played[looked_at:]:
            if part.start_s + FRAME_S > now_s:
                break
            looked_at += 1
            if not is_voice(part.pcm, playback.rate):
                continue
            heard = decode(part.pcm, playback.rate)
            if heard is not None and heard.voice == voice:
                reached_ms = max(reached_ms, heard.position_ms + FRAME_S * 500)
        return reached_ms >= up_to_ms

    await eventually(f"{up_to_ms} ms of voice {voice}", probe, timeout_s, every_s=0.02)


async def cleared(phone: PhoneCall, nth: int = 1, timeout_s: float = 5.0) -> float:
    """When the nth clear reached the phone."""
    found = await eventually(
        f"clear number {nth}", lambda: phone.media.clears_s[nth - 1 : nth], timeout_s, every_s=0.001
    )
    return found[0]


async def quiet(phone: PhoneCall, for_s: float = 0.15, timeout_s: float = 10.0) -> None:
    """Nothing has been played for a while, and nothing waits to be."""

    def probe() -> bool:
        now_s = time.monotonic()
        phone.playback.advance(now_s)
        played = phone.playback.played
        return not played or played[-1].start_s + FRAME_S + for_s < now_s

    await eventually("the phone falling silent", probe, timeout_s, every_s=0.02)


async def silence_for(seconds: float) -> None:
    """Time in which nothing may happen; there is no event to wait for."""
    await asyncio.sleep(seconds)
