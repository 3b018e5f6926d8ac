"""One call seen from outside: what was heard, how fast it was interrupted, what the log says."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.openai import RealtimeConnection
from tests.fakes.stage import Stage
from tests.fakes.vonage import PhoneCall
from tests.fakes.waiting import NeverHappenedError, eventually

Voice = Literal["openai", "speechmatics"]

#: How long each answer of the stand-ins speaks: longer than anybody listens before interrupting.
ANSWER_MS = 6000
#: The phone's clock may run this much behind the product's by the time a cut is computed: one frame
#: and what the network and two busy processes take.
CUT_TOLERANCE_MS = 60
_ANSWERED_S = 10.0
_CLEARED_S = 3.0

#: The texts that operators watch for, one for each step of a call's end.
STEPS = (
    "🧹 Starting session cleanup...",
    "✓ Closed OpenAI WebSocket",
    "✓ Closed Vonage WebSocket",
    "✅ Session cleanup completed - all resources released",
    "Closing and removing session from SessionManager",
    "Session removed. Active sessions: ",
)
SPEECHMATICS_STEP = "✓ Closed Speechmatics HTTP client"
NEVER = "Attempted to close non-existent session"


@dataclass(slots=True)
class CallResult:
    """What was measured on one call, and everything that was wrong with it."""

    uuid: str = ""
    answer_ms: float | None = None
    greeting_ms: float | None = None
    clear_ms: float | None = None
    cut_ms: float | None = None
    heard_ms: float | None = None
    gaps_ms: float = 0.0
    problems: list[str] = field(default_factory=list)


async def one_call(stage: Stage, voice: Voice, *, interrupt: bool, linger_s: float) -> CallResult:
    """Calls, waits for the greeting, perhaps interrupts it, stays a while and hangs up."""
    result = CallResult()
    async with stage.call(caller=f"4477009{len(stage.vonage.phones):05d}") as phone:
        result.uuid = phone.uuid
        try:
            await _converse(stage, phone, voice, result, interrupt, linger_s)
        except (NeverHappenedError, TimeoutError) as error:
            result.problems.append(str(error) or "timed out")
        await phone.hang_up(timeout_s=30)
    result.answer_ms = phone.answer_ms
    result.problems += phone.violations
    if phone.talked:
        result.problems.append(f"the caller heard an apology: {phone.talked[0]!r}")
    if phone.media_legs:
        result.gaps_ms = sum(each.gaps_ms for each in phone.playback.utterances())
    return result


async def _converse(
    stage: Stage,
    phone: PhoneCall,
    voice: Voice,
    result: CallResult,
    interrupt: bool,
    linger_s: float,
) -> None:
    greeted_s = await phone.wait_for_voice(_ANSWERED_S)
    result.greeting_ms = (greeted_s - phone.started_s) * 1000
    # The tone finds the connection: no caller may be heard on another one's.
    conn = await stage.connection_of(phone, _ANSWERED_S)
    if interrupt:
        await asyncio.sleep(0.6)
        await _interrupt(stage, phone, conn, voice, result)
    await asyncio.sleep(linger_s)
    if voice == "openai":
        known = {item.voice for item in conn.spoken}
        known |= {truncation.voice for truncation in conn.truncations}
        strange = {each.voice for each in phone.playback.utterances()} - known
        if strange:
            result.problems.append(f"the caller heard voices {strange} of another call")


async def _interrupt(
    stage: Stage, phone: PhoneCall, conn: RealtimeConnection, voice: Voice, result: CallResult
) -> None:
    """The caller speaks into an answer: when is the phone silent, and what was cut off?"""
    media = phone.media
    if voice == "speechmatics":
        # A greeting may come from the speech supplier alone; only an answer has an item to mend.
        await conn.caller_said("What do you have to offer?")
        asked_s = time.monotonic()
        await phone.wait_for_voice(_ANSWERED_S, since_s=asked_s + 0.2)
        await asyncio.sleep(0.6)
    clears = len(media.clears_s)
    started_s = await conn.speech_started()
    await eventually("the clear", lambda: len(media.clears_s) > clears, _CLEARED_S)
    cleared_s = media.clears_s[clears]
    result.clear_ms = (cleared_s - started_s) * 1000
    if voice == "openai":
        await _check_cut(phone, conn, result)
    else:
        await _check_replacement(stage, phone, conn, result)
    await conn.caller_said("Thank you.")
    await phone.wait_for_voice(_ANSWERED_S, since_s=cleared_s)


async def _check_cut(phone: PhoneCall, conn: RealtimeConnection, result: CallResult) -> None:
    """The provider's item must not be longer than what sounded."""
    await eventually("the truncation", lambda: conn.truncations, _CLEARED_S)
    cut = conn.truncations[0]
    result.cut_ms = float(cut.audio_end_ms)
    result.heard_ms = phone.playback.voice_heard_ms(cut.voice)
    if result.cut_ms > result.heard_ms + CUT_TOLERANCE_MS:
        result.problems.append(f"cut at {result.cut_ms} ms, heard {result.heard_ms:.0f} ms")


async def _check_replacement(
    stage: Stage, phone: PhoneCall, conn: RealtimeConnection, result: CallResult
) -> None:
    """In text mode the item is replaced by the words that sounded, which are its beginning."""
    await eventually("the item's deletion", lambda: conn.deleted, _CLEARED_S)
    heard_ms = sum(each.end_s - each.start_s for each in phone.playback.utterances()) * 1000
    result.heard_ms = heard_ms
    said = [
        part.get("text", "")
        for event in conn.got("conversation.item.create")
        if event["item"].get("role") == "assistant"
        for part in event["item"]["content"]
    ]
    kept = said[-1] if said else ""
    spoken = " ".join(request.text for request in stage.speechmatics.requests)
    if kept and kept.split()[0] not in spoken:
        result.problems.append("the replaced item says what was never spoken")
    characters = sum(len(request.text) for request in stage.speechmatics.requests) or 1
    audio_ms = sum(request.audio_ms for request in stage.speechmatics.requests)
    result.cut_ms = len(kept) * audio_ms / characters
    # A word is kept or not as a whole, so the estimate may be off by a long one.
    if result.cut_ms > heard_ms + 1000:
        result.problems.append(f"kept {result.cut_ms:.0f} ms of words, heard {heard_ms:.0f} ms")


async def check_log(stage: Stage, uuids: list[str], voice: Voice, within_s: float) -> list[str]:
    """Complaints about calls whose end is not in the log, step by step."""
    steps = (*STEPS, SPEECHMATICS_STEP) if voice == "speechmatics" else STEPS
    deadline_s = time.monotonic() + within_s
    missing = {uuid: _missing(stage, uuid, steps) for uuid in uuids}
    while any(missing.values()) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.1)
        missing = {uuid: _missing(stage, uuid, steps) for uuid, left in missing.items() if left}
    found = [f"{uuid}: not in the log: {step}" for uuid, left in missing.items() for step in left]
    found += [f"in the log: {line.text}" for line in stage.server.log if NEVER in line.text]
    return found


def _missing(stage: Stage, uuid: str, steps: tuple[str, ...]) -> list[str]:
    lines = stage.server.lines_of(uuid)
    return [step for step in steps if not any(f"[{uuid}] {step}" in line for line in lines)]
