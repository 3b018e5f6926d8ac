"""Webhooks and health go past Django's middleware and threads, and are let go when nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from callcenter.asgi import _bare

began = asyncio.Event()
cancelled: list[str] = []


async def slow(request: HttpRequest) -> HttpResponse:
    began.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.append(request.path)
        raise
    raise AssertionError("nothing ends it but its being cancelled")


async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, status=202)


async def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken on purpose")


urlpatterns = [path("slow", slow), path("echo", echo), path("broken", broken)]


class Client:
    """One request of it, as a server hands it over."""

    def __init__(self, path: str, body: bytes = b"") -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"testserver")],
        }
        self.hung_up = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self._body: list[bytes] = [body]

    async def receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def ask(self) -> None:
        with override_settings(ROOT_URLCONF=__name__):
            async with asyncio.timeout(30):
                await _bare(self.scope, self.receive, self.send)
        # Nothing of it goes on, the wait for a disconnect neither.
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_view_whose_asker_hangs_up_is_cancelled() -> None:
    async def story() -> None:
        client = Client("/slow")
        client.hung_up = began  # in the middle of it
        await client.ask()
        assert cancelled == ["/slow"]
        assert client.sent == []

    asyncio.run(story())


def test_an_answer_goes_out_once_and_nobody_waits_for_a_disconnect_behind_it() -> None:
    async def story() -> None:
        client = Client("/echo", b"so it came")
        await client.ask()
        start, *bodies = client.sent
        assert start["status"] == 202
        assert b"".join(message.get("body", b"") for message in bodies) == b"so it came"
        assert [message.get("more_body", False) for message in bodies][-1] is False

    asyncio.run(story())


@pytest.mark.parametrize(("path", "status"), [("/broken", 500), ("/nowhere", 404)])
def test_what_goes_wrong_is_an_answer_too(path: str, status: int) -> None:
    async def story() -> None:
        client = Client(path)
        await client.ask()
        assert client.sent[0]["status"] == status

    asyncio.run(story())
