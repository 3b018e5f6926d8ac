"""Vonage's webhooks: signed, in any order, twice, late, with whatever fields come next year."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal, InvalidOperation
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from sessions_app.bridge.leg_reports import MediaLeg
from sessions_app.bridge.manager import get_manager
from sessions_app.bridge.plan import IncomingCall
from sessions_app.bridge.words import HOLD_ROUNDS, nobody, sorry
from sessions_app.logcontext import call_context
from sessions_app.telephony.vonage import ncco
from sessions_app.telephony.vonage.client import TERMINAL
from sessions_app.telephony.vonage.signature import SignatureRefused, verify

logger = logging.getLogger(__name__)

Params = dict[str, Any]

#: Of the media leg: it could not be made, or broke; the answer may be an NCCO.
MEDIA_FAILED = frozenset({"unanswered", "failed", "disconnected"})
#: Of the leg of an agent's person, whom a caller was to be put through to.
NOT_ANSWERED = frozenset({"unanswered", "failed", "rejected", "busy", "timeout"})
TEXT_MOST = 255


class BadRequest(Exception):
    """The body cannot be used; the text says what was read and what is wanted."""


def signed(
    view: Callable[[Params], Coroutine[Any, Any, HttpResponse]],
) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]:
    """Only for requests that Vonage has signed; gives the view their parameters."""

    @csrf_exempt
    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "POST"):
            return HttpResponse(status=405, headers={"Allow": "GET, POST"})
        vonage = get_manager().conf.vonage
        body = request.body
        try:
            verify(
                request.headers.get("Authorization"),
                body,
                secret=vonage.signature_secret,
                api_key=vonage.api_key,
                application_id=vonage.application_id,
                now_s=time.time(),
            )
        except SignatureRefused as refusal:
            logger.warning("a webhook was refused: %s", refusal.reason)
            return JsonResponse({"error": "a valid Vonage signature is wanted"}, status=401)
        try:
            return await view(_params(request, body))
        except BadRequest as mistake:
            logger.warning("a webhook could not be read: %s", mistake)
            return JsonResponse({"error": str(mistake)}, status=400)

    return checked


def _params(request: HttpRequest, body: bytes) -> Params:
    if request.method == "GET":
        return dict(request.GET.items())
    try:
        params = json.loads(body)
    except (ValueError, RecursionError) as mistake:
        raise BadRequest(f"the body is not JSON: {mistake}") from None
    if not isinstance(params, dict):
        raise BadRequest(f"the body is a JSON {type(params).__name__}, wanted an object")
    return params


def _text(params: Params, name: str) -> str:
    """A short text of the parameters; empty if it is absent, null or something else."""
    return _clean(params.get(name))


def _clean(value: object) -> str:
    """Without the signs that forge lines of a log, or that a database or JSON refuses."""
    return "".join(filter(str.isprintable, value[:TEXT_MOST])) if isinstance(value, str) else ""


def _uuid(params: Params, name: str = "uuid") -> str:
    """The call's uuid, an opaque text; raises BadRequest when it cannot be one."""
    value = params.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not value.isprintable():
        raise BadRequest(f"{name} is {str(value)[:40]!r}, wanted a text of 1 to 128 characters")
    if any(sign.isspace() or sign in "[]" for sign in value):
        raise BadRequest(f"{name} is {value[:40]!r}, wanted a text without spaces or brackets")
    return value


def _flow(actions: ncco.Ncco) -> HttpResponse:
    return JsonResponse(actions, safe=False)


@signed
async def answer(params: Params) -> HttpResponse:
    """A call comes in: the NCCO that connects it, or words that explain why not."""
    uuid = _uuid(params)
    from_page = _text(params, "endpoint_type") == "app"
    call = IncomingCall(
        uuid=uuid,
        caller=_text(params, "from") or _text(params, "from_user"),
        called=_text(params, "to").removeprefix("+"),
        conversation_uuid=_text(params, "conversation_uuid"),
        region_url=_text(params, "region_url"),
        agent_name=_text(params, "SipHeader_X-Agent") if from_page else "",
        fault=_text(params, "SipHeader_X-Sandbox-Fault"),
    )
    with call_context(uuid):
        try:
            return _flow(await get_manager().reception.answer(call))
        except Exception:
            # A caller who gets a 500 hears nothing; this one hears that we are sorry.
            logger.exception("the answer webhook failed")
            return _flow(sorry())


