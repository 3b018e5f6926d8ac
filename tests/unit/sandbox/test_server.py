from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest

from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.server import Sandbox, serve
from tests.unit.sandbox.realtime_client import session


def test_it_listens_when_the_block_begins_and_no_longer_when_it_ends() -> None:
    with serve() as sandbox:
        assert httpx.get(f"{sandbox.url}/sandbox/health", trust_env=False).status_code == 200
        assert sandbox.openai_base_url == f"{sandbox.url}/v1"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sandbox.url}/sandbox/health", trust_env=False)


def test_it_stops_soon_though_clients_are_connected_and_leaves_no_thread() -> None:
    before = threading.active_count()

    async def hold(sandbox: Sandbox) -> float:
        async with session(sandbox), session(sandbox, fault=Fault.OPENAI_HANGS, created=False):
            began = time.monotonic()
            await asyncio.to_thread(sandbox.close)
            return time.monotonic() - began

    with serve() as sandbox:
        assert asyncio.run(hold(sandbox)) < 3
        sandbox.close()
    assert threading.active_count() <= before


def test_two_run_side_by_side() -> None:
    with serve() as one, serve() as other:
        assert one.port != other.port


def test_a_taken_port_is_told_at_once(sandbox: Sandbox) -> None:
    with pytest.raises(OSError):
        Sandbox(sandbox.port)


def test_unknown_addresses_are_404(sandbox: Sandbox) -> None:
    reply = httpx.get(f"{sandbox.url}/v1/models/none", trust_env=False)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "Invalid URL (/v1/models/none)"


def test_requests_are_recorded() -> None:
    with serve() as sandbox:
        url = f"{sandbox.speechmatics_tts_url}/sarah?output_format=pcm_16000"
        httpx.post(url, json={"text": "Hi"}, headers={"X-Sandbox-Fault": "none"}, trust_env=False)
        (recorded,) = sandbox.requests
    assert recorded.path == "/generate/sarah"
    assert recorded.query == {"output_format": "pcm_16000"}
    assert recorded.headers["x-sandbox-fault"] == "none"
    assert recorded.body == b'{"text":"Hi"}'
