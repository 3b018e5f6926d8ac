"""The browser's socket: what it takes and refuses, and how little a stalled page costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.live import browser_page
from sessions_app.live.browser_call import own_address
from sessions_app.live.browser_page import HangUp, Message, Page, PageMistake, Say, Voice

FRAME = bytes(browser_page.FRAME_BYTES)
GONE = {"type": "websocket.disconnect", "code": 1001}


def text(content: Any) -> Message:
    return {"type": "websocket.receive", "text": json.dumps(content)}


class Socket:
    """A socket whose page says these things, and that keeps what it is sent."""

    def __init__(self, said: Iterable[Message] = ()) -> None:
        self.sent: list[Message] = []
        self._said = [*said, GONE]

    async def receive(self) -> Message:
        return self._said.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def heard(*said: Message) -> list[Any]:
    socket = Socket(said)

    async def listen() -> list[Any]:
        return [order async for order in Page(socket.receive, socket.send).listen()]

    return asyncio.run(listen())


def test_frames_sentences_and_hanging_up_are_taken() -> None:
    assert heard(
        {"type": "websocket.receive", "bytes": FRAME},
        text({"type": "say", "text": "  Good morning  "}),
        text({"type": "say", "text": "   "}),
        text({"type": "hang_up"}),
    ) == [FRAME, Say("Good morning"), HangUp()]


@pytest.mark.parametrize("size", [0, 1, 639, 641, 1280])
def test_a_frame_of_another_size_is_a_mistake(size: int) -> None:
    with pytest.raises(PageMistake, match=f"{size} bytes, wanted 640"):
        heard({"type": "websocket.receive", "bytes": bytes(size)})


@pytest.mark.parametrize(
    "content",
    [
        {"type": "say", "text": "x" * 501},
        {"type": "say", "text": 5},
        {"type": "say"},
        {"type": "heard", "frames": 1},
        {"type": "heard", "frames": -1},
        {"type": "transfer"},
        [],
        "hang_up",
        None,
    ],
)
def test_a_text_of_another_shape_is_a_mistake(content: Any) -> None:
    with pytest.raises(PageMistake):
        heard(text(content))


@pytest.mark.parametrize("raw", ["", "{", "nonsense", "[" * 2000, "é" * 1025])
def test_a_text_that_is_no_short_json_is_a_mistake(raw: str) -> None:
    with pytest.raises(PageMistake):
        heard({"type": "websocket.receive", "text": raw})


@given(st.text(max_size=100))
def test_no_text_whatever_breaks_the_reader(raw: str) -> None:
    with suppress(PageMistake):
        heard({"type": "websocket.receive", "text": raw})


def test_a_page_that_hears_nothing_is_sent_five_seconds_and_no_more() -> None:
    async def scenario() -> tuple[Page, Socket]:
        socket = Socket()
        page = Page(socket.receive, socket.send)
        writer = asyncio.create_task(page.write())
        for _ in range(1000):
            page.play(Voice.AGENT, FRAME)
            await asyncio.sleep(0)
        await page.finish()
        await writer
        return page, socket

    page, socket = asyncio.run(scenario())
    assert len(socket.sent) == 250
    assert page.dropped == 750


def test_a_page_that_says_what_it_heard_goes_on_hearing() -> None:
    async def scenario() -> Socket:
        socket = Socket([text({"type": "heard", "frames": 200})])
        page = Page(socket.receive, socket.send)
        writer = asyncio.create_task(page.write())
        for count in range(400):
            if count == 250:
                assert [order async for order in page.listen()] == []
                page.is_gone = False
            page.play(Voice.CALLER, FRAME)
            await asyncio.sleep(0)
        await page.finish()
        await writer
        return socket

    sent = asyncio.run(scenario()).sent
    assert len(sent) == 400
    assert sent[0]["bytes"] == b"\x01" + FRAME


def test_sound_never_waits_in_memory_behind_a_socket_that_takes_nothing() -> None:
    async def scenario() -> Page:
        page = Page(Socket().receive, Socket().send)
        for _ in range(1000):
            page.play(Voice.AGENT, FRAME)
        return page

    assert asyncio.run(scenario()).dropped == 950


def test_texts_come_in_order_and_before_the_end() -> None:
    async def scenario() -> Socket:
        socket = Socket()
        page = Page(socket.receive, socket.send)
        for number in range(3):
            await page.tell({"type": "x", "number": number})
        await page.finish()
        await page.write()
        await page.close(1000)
        await page.close(1000)
        return socket

    *texts, close = asyncio.run(scenario()).sent
    assert [json.loads(message["text"])["number"] for message in texts] == [0, 1, 2]
    assert close == {"type": "websocket.close", "code": 1000}


@pytest.mark.parametrize(
    ("server", "allowed", "wanted"),
    [
        (["127.0.0.1", 8000], ["127.0.0.1"], "http://127.0.0.1:8000"),
        (["172.17.0.2", 8000], ["127.0.0.1"], "http://127.0.0.1:8000"),
        (["10.0.0.5", 8000], ["10.0.0.5"], "http://10.0.0.5:8000"),
        (["::1", 8000], ["[::1]"], "http://[::1]:8000"),
        (["127.0.0.1", 8000], ["calls.example.com"], "https://calls.example.com"),
        (["/run/socket", None], ["127.0.0.1"], "https://calls.example.com"),
        (None, ["127.0.0.1"], "https://calls.example.com"),
    ],
)
def test_the_call_stays_in_the_process_that_has_the_page(
    server: list[Any] | None, allowed: list[str], wanted: str
) -> None:
    with override_settings(ALLOWED_HOSTS=allowed, PUBLIC_URL="https://calls.example.com"):
        assert own_address({"server": server}) == wanted
