"""Whether another process still has a call, by its own account only."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from sessions_app.bridge.peers import still_serves

REPORT = {"node": "b", "sessions": {"uuids": ["u-1", "u-2"]}}


def ask(reply: httpx.Response | Exception, url: str = "wss://b.example.com", **more: Any) -> Any:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def story() -> bool:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            return await still_serves(http, url, "b", "u-1", **more)

    return asyncio.run(story()), asked


def test_a_process_that_has_the_call_says_so() -> None:
    serves, (request,) = ask(httpx.Response(503, json=REPORT), token="s3cret")
    assert serves, "also while it drains"
    assert str(request.url) == "https://b.example.com/api/health?node=self"
    assert request.headers["Authorization"] == "Bearer s3cret"
    serves, (request,) = ask(httpx.Response(200, json=REPORT), "ws://10.0.0.7:5004")
    assert serves and str(request.url).startswith("http://10.0.0.7:5004/")
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    "reply",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("too late"),
        httpx.Response(502, text="<html>Bad gateway</html>"),
        httpx.Response(200, json={**REPORT, "node": "c"}),
        httpx.Response(200, json={**REPORT, "sessions": {"uuids": ["u-2"]}}),
        httpx.Response(200, json={"node": "b", "sessions": {"active_count": 3}}),
        httpx.Response(200, json=["b"]),
        httpx.Response(200, json={"node": "b", "sessions": {"uuids": None}}),
        httpx.Response(302, headers={"Location": "https://elsewhere.example.com/"}),
    ],
)
def test_anything_else_does_not_say_so(reply: httpx.Response | Exception) -> None:
    serves, asked = ask(reply)
    assert not serves and len(asked) == 1


@pytest.mark.parametrize("url", ["", "ftp://b.example.com", "b.example.com", "ws://[broken"])
def test_without_an_address_nobody_is_asked(url: str) -> None:
    serves, asked = ask(httpx.Response(200, json=REPORT), url)
    assert not serves and asked == []
