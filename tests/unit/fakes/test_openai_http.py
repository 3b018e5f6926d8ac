from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.fakes.openai import FakeOpenAI, HttpReply, Refusal, Script
from tests.unit.fakes.realtime_client import address, headers


@pytest.mark.parametrize(
    ("script", "wrong", "status"),
    [
        (Script(refuse=Refusal(429, "insufficient_quota")), {}, 429),
        (Script(), {"Authorization": "Bearer other"}, 401),
        (Script(), {"OpenAI-Beta": "realtime=v1"}, 400),
    ],
)
def test_handshakes_are_refused_with_a_status(
    script: Script, wrong: dict[str, str], status: int
) -> None:
    async def scenario() -> None:
        async with FakeOpenAI() as openai:
            openai.next_scripts.append(script)
            with pytest.raises(InvalidStatus) as refused:
                await connect(address(openai), additional_headers={**headers(openai), **wrong})
            assert refused.value.response.status_code == status
            assert b"error" in (refused.value.response.body or b"")
            assert (openai.refused, openai.connections) == (1, [])
            assert bool(openai.violations) == bool(wrong)

    asyncio.run(scenario())


SUMMARY = {
    "model": "gpt-6-luna",
    "input": "caller: hello",
    "store": False,
    "text": {
        "format": {
            "type": "json_schema",
            "name": "call_summary",
            "strict": True,
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "required": ["intent", "number", "follow_up"],
                "properties": {
                    "intent": {"type": "string", "enum": ["sale", "support"]},
                    "number": {"type": ["string", "null"]},
                    "follow_up": {"type": "array", "items": {"type": "string"}},
                },
            },
        }
    },
}


def test_a_summary_follows_the_schema_that_was_asked_for() -> None:
    async def scenario() -> None:
        async with FakeOpenAI() as openai, httpx.AsyncClient() as client:
            url = f"{openai.base_url}/responses"
            reply = await client.post(url, json=SUMMARY, headers=headers(openai))
            text = reply.json()["output"][1]["content"][0]["text"]
            assert json.loads(text) == {"intent": "sale", "number": None, "follow_up": []}
            assert openai.violations == []
            assert len(openai.summaries) == 1

    asyncio.run(scenario())


def test_a_summary_can_fail_and_a_bad_request_is_refused() -> None:
    async def scenario() -> None:
        async with FakeOpenAI() as openai, httpx.AsyncClient() as client:
            url = f"{openai.base_url}/responses"
            openai.summary_replies.append(HttpReply(429, headers={"Retry-After": "1"}))
            reply = await client.post(url, json=SUMMARY, headers=headers(openai))
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
            assert openai.violations == []
            bad = {**SUMMARY, "store": True}
            reply = await client.post(url, json=bad, headers=headers(openai))
            assert reply.status_code == 400
            assert openai.violations != []

    asyncio.run(scenario())
