from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sessions_app.sandbox.conf import Keys
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.server import Sandbox, serve
from tests.unit.sandbox.realtime_client import MODEL, address, session


async def refused(sandbox: Sandbox, query: str, headers: dict[str, str]) -> tuple[int, Any]:
    """The status and error of a refused handshake."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address(sandbox, query), additional_headers=headers, proxy=None):
            pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/json"
    return response.status_code, json.loads(response.body)["error"]


def test_without_a_key_the_handshake_is_refused_with_a_json_body(sandbox: Sandbox) -> None:
    status, error = asyncio.run(refused(sandbox, f"?model={MODEL}", {}))
    assert status == 401
    assert error["type"] == "invalid_request_error"
    assert "API key" in error["message"]


def test_a_wrong_key_is_refused_where_one_is_configured() -> None:
    with serve(keys=Keys(openai="right")) as strict:
        headers = {"Authorization": "Bearer wrong"}
        status, error = asyncio.run(refused(strict, f"?model={MODEL}", headers))
    assert (status, error["code"]) == (401, "invalid_api_key")


def test_without_a_model_the_handshake_is_refused(sandbox: Sandbox) -> None:
    status, error = asyncio.run(refused(sandbox, "", {"Authorization": "Bearer k"}))
    assert (status, error["code"], error["param"]) == (400, "missing_model", "model")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.OPENAI_REFUSED, 503, None),
        (Fault.OPENAI_UNAUTHORIZED, 401, "invalid_api_key"),
        (Fault.OPENAI_QUOTA, 429, "insufficient_quota"),
    ],
)
def test_the_faults_of_the_handshake(
    sandbox: Sandbox, fault: Fault, status: int, code: str | None
) -> None:
    headers = {"Authorization": "Bearer k", "X-Sandbox-Fault": fault.value}
    got, error = asyncio.run(refused(sandbox, f"?model={MODEL}", headers))
    assert (got, error["code"]) == (status, code)


@pytest.mark.parametrize(
    ("query", "extra", "code"),
    [
        (f"?model={MODEL}", {"OpenAI-Beta": "realtime=v1"}, "beta_api_shape_disabled"),
        ("?model=gpt-4o", {}, "model_not_found"),
    ],
)
def test_an_outdated_client_gets_an_error_event_and_a_close_with_4000(
    sandbox: Sandbox, query: str, extra: dict[str, str], code: str
) -> None:
    async def scenario() -> None:
        headers = {"Authorization": "Bearer k"} | extra
        uri = address(sandbox, query)
        async with connect(uri, additional_headers=headers, proxy=None) as socket:
            assert json.loads(await socket.recv())["error"]["code"] == code
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4000

    asyncio.run(scenario())


def test_the_first_event_is_session_created_with_the_effective_defaults(sandbox: Sandbox) -> None:
    async def scenario() -> dict[str, Any]:
        async with session(sandbox) as client:
            return client.events[0]["session"]

    created = asyncio.run(scenario())
    assert created["object"] == "realtime.session"
    assert created["model"] == MODEL
    assert created["output_modalities"] == ["audio"]
    assert created["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert created["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
