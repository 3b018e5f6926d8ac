from __future__ import annotations

import time

import httpx
import numpy as np
import pytest

from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.server import Sandbox

TEXT = "Good morning. This is quite a long sentence, so that it can be interrupted. Goodbye."


def post(
    sandbox: Sandbox,
    *,
    voice: str = "sarah",
    query: str = "?output_format=pcm_16000",
    headers: dict[str, str] | None = None,
    json: object = None,
    timeout_s: float = 10.0,
) -> httpx.Response:
    return httpx.post(
        f"{sandbox.speechmatics_tts_url}/{voice}{query}",
        headers={"Authorization": "Bearer k"} if headers is None else headers,
        json={"text": TEXT} if json is None else json,
        timeout=timeout_s,
        trust_env=False,
    )


def test_pcm_is_speech_at_16_khz_in_chunks(sandbox: Sandbox) -> None:
    reply = post(sandbox)
    assert reply.status_code == 200
    assert reply.headers["transfer-encoding"] == "chunked"
    assert "json" not in reply.headers["content-type"]
    samples = np.frombuffer(reply.content, "<i2").astype(int)
    assert 3.0 < len(samples) / 16000 < 9.0
    assert np.abs(samples).max() > 3000


def test_chunks_do_not_respect_samples(sandbox: Sandbox) -> None:
    url = f"{sandbox.speechmatics_tts_url}/theo?output_format=pcm_16000"
    headers = {"Authorization": "Bearer k"}
    with httpx.stream("POST", url, headers=headers, json={"text": TEXT}, trust_env=False) as reply:
        sizes = [len(chunk) for chunk in reply.iter_raw()]
    assert len(sizes) > 3
    assert any(size % 2 for size in sizes)
    assert sum(sizes) % 2 == 0


def test_wav_is_the_default_and_has_a_header_with_placeholders(sandbox: Sandbox) -> None:
    reply = post(sandbox, query="")
    assert reply.headers["content-type"] == "audio/wav"
    assert reply.content[:4] == b"RIFF"
    assert reply.content[4:8] == b"\xff\xff\xff\xff"
    assert reply.content[8:16] == b"WAVEfmt "


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {}}, 401),
        ({"voice": "nobody"}, 404),
        ({"query": "?output_format=mp3"}, 422),
        ({"json": {"text": TEXT, "speed": 2}}, 422),
        ({"json": {"text": "  "}}, 422),
        ({"json": ["text"]}, 422),
    ],
)
def test_wrong_requests_get_a_json_error(sandbox: Sandbox, changes: dict, status: int) -> None:
    reply = post(sandbox, **changes)
    assert reply.status_code == status
    assert reply.json()


def faulty(fault: Fault) -> dict[str, str]:
    return {"Authorization": "Bearer k", "X-Sandbox-Fault": fault.value}


def test_tts_refused_is_a_503(sandbox: Sandbox) -> None:
    assert post(sandbox, headers=faulty(Fault.TTS_REFUSED)).status_code == 503


def test_tts_html_is_a_200_that_is_no_speech(sandbox: Sandbox) -> None:
    reply = post(sandbox, headers=faulty(Fault.TTS_HTML))
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")


def test_tts_cut_drops_the_connection_in_the_middle(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(sandbox, headers=faulty(Fault.TTS_CUT))


def test_tts_stalls_in_the_middle(sandbox: Sandbox) -> None:
    with pytest.raises(httpx.ReadTimeout):
        post(sandbox, headers=faulty(Fault.TTS_STALLS), timeout_s=0.5)


def test_a_fault_of_another_piece_changes_nothing(sandbox: Sandbox) -> None:
    assert post(sandbox, headers=faulty(Fault.OPENAI_REFUSED)).status_code == 200


def test_speech_comes_faster_than_it_is_heard(sandbox: Sandbox) -> None:
    text = "This is one of many sentences that are all alike. " * 8
    began = time.monotonic()
    seconds = len(post(sandbox, json={"text": text}).content) / 32000
    assert seconds > 15
    assert time.monotonic() - began < seconds / 2
