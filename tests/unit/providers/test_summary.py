"""The summary of a call: what is asked, what is understood, and when it is asked again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.errors import ProviderError
from sessions_app.providers.openai.client import OpenAIConf
from sessions_app.providers.openai.summary import (
    CallSummary,
    Intent,
    Sentiment,
    parse_summary,
    retry_after_s,
    summarise,
    summary_request,
)
from tests.unit.providers.oracle import check_responses_request

KEY = "sk-secret"
CONF = OpenAIConf(KEY, "https://api.test/v1", "rt", "tr")
REQUEST = summary_request(
    "[00:03] caller: Hi.", model="m", language="fr-FR", safety_identifier="hash"
)
ANSWER = {
    "summary": "The caller ordered roses.",
    "intent": "sale",
    "sentiment": "positive",
    "follow_up": ["Send the bill."],
    "callback_requested": False,
}
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def response(answer: Any = None, **fields: Any) -> dict[str, Any]:
    text = json.dumps(ANSWER if answer is None else answer)
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    thought = {"type": "output_text", "text": "Hm."}
    output = [{"type": "reasoning", "id": "rs_1", "content": [thought]}, message]
    return {"status": "completed", "output": output, "usage": USAGE, **fields}


class Service:
    """Gives one answer for each request, the last one again and again; time passes by request."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def run(self) -> CallSummary:
        async def scenario() -> CallSummary:
            async with httpx.AsyncClient(transport=httpx.MockTransport(self)) as http:
                return await summarise(http, CONF, REQUEST, sleep=self.sleep, rand=lambda: 0.0)

        return asyncio.run(scenario())

    def fail(self) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.run()
        assert KEY not in str(caught.value)
        return caught.value


def parse_error(document: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        parse_summary(document)
    return caught.value


# --------------------------------------------------------------------------- the request


def test_the_request_is_one_that_openai_knows() -> None:
    check_responses_request(REQUEST)

    assert REQUEST["input"] == "[00:03] caller: Hi."
    assert "fr-FR" in REQUEST["instructions"]
    assert REQUEST["store"] is False
    assert REQUEST["reasoning"] == {"effort": "low"}
    assert REQUEST["max_output_tokens"] == 2000
    assert REQUEST["safety_identifier"] == "hash"


def test_the_schema_keeps_the_rules_of_strict_mode() -> None:
    form = REQUEST["text"]["format"]
    schema = form["schema"]

    assert form["strict"] is True
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"])


# --------------------------------------------------------------------------- understanding


def test_a_complete_answer_is_understood() -> None:
    assert parse_summary(response()) == CallSummary(
        summary="The caller ordered roses.",
        intent=Intent.SALE,
        sentiment=Sentiment.POSITIVE,
        follow_up=("Send the bill.",),
        callback_requested=False,
        usage=USAGE,
    )


@pytest.mark.parametrize(
    ("fields", "code", "retryable"),
    [
        ({"status": "failed", "error": {"code": "server_error"}}, "server_error", True),
        (
            {"status": "failed", "error": {"code": "insufficient_quota"}},
            "insufficient_quota",
            False,
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
            True,
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            False,
        ),
        ({"status": "cancelled"}, "cancelled", True),
        ({"status": None}, "None", True),
    ],
)
def test_an_answer_that_is_none_says_why(fields: Any, code: str, retryable: bool) -> None:
    error = parse_error(response(**fields))

    assert (error.code, error.retryable) == (code, retryable)


def test_a_refusal_is_final() -> None:
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}

    error = parse_error(response(output=[refusal]))

    assert (error.code, error.retryable) == ("refusal", False)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "text",
        {**ANSWER, "intent": "world domination"},
        {**ANSWER, "sentiment": ""},
        {**ANSWER, "follow_up": "Send the bill."},
        {**ANSWER, "follow_up": [1]},
        {**ANSWER, "callback_requested": "no"},
        {**ANSWER, "summary": None},
    ],
)
def test_an_answer_of_another_shape_is_malformed(answer: Any) -> None:
    assert parse_error(response(answer)).code == "malformed"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["status", "output", "type", "content", "text", "error", "code"]),
                inner | st.sampled_from(["completed", "message", "output_text", "failed"]),
            )
        ),
    )
)
def test_whatever_comes_is_a_summary_or_an_error_of_ours(document: Any) -> None:
    with pytest.raises(ProviderError):
        parse_summary(document)


# --------------------------------------------------------------------------- asking


def test_a_summary_costs_one_request() -> None:
    service = Service(httpx.Response(200, json=response()))

    assert service.run().intent is Intent.SALE
    [request] = service.requests
    assert str(request.url) == "https://api.test/v1/responses"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.content) == REQUEST


@pytest.mark.parametrize(
    "first",
    [httpx.Response(status) for status in (408, 409, 429, 500, 503)]
    + [httpx.ConnectError("no"), httpx.ReadTimeout("slow")]
    + [httpx.Response(400, headers={"x-should-retry": "true"})],
)
def test_a_passing_failure_is_asked_again(first: httpx.Response | Exception) -> None:
    service = Service(first, httpx.Response(200, json=response()))

    service.run()

    assert service.waits == [0.5]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400),
        httpx.Response(401, json={"error": {"code": "invalid_api_key"}}),
        httpx.Response(404),
        httpx.Response(429, json={"error": {"type": "insufficient_quota"}}),
        httpx.Response(429, json={"error": {"code": "project_spend_limit_exceeded"}}),
        httpx.Response(
            429,
            json={"error": {"code": "credit_balance_exhausted"}},
            headers={"x-should-retry": "true"},
        ),
        httpx.Response(503, headers={"x-should-retry": "false"}),
    ],
)
def test_a_lasting_failure_is_not_asked_again(answer: httpx.Response) -> None:
    service = Service(answer)

    assert not service.fail().retryable
    assert len(service.requests) == 1


def test_the_waits_grow_and_the_tries_end() -> None:
    service = Service(httpx.Response(503))

    error = service.fail()

    assert (error.code, error.retryable) == ("503", True)
    assert service.waits == [0.5, 1.0, 2.0, 4.0]
    assert len(service.requests) == 5


def test_the_servers_own_wait_is_kept() -> None:
    busy = httpx.Response(429, headers={"retry-after-ms": "1500"})
    service = Service(busy, httpx.Response(200, json=response()))

    service.run()

    assert service.waits == [1.5]


def test_a_wait_beyond_the_minute_is_left_to_a_later_job() -> None:
    service = Service(httpx.Response(429, headers={"retry-after": "90"}))

    assert service.fail().retryable
    assert service.waits == []


def test_an_answer_that_is_not_json_is_malformed() -> None:
    assert Service(httpx.Response(200, text="<html>")).fail().code == "malformed"


def test_a_bad_address_is_told() -> None:
    async def scenario() -> None:
        conf = OpenAIConf(KEY, "http://[::1", "rt", "tr")
        async with httpx.AsyncClient() as http:
            with pytest.raises(ProviderError) as caught:
                await summarise(http, conf, REQUEST)
            assert not caught.value.retryable

    asyncio.run(scenario())


NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_the_wished_wait_is_read_in_all_its_forms(
    headers: dict[str, str], wanted: float | None
) -> None:
    assert retry_after_s(headers, NOW) == wanted
