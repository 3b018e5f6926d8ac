from __future__ import annotations

import asyncio
import json

from websockets.sync.client import connect

from tests.fakes.openai import FakeOpenAI
from tests.fakes.stage import BackgroundLoop


def test_a_test_that_is_not_async_can_use_a_stand_in_too() -> None:
    with BackgroundLoop() as loop:
        openai = loop.enter(FakeOpenAI())
        url = openai.base_url.replace("http", "ws") + "/realtime?model=gpt-realtime-2.1"
        headers = {"Authorization": f"Bearer {openai.api_key}"}
        with connect(url, additional_headers=headers, compression=None) as socket:
            assert json.loads(socket.recv(timeout=5))["type"] == "session.created"
            conn = loop.run(openai.connection())
            loop.run(conn.close(4000))
    assert openai.open_connections == 0


def test_the_loop_runs_in_a_thread_of_its_own() -> None:
    async def here() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with BackgroundLoop() as loop:
        assert loop.run(here()) is loop.run(here())
