"""The services that answer and speak: are the keys good, are the models there?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import httpx
from django.conf import settings
from django.db import Error

from sessions_app.diagnosis.finding import Finding, fail, ok, warn
from sessions_app.diagnosis.web import TIMEOUT_S, Web, why
from sessions_app.models import Agent
from sessions_app.telephony.vonage.client import VonageCalls, VonageError, load_private_key

_SHUTDOWN_SOON: Final = timedelta(days=60)
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Needs:
    """What agents ask of suppliers: models of their own, and Speechmatics' voices."""

    models: tuple[str, ...] = ()
    speechmatics_voices: tuple[str, ...] = ()

    @classmethod
    def of_agents(cls) -> Needs:
        """Nothing while the database is away, which has a finding of its own."""
        try:
            agents = list(Agent.objects.values_list("model", "voice"))
        except Error:
            return cls()
        voices = sorted({voice for _, voice in agents if voice.startswith("speechmatics:")})
        return cls(
            models=tuple(sorted({model for model, _ in agents if model})),
            speechmatics_voices=tuple(voice.partition(":")[2] for voice in voices),
        )


async def openai(web: Web, needs: Needs) -> list[Finding]:
    """The key, and whether each model is there and stays (`GET /models`, `shutdown_date`)."""
    if settings.SANDBOX:
        return [ok("OpenAI", "not used: the built-in sandbox answers")]
    if not settings.OPENAI_API_KEY:
        return [fail("OpenAI", "there is no key", "Set OPENAI_API_KEY.")]
    try:
        answer = await web.http.get(
            f"{settings.OPENAI_BASE_URL}/models",
            headers={"Authorization": f"Bearer {settings.OPENAI_API_KEY}"},
        )
    except httpx.HTTPError as error:
        mend = "See that OPENAI_BASE_URL is right and the way there is open."
        return [fail("OpenAI", f"not reached ({why(error)})", mend)]
    if answer.status_code in _REFUSED:
        return [fail("OpenAI", f"the key is refused ({answer.status_code})", "Set OPENAI_API_KEY.")]
    models = _models(answer)
    if models is None:
        seen = f"it does not list its models ({answer.status_code})"
        return [warn("OpenAI", seen, "Make a call to see whether they are there.")]
    wanted = {
        settings.OPENAI_REALTIME_MODEL,
        settings.OPENAI_TRANSCRIPTION_MODEL,
        settings.OPENAI_SUMMARY_MODEL,
        *needs.models,
    }
    return [ok("OpenAI", "the key is good"), *(_model(name, models) for name in sorted(wanted))]


def _models(answer: httpx.Response) -> dict[str, Any] | None:
    """The day on which each ends, if told, by id; None for anything but a list of models."""
    try:
        body = answer.json()
    except ValueError:
        return None
    data = body.get("data") if answer.is_success and isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    return {
        str(model.get("id")): model.get("shutdown_date")
        for model in data
        if isinstance(model, dict)
    }


def _model(name: str, models: dict[str, Any]) -> Finding:
    what = f"model {name}"
    mend = "Choose another: the OPENAI_…_MODEL settings, or `manage.py agent NAME --model`."
    if name not in models:
        return fail(what, "this key may not use it, or there is none of that name", mend)
    try:
        ends = date.fromisoformat(str(models[name])[:10])
    except ValueError:
        return ok(what, "it is there")
    if ends <= date.today():
        return fail(what, f"it was shut down on {ends}", mend)
    if ends <= date.today() + _SHUTDOWN_SOON:
        return warn(what, f"it is shut down on {ends}", mend)
    return ok(what, f"it is there until {ends}")


async def speechmatics(web: Web, needs: Needs) -> list[Finding]:
    """The key, by a word that is never fetched: there is no cheaper question to ask."""
    what = "Speechmatics"
    if settings.SANDBOX or not needs.speechmatics_voices:
        return [ok(what, "not needed: no agent speaks with it, or the sandbox does")]
    if not settings.SPEECHMATICS_API_KEY:
        mend = "Set SPEECHMATICS_API_KEY, or give those agents another --voice."
        return [fail(what, "agents speak with it, and there is no key", mend)]
    return list(await asyncio.gather(*(_spoken(web, voice) for voice in needs.speechmatics_voices)))


async def _spoken(web: Web, voice: str) -> Finding:
    what = f"Speechmatics {voice}"
    try:
        async with web.http.stream(
            "POST",
            f"{settings.SPEECHMATICS_TTS_URL}/{voice}",
            params={"output_format": "pcm_16000"},
            headers={"Authorization": f"Bearer {settings.SPEECHMATICS_API_KEY}"},
            json={"text": "Hello."},
        ) as answer:
            status = answer.status_code
    except httpx.HTTPError as error:
        mend = "See that SPEECHMATICS_TTS_URL is right and the way there is open."
        return fail(what, f"not reached ({why(error)})", mend)
    if status in _REFUSED:
        return fail(what, f"the key is refused ({status})", "Set SPEECHMATICS_API_KEY.")
    if status != HTTPStatus.OK:
        mend = "Try again later; meanwhile callers of its agents may hear the apology."
        return warn(what, f"it answers {status}", mend)
    return ok(what, "the key is good")


async def vonage(web: Web) -> list[Finding]:
    """Whether the private key is the application's: asks for a call that nobody knows."""
    if not settings.VONAGE_PRIVATE_KEY:
        if settings.SANDBOX:
            return [ok("Vonage", "not used: the built-in sandbox carries calls")]
        return [fail("Vonage", "there is no private key", "Set VONAGE_PRIVATE_KEY.")]
    try:
        key = load_private_key(settings.VONAGE_PRIVATE_KEY)
        calls = VonageCalls(
            web.http,
            application_id=settings.VONAGE_APPLICATION_ID,
            private_key=key,
            api_url=settings.VONAGE_API_URL,
            attempt_timeout_s=TIMEOUT_S / 2,
            total_timeout_s=TIMEOUT_S,
        )
        # 404 for the call is good news: whoever has no right to ask gets 401 instead.
        await calls.get_call(str(uuid4()))
    except ValueError as error:
        return [fail("Vonage", f"VONAGE_PRIVATE_KEY: {error}", "Set VONAGE_PRIVATE_KEY.")]
    except VonageError as error:
        if error.status in _REFUSED:
            return [
                fail(
                    "Vonage",
                    f"the application's key is refused ({error.status})",
                    "See that VONAGE_APPLICATION_ID and VONAGE_PRIVATE_KEY belong together.",
                )
            ]
        mend = "See that VONAGE_API_URL is right and the way there is open."
        return [fail("Vonage", f"no good answer ({error})", mend)]
    return [ok("Vonage", "the application's key is good")]