@signed
async def event(params: Params) -> HttpResponse:
    """Something happened to a leg. 204, or an NCCO where the media leg could not serve, or the
    agent's person did not answer, or where a held call asks what comes next.
    """
    if (held := _held(params)) is not None:
        return await _next_of_hold(*held)
    status = _text(params, "status")
    leg = _text(params, "uuid") or _text(params, "call_uuid")
    headers = params.get("headers")
    served = _clean(headers.get("call_uuid")) if isinstance(headers, dict) else ""
    media_leg = bool(served) or _text(params, "to").startswith(("ws://", "wss://"))
    if not status or not leg or len(leg) > 128:
        # Errors, transfers, recordings and what is still to be invented: no harm, no effect.
        return HttpResponse(status=204)
    reception = get_manager().reception
    await get_manager().start()
    call_uuid = served or leg
    with call_context(call_uuid):
        if not media_leg and _text(params, "direction") == "outbound":
            # We ring nobody but agents' persons, for callers who wait.
            if status in NOT_ANSWERED:
                logger.warning("the agent's person did not answer: %s", status)
                return _flow(nobody())
        elif not media_leg:
            reception.caller_leg(call_uuid, status, _figures(params), ended=status in TERMINAL)
        elif status in MEDIA_FAILED:
            logger.warning("the media leg reports %s", status)
            flow = await _instead_of_media(
                call_uuid,
                _text(params, "conversation_uuid"),
                MediaLeg(leg, _generation(headers)),
                broke=status == "disconnected",
            )
            if flow is not None:
                return _flow(flow)
    return HttpResponse(status=204)


async def _instead_of_media(
    call_uuid: str, conversation_uuid: str, leg: MediaLeg, *, broke: bool
) -> ncco.Ncco | None:
    try:
        reception = get_manager().reception
        return await reception.media_leg_failed(call_uuid, conversation_uuid, leg, broke=broke)
    except Exception:
        # As at the answer: a caller who gets a 500 hears nothing.
        logger.exception("the report of a media leg failed")
        return sorry()


def _generation(headers: object) -> int:
    """Which of a call's sockets it is, by the headers that we gave it; 0: they do not say."""
    told = _clean(headers.get("socket")) if isinstance(headers, dict) else ""
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 10 else 0


def _held(params: Params) -> tuple[str, int] | None:
    """The call and the round of our own `notify`, whose payload comes back as it was; the carrier's
    documents do not say whether beside its own fields or under `payload`.
    """
    payload = params.get("payload")
    hold = (payload if isinstance(payload, dict) else params).get("hold")
    if not isinstance(hold, dict):
        return None
    round_ = hold.get("round")
    if not isinstance(round_, int) or not 1 <= round_ <= HOLD_ROUNDS:
        raise BadRequest(f"round is {str(round_)[:40]!r}, wanted 1 to {HOLD_ROUNDS}")
    return _uuid(hold, "call_uuid"), round_


async def _next_of_hold(call_uuid: str, round_: int) -> HttpResponse:
    with call_context(call_uuid):
        try:
            return _flow(await get_manager().reception.still_held(call_uuid, round_))
        except Exception:
            # Without an NCCO in reply the flow goes on to its own apology.
            logger.exception("a held call could not be told what comes next")
            return HttpResponse(status=204)


def _figures(params: Params) -> dict[str, Any]:
    """Price and duration of a leg that is over, which come as strings."""
    figures: dict[str, Any] = {}
    try:
        price = Decimal(_text(params, "price"))
        if price.is_finite() and 0 <= price < 10_000:
            figures["price"] = round(price, 8)
    except InvalidOperation:
        pass
    if (duration := _text(params, "duration")).isdecimal() and len(duration) < 8:
        figures["carrier_duration_s"] = int(duration)
    return figures


@signed
async def fallback(params: Params) -> HttpResponse:
    """The answer webhook could not be reached in time: words from memory, nothing else."""
    return _flow(sorry())
