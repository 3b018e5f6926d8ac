"""Many simulated calls against a running server: a short conversation each, and what they met.

The engine behind ``manage.py simulate_calls``; it knows nothing of the server but its address.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from sessions_app.sandbox.caller import Caller
from sessions_app.sandbox.conversation import Conversation, Script
from sessions_app.sandbox.faults import Wish
from sessions_app.sandbox.tally import CallResult, Summary, Tally

_KEPT_ERRORS: Final = 5
_RUN_DIGITS: Final = 20
_INDEX_DIGITS: Final = 12
_ASK_S: Final = 2.0

ProgressHook = Callable[[CallResult], None]
#: Which fault the call of that index has.
FaultPlan = Callable[[int], Wish | None]


@dataclass(frozen=True, slots=True)
class Target:
    """The server under load, and the account its webhooks are signed with."""

    base_url: str
    signature_secret: str
    api_key: str
    application_id: str
    called: str = "442079460000"
    control_url: str | None = None
    """``Sandbox.control_url`` of the sandbox that the server's REST goes to."""
    speech_agent: str = ""
    """Who is rung with a fault of speech synthesis: an agent by name, with such a voice."""


def in_rotation(wishes: Sequence[Wish | None]) -> FaultPlan:
    """One after the other, from the beginning again."""
    return lambda index: wishes[index % len(wishes)]


def at_random(wishes: Sequence[Wish | None], every: int, seed: int) -> FaultPlan:
    """One of them, drawn by ``seed`` and index, in each ``every``-th call; none in the others."""

    def draw(index: int) -> Wish | None:
        if index % every != every - 1:
            return None
        # Not for secrets: the same seed has to give the same faults.
        return random.Random(f"{seed}:{index}").choice(wishes)

    return draw


def new_run() -> str:
    """What the uuids of one run's calls begin with."""
    return secrets.token_hex(_RUN_DIGITS // 2)


def uuid_of(run: str, index: int) -> str:
    """The uuid of a call: as long as Vonage's, and its run and number can be read from it."""
    return f"{run}{index:0{_INDEX_DIGITS}x}"


def index_in(run: str, uuid: str) -> int | None:
    """The index of that run's call; ``None`` for somebody else's."""
    if not uuid.startswith(run) or len(uuid) != _RUN_DIGITS + _INDEX_DIGITS:
        return None
    return int(uuid[_RUN_DIGITS:], 16)


async def run_calls(
    target: Target,
    *,
    calls: int,
    at_once: int,
    faults: FaultPlan | None = None,
    script: Script | None = None,
    run: str = "",
    start_every_s: float = 0.05,
    on_result: ProgressHook | None = None,
) -> Summary:
    """Makes ``calls`` calls, at most ``at_once`` at a time.

    A new call begins at the earliest ``start_every_s`` after the one before. ``on_result`` is
    called as each call ends; nothing of it is kept here but its figures.
    """
    if calls < 1 or at_once < 1:
        raise ValueError(f"calls={calls}, at_once={at_once}: wanted 1 or more")
    script, run, faults = script or Script(), run or new_run(), faults or in_rotation((None,))
    began = time.monotonic()
    indices = iter(range(calls))
    tally = Tally()
    gate = _Gate(start_every_s)

    async def worker() -> None:
        for index in indices:
            await gate.wait()
            result = await _one_call(target, run, index, faults(index), script)
            tally.add(result)
            if on_result is not None:
                on_result(result)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, calls)):
            group.create_task(worker())
    return tally.summary(time.monotonic() - began)


class _Gate:
    """Lets one through every so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._every_s
        await asyncio.sleep(at - now)


def _answer_params(target: Target, wish: Wish | None) -> dict[str, str]:
    """Calls of an app may name their agent."""
    if wish is None or not wish.fault.is_of_speech or not target.speech_agent:
        return {}
    return {
        "endpoint_type": "app",
        "from_user": "simulate_calls",
        "SipHeader_X-Agent": target.speech_agent,
    }


async def _one_call(
    target: Target, run: str, index: int, wish: Wish | None, script: Script
) -> CallResult:
    call = Caller(
        target.base_url,
        signature_secret=target.signature_secret,
        api_key=target.api_key,
        application_id=target.application_id,
        caller=f"4477009{index % 100000:05d}",
        called=target.called,
        uuid=uuid_of(run, index),
        fault=wish,
        answer_params=_answer_params(target, wish),
        control_url=target.control_url,
        keep_heard_s=0.0,
    )
    began = time.monotonic()
    errors: list[str] = []
    witness = _Witness(target, call.uuid, wish)
    conversation = Conversation(call, index, script, wish, witness.is_cut)
    try:
        async with call:
            await conversation.run()
            await call.hang_up()
    except Exception as error:
        # One caller's trouble is a result, not the end of the run.
        errors.append(f"{type(error).__name__}: {error}"[:300])
    errors += call.errors
    silence_s = call.longest_silence_s
    return CallResult(
        index=index,
        uuid=call.uuid,
        wish=wish,
        struck=await witness.has_struck(conversation.struck),
        outcome=call.outcome,
        ending=conversation.ending(),
        greeted=conversation.greeted,
        replies_s=tuple(conversation.replies_s),
        unanswered=conversation.unanswered,
        first_sound_s=call.first_sound_s,
        longest_silence_s=silence_s,
        met_silence=silence_s > script.limit_s(wish),
        released_s=call.released_s,
        clears=call.clears,
        frames_received=call.frames_received,
        talked=tuple(call.talked),
        duration_s=time.monotonic() - began,
        errors=tuple(errors[:_KEPT_ERRORS]),
    )


class _Witness:
    """Asks the sandbox what a supplier's fault did to the call."""

    def __init__(self, target: Target, uuid: str, wish: Wish | None) -> None:
        self._wish = wish
        self._uuid = uuid
        url = urlsplit(target.control_url or "")
        self._url = urlunsplit(("http", url.netloc, "/sandbox/strikes", "", ""))
        self._is_known = bool(target.control_url)

    async def has_struck(self, by_caller: bool) -> bool | None:
        """Whether the fault struck; ``None`` when the sandbox was not told of the call."""
        if self._wish is None or self._wish.fault.is_of_phone:
            return by_caller
        notes = await self._notes()
        return None if notes is None else str(self._wish) in notes["struck"]

    async def is_cut(self) -> bool:
        """Whether it cut what the agent was saying. The phone's own faults are known to do it."""
        if self._wish is not None and self._wish.fault.is_of_phone:
            return True
        notes = await self._notes()
        return notes is not None and bool(notes["cut"])

    async def _notes(self) -> dict[str, Any] | None:
        if not self._is_known:
            return None
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_ASK_S) as http:
                reply = await http.get(self._url, params={"call": self._uuid})
                notes: dict[str, Any] | None = reply.json()
                return notes
        except (httpx.HTTPError, ValueError):
            return None
