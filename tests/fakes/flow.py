"""How a simulated phone performs an NCCO, action by action, as the platform would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.fakes.call_events import Leg
from tests.fakes.media_leg import LegEnd, MediaLeg
from tests.fakes.ncco import is_websocket
from tests.fakes.sockets import Refused

if TYPE_CHECKING:
    from tests.fakes.phone import PhoneCall

Action = Mapping[str, Any]
Ncco = Sequence[Action]

_TALK_S = 0.05  # nobody wants to wait for a whole sentence
_LONGEST_WAIT_S = 1.0


async def perform(call: PhoneCall, ncco: Ncco) -> Ncco | None:
    """Runs an NCCO to its end; the NCCO that replaces it, None when the flow is over."""
    for action in ncco:
        following: Ncco | None = None
        match action["action"]:
            case "talk":
                call.talked.append(action["text"])
                await asyncio.sleep(_TALK_S)
            case "stream":
                call.streamed.append(action["streamUrl"][0])
            case "wait":
                await asyncio.sleep(min(float(action.get("timeout", 10)), _LONGEST_WAIT_S))
            case "conversation":
                await call.over.wait()
            case "record":
                pass
            case "connect" if is_websocket(action):
                following = await _connect_media(call, action)
            case "connect":
                following = await _connect_person(call, action)
            case "notify":
                following = await _notify(call, action)
            case "input":
                following = await _input(call, action)
            case other:
                call.violations.append(f"this phone does not know how to do {other!r}")
        if following is not None:
            return following
    return None


async def _connect_media(call: PhoneCall, action: Action) -> Ncco | None:
    """Dials the websocket and waits for its end; the NCCO for a socket that failed or broke."""
    endpoint = action["endpoint"][0]
    leg = _new_leg(call, action, "websocket", endpoint["uri"], endpoint.get("headers") or {})
    media = MediaLeg(endpoint, call.tone, call.faults, call.violations)
    call.sockets[leg.uuid] = (leg, media)
    call.deliver(leg.event("started"), action)
    await asyncio.sleep(call.faults.socket_delay_s)
    try:
        if call.faults.socket_never_opens:
            raise TimeoutError
        await media.connect(call.handshake_headers(endpoint))
    except (Refused, OSError) as error:  # TimeoutError is an OSError
        call.refusals.append(error.status if isinstance(error, Refused) else 0)
        status = "unanswered" if isinstance(error, TimeoutError) else "failed"
        leg.ended_at = time.time()
        return await call.ask(leg.event(status), action, may_replace=_synchronous(action))
    call.media_legs.append(media)
    call.deliver(leg.event("answered"), action)
    running = call.spawn(_run_media(call, leg, media, action))
    # Cancelling this wait (a transfer) leaves the leg alone: it stays in its conversation.
    await asyncio.wait([running])
    return running.result()


async def _run_media(call: PhoneCall, leg: Leg, media: MediaLeg, action: Action) -> Ncco | None:
    end = await media.run()
    if end is LegEnd.HUNG_UP:
        # A hang-up by REST is told as `completed` only, so `disconnected` always means a mishap.
        if not call.over.is_set():
            call.deliver(leg.completed("platform"), action)
        return None
    leg.ended_at = time.time()
    following = await call.ask(leg.event("disconnected"), action, may_replace=_synchronous(action))
    return following if media is call.media else None


async def _connect_person(call: PhoneCall, action: Action) -> Ncco | None:
    endpoint = action["endpoint"][0]
    names = ("number", "user", "uri", "extension")
    to = str(next(endpoint[name] for name in names if name in endpoint))
    leg = _new_leg(call, action, endpoint["type"], to, {})
    call.person_legs.append(leg)
    for status in ("started", "ringing"):
        call.deliver(leg.event(status), action)
    if call.person != "answers":
        leg.ended_at = time.time()
        return await call.ask(leg.event(call.person), action, may_replace=_synchronous(action))
    if on_answer := endpoint.get("onAnswer"):
        await _whisper(call, on_answer)
    call.deliver(leg.event("answered"), action)
    call.connected_to.append(to)
    await call.person_left.wait()
    call.person_left.clear()
    call.deliver(leg.completed("user"), action)
    return None


async def _whisper(call: PhoneCall, on_answer: Mapping[str, Any]) -> None:
    """The NCCO that only the person hears before being joined."""
    ncco = call.read(await call.sender.attempt(on_answer["url"], {}, "GET"))
    call.whispered += [step["text"] for step in ncco or [] if step["action"] == "talk"]


async def _notify(call: PhoneCall, action: Action) -> Ncco | None:
    payload = {
        "payload": action["payload"],
        "uuid": call.uuid,
        "conversation_uuid": call.caller.conversation_uuid,
    }
    return await call.ask(payload, action, may_replace=True)


async def _input(call: PhoneCall, action: Action) -> Ncco | None:
    """Waits a second at most for one key, whatever the action allows."""
    digits = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_WAIT_S):
            digits = await call.digits.get()
    payload = {
        "dtmf": {"digits": digits, "timed_out": not digits},
        "speech": {"results": []},
        "uuid": call.uuid,
        "conversation_uuid": call.caller.conversation_uuid,
        "from": call.caller.from_,
        "to": call.caller.to,
    }
    return await call.ask(payload, action, may_replace=True)


def _new_leg(
    call: PhoneCall, action: Action, kind: str, to: str, headers: Mapping[str, Any]
) -> Leg:
    from_ = action.get("from", call.caller.from_)
    leg = Leg(call.caller.conversation_uuid, from_, to, kind, "outbound", headers=headers)
    call.legs[leg.uuid] = call
    return leg


def _synchronous(action: Action) -> bool:
    return action.get("eventType") == "synchronous"
