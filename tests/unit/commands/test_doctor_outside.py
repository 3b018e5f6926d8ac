from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import date, timedelta
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sessions_app.diagnosis import suppliers, ways_in
from sessions_app.diagnosis.finding import Finding, Level
from sessions_app.diagnosis.suppliers import Needs
from sessions_app.diagnosis.web import Web
from sessions_app.models import Agent

Answer = Callable[[httpx.Request], httpx.Response]


def asked(
    look: Callable[[Web], Coroutine[Any, Any, list[Finding]]], answer: Answer
) -> list[Finding]:
    """What is found where everybody answers like this."""

    async def scenario() -> list[Finding]:
        async with Web(httpx.MockTransport(answer)) as web:
            return await look(web)

    return asyncio.run(scenario())


def always(status: int, body: Any = None, **headers: str) -> Answer:
    return lambda request: httpx.Response(status, json=body, headers=headers)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("All connection attempts failed")


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level.value for finding in findings]


# ---------------------------------------------------------------------- OpenAI


@pytest.fixture
def live_keys(settings: Any) -> Any:
    settings.SANDBOX, settings.AI_PROVIDER = False, "openai"
    settings.OPENAI_API_KEY = "sk-secret"
    settings.OPENAI_BASE_URL = "https://models.example/v1"
    settings.SPEECHMATICS_API_KEY = "sm-secret"
    return settings


def look_at_openai(answer: Answer, needs: Needs | None = None) -> list[Finding]:
    return asked(lambda web: suppliers.openai(web, needs or Needs()), answer)


def models(*names: str, **ends: Any) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "shutdown_date": None} for name in names]
        + [{"id": name.replace("_", "-"), "shutdown_date": day} for name, day in ends.items()],
    }


def test_a_good_key_and_its_models_are_asked_for_with_the_key(live_keys: Any) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(
            200, json=models("gpt-realtime-2.1", "gpt-transcribe", "gpt-6-luna", "own")
        )

    found = look_at_openai(answer, Needs(models=("own",)))

    assert levels(found) == ["ok"] * 5
    assert str(seen[0].url) == "https://models.example/v1/models"
    assert seen[0].headers["Authorization"] == "Bearer sk-secret"


def test_a_model_that_is_missing_or_shut_down_fails(live_keys: Any) -> None:
    today = date.today()
    live_keys.OPENAI_REALTIME_MODEL = "missing"
    live_keys.OPENAI_TRANSCRIPTION_MODEL = "past"
    live_keys.OPENAI_SUMMARY_MODEL = "soon"
    body = models(past=str(today), soon=f"{today + timedelta(days=30)}T00:00:00Z")
    body["data"].append({"id": "far", "shutdown_date": str(today + timedelta(days=365))})

    found = {it.what: it.level.value for it in look_at_openai(always(200, body), Needs(("far",)))}

    assert found == {
        "OpenAI": "ok",
        "model missing": "fail",
        "model past": "fail",
        "model soon": "warn",
        "model far": "ok",
    }


@pytest.mark.parametrize(
    ("answer", "level", "seen"),
    [
        (always(401, {"error": {"message": "bad key sk-secret"}}), "fail", "refused (401)"),
        (always(404), "warn", "does not list its models (404)"),
        (always(200, ["something", "else"]), "warn", "does not list its models"),
        (unreachable, "fail", "not reached (ConnectError"),
    ],
)
def test_a_key_that_does_not_work_is_told(
    live_keys: Any, answer: Answer, level: str, seen: str
) -> None:
    (found,) = look_at_openai(answer)

    assert found.level == level
    assert seen in found.seen
    assert found.mend
    assert "sk-secret" not in str(found)


def test_in_the_sandbox_nobody_outside_is_asked(settings: Any) -> None:
    needs = Needs(("own",), ("sarah",))

    for look in (
        lambda web: suppliers.openai(web, needs),
        lambda web: suppliers.speechmatics(web, needs),
        suppliers.vonage,
    ):
        assert levels(asked(look, lambda request: pytest.fail("asked"))) == ["ok"]


# ---------------------------------------------------------------------- Speechmatics


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (always(200), "ok"),
        (always(401), "fail"),
        (always(503), "warn"),
        (unreachable, "fail"),
    ],
)
def test_each_voice_that_agents_speak_with_is_tried(
    live_keys: Any, answer: Answer, level: str
) -> None:
    needs = Needs(speechmatics_voices=("megan", "sarah"))

    found = asked(lambda web: suppliers.speechmatics(web, needs), answer)

    assert [(it.what, it.level.value) for it in found] == [
        ("Speechmatics megan", level),
        ("Speechmatics sarah", level),
    ]
    assert "sm-secret" not in str(found)


def test_agents_that_speak_with_it_need_a_key(live_keys: Any) -> None:
    live_keys.SPEECHMATICS_API_KEY = ""
    needs = Needs(speechmatics_voices=("sarah",))

    found = asked(lambda web: suppliers.speechmatics(web, needs), always(200))

    assert levels(found) == ["fail"]


@pytest.mark.django_db
def test_needs_are_read_from_the_agents() -> None:
    for name, voice, model in [
        ("a", "speechmatics:sarah", "m"),
        ("b", "speechmatics:sarah", ""),
        ("c", "openai:cedar", "m"),
    ]:
        Agent.objects.create(name=name, voice=voice, model=model, instructions="x")

    assert Needs.of_agents() == Needs(models=("m",), speechmatics_voices=("sarah",))


# ---------------------------------------------------------------------- Vonage


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.mark.parametrize(
    ("answer", "level", "seen"),
    [
        (always(404), "ok", "key is good"),
        (always(401, {"title": "Unauthorized"}), "fail", "refused (401)"),
        (unreachable, "fail", "no good answer"),
    ],
)
def test_vonage_is_asked_for_a_call_that_nobody_knows(
    live_keys: Any, private_key: str, answer: Answer, level: str, seen: str
) -> None:
    live_keys.VONAGE_PRIVATE_KEY = private_key

    (found,) = asked(suppliers.vonage, answer)

    assert found.level == level
    assert seen in found.seen


def test_a_key_that_is_none_is_told_and_not_repeated(live_keys: Any) -> None:
    live_keys.VONAGE_PRIVATE_KEY = "no-key-at-all"

    (found,) = asked(suppliers.vonage, lambda request: pytest.fail("asked"))

    assert found.level is Level.FAIL
    assert "no-key-at-all" not in str(found)


# ---------------------------------------------------------------------- ways in


@pytest.mark.parametrize(
    ("answer", "level"), [(always(200), "ok"), (always(502), "fail"), (unreachable, "fail")]
)
def test_public_url_is_tried(answer: Answer, level: str) -> None:
    assert levels(asked(ways_in.server, answer)) == [level]


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (always(401), "ok"),
        (always(200, []), "fail"),
        (always(301), "fail"),
        (always(500), "fail"),
        (unreachable, "fail"),
    ],
)
def test_a_webhook_without_a_signature_must_be_refused(answer: Answer, level: str) -> None:
    assert levels(asked(ways_in.webhooks, answer)) == [level]


@pytest.mark.parametrize(
    ("ahead_s", "level", "seen"),
    [
        (0, "ok", "0 s"),
        (60, "warn", "60 s behind 127.0.0.1"),
        (-60, "warn", "s ahead of 127.0.0.1"),
        (400, "fail", "s behind 127.0.0.1"),
    ],
)
def test_the_clock_is_compared_with_those_who_answer(
    monkeypatch: pytest.MonkeyPatch, ahead_s: float, level: str, seen: str
) -> None:
    now_s = time.time()
    monkeypatch.setattr("sessions_app.diagnosis.web.time.time", lambda: now_s)

    async def scenario() -> Finding:
        answer = always(200, Date=formatdate(now_s + ahead_s, usegmt=True))
        async with Web(httpx.MockTransport(answer)) as web:
            await ways_in.server(web)
            return ways_in.clock(web)

    found = asyncio.run(scenario())

    assert found.level == level
    assert seen in found.seen


@pytest.mark.parametrize(("sandbox", "level"), [(False, "warn"), (True, "ok")])
def test_nobody_to_ask_for_the_time_is_doubtful_unless_nobody_else_is_there(
    settings: Any, sandbox: bool, level: str
) -> None:
    settings.SANDBOX = sandbox

    async def scenario() -> Finding:
        async with Web(httpx.MockTransport(always(200, Date="yesterday"))) as web:
            await ways_in.server(web)
            return ways_in.clock(web)

    assert asyncio.run(scenario()).level == level
