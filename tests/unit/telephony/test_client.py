"""Vonage's REST API, against a transport in memory and a real socket that misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.telephony.vonage.client import CallInfo, Outcome, VonageCalls, VonageError

from .keys import public_pem, rsa_pem

UUID = "0779a56d002f1c7f47f82ef5fe84ab79"
API = "https://api.nexmo.com"
REGION = "https://api-eu-3.vonage.com"
NOW_S = 1_800_000_000.0

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Backoff of no length; the number of attempts stays the client's own."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


class Vonage:
    """Gives the prepared answers in turn (the last for ever) and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def calls(http: httpx.AsyncClient, **options: Any) -> VonageCalls:
    usual: dict[str, Any] = {
        "application_id": "aaaa-bbbb",
        "private_key": rsa_pem(),
        "clock": lambda: NOW_S,
        "total_timeout_s": 30.0,
    }
    return VonageCalls(http, **usual | options)


def ask(handler: Any, do: Callable[[VonageCalls], Awaitable[Any]], **options: Any) -> Any:
    """Run one request of a client whose whole network is `handler`."""

    async def scenario() -> Any:
        transport = httpx.MockTransport(handler)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as http:
            try:
                return await do(calls(http, **options))
            finally:
                assert not http.is_closed, "the owner closes his client, not we"

    return asyncio.run(scenario())


def failure(handler: Any, do: Callable[[VonageCalls], Awaitable[Any]], **options: Any) -> Any:
    with pytest.raises(VonageError) as caught:
        ask(handler, do, **options)
    return caught.value


def hang_up(client: VonageCalls) -> Awaitable[Outcome]:
    return client.hang_up(UUID)


def get_call(client: VonageCalls) -> Awaitable[CallInfo | None]:
    return client.get_call(UUID)


def problem(code: int, **fields: Any) -> httpx.Response:
    return httpx.Response(code, json=fields)


def test_hanging_up_is_one_put_with_the_documented_body() -> None:
    vonage = Vonage(httpx.Response(204))
    assert ask(vonage, hang_up) is Outcome.DONE
    [request] = vonage.asked
    assert (request.method, str(request.url)) == ("PUT", f"{API}/v1/calls/{UUID}")
    assert json.loads(request.content) == {"action": "hangup"}
    assert request.headers["content-type"] == "application/json"


def test_a_transfer_replaces_the_flow_by_an_ncco() -> None:
    vonage = Vonage(httpx.Response(200))
    flow = [{"action": "talk", "text": "Un instant, s’il vous plaît \ud800"}]
    assert ask(vonage, lambda client: client.transfer(UUID, flow)) is Outcome.DONE
    assert json.loads(vonage.asked[0].content) == {
        "action": "transfer",
        "destination": {"type": "ncco", "ncco": flow},
    }


def test_each_request_carries_a_fresh_application_jwt() -> None:
    vonage = Vonage(httpx.Response(204))

    async def twice(client: VonageCalls) -> None:
        await client.hang_up(UUID)
        await client.hang_up(UUID)

    ask(vonage, twice)
    claims = []
    for request in vonage.asked:
        scheme, _, token = request.headers["authorization"].partition(" ")
        assert scheme == "Bearer"
        assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT"}
        claims.append(
            jwt.decode(
                token,
                public_pem(),
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
        )
    for claim in claims:
        assert claim["application_id"] == "aaaa-bbbb"
        assert (claim["iat"], claim["exp"]) == (int(NOW_S), int(NOW_S) + 900)
    assert claims[0]["jti"] != claims[1]["jti"]


def test_a_leg_that_is_gone_is_an_outcome_and_no_error() -> None:
    vonage = Vonage(problem(404, title="Not Found"))
    assert ask(vonage, hang_up) is Outcome.LEG_GONE
    assert ask(vonage, lambda client: client.transfer(UUID, [])) is Outcome.LEG_GONE
    assert ask(vonage, get_call) is None
    assert len(vonage.asked) == 3


@pytest.mark.parametrize(
    "failed",
    [
        httpx.Response(429),
        httpx.Response(500),
        httpx.Response(503, text="<html>busy</html>"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.PoolTimeout("crowded"),
        httpx.RemoteProtocolError("dropped"),
    ],
    ids=lambda failed: failed.__class__.__name__ + str(getattr(failed, "status_code", "")),
)
def test_what_may_pass_is_tried_again(failed: httpx.Response | Exception) -> None:
    vonage = Vonage(failed, failed, httpx.Response(204))
    assert ask(vonage, hang_up) is Outcome.DONE
    assert len(vonage.asked) == 3


def test_a_lost_answer_to_a_hang_up_that_worked_ends_as_leg_gone() -> None:
    vonage = Vonage(httpx.ReadError("reset"), problem(404))
    assert ask(vonage, hang_up) is Outcome.LEG_GONE


def test_after_the_last_attempt_the_error_says_that_later_may_help() -> None:
    vonage = Vonage(problem(429, title="Throttled"))
    error = failure(vonage, hang_up, attempts=3)
    assert len(vonage.asked) == 3
    assert (error.retryable, error.status, error.title) == (True, 429, "Throttled")


def test_a_network_that_stays_away_is_told_by_kind() -> None:
    error = failure(Vonage(httpx.ConnectError("secret words")), hang_up)
    assert (error.retryable, error.status) == (True, None)
    assert str(error) == "Vonage PUT call: ConnectError"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 409, 422])
def test_what_cannot_pass_is_not_tried_again(status: int) -> None:
    vonage = Vonage(httpx.Response(status, headers={"location": "https://evil.example/"}))
    error = failure(vonage, hang_up)
    assert len(vonage.asked) == 1
    assert (error.retryable, error.status) == (False, status)


def test_vonages_own_words_reach_the_error() -> None:
    body = {"type": "x", "title": "Bad Request", "detail": "The action\nis not known"}
    error = failure(Vonage(problem(400, **body)), hang_up)
    assert (error.title, error.detail) == ("Bad Request", "The action is not known")
    assert str(error) == "Vonage PUT call: HTTP 400: Bad Request: The action is not known"


def test_vonages_words_are_shortened_and_numbers_masked() -> None:
    detail = "number +447700900123 \x1b[31m" + "x" * 1000
    error = failure(Vonage(problem(400, title=["odd"], detail=detail)), hang_up)
    assert error.title == ""
    assert "447700900123" not in str(error)
    assert error.detail.startswith("number +…23 [31mxxx")
    assert len(error.detail) == 200


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff", b"[" * 5000])
def test_an_error_without_vonages_words_is_still_told(body: bytes) -> None:
    error = failure(Vonage(httpx.Response(400, content=body)), hang_up)
    assert str(error) == "Vonage PUT call: HTTP 400"


def test_a_call_goes_to_its_own_region() -> None:
    vonage = Vonage(httpx.Response(204))
    ask(vonage, lambda client: client.hang_up(UUID, REGION + "/"))
    assert str(vonage.asked[0].url) == f"{REGION}/v1/calls/{UUID}"


@pytest.mark.parametrize("region", [None, "", "https://evilvonage.com", "http://api.vonage.com"])
def test_a_region_that_is_not_vonages_never_sees_our_token(region: str | None) -> None:
    vonage = Vonage(httpx.Response(204))
    ask(vonage, lambda client: client.hang_up(UUID, region), api_url="http://127.0.0.1:9/base/")
    assert str(vonage.asked[0].url) == f"http://127.0.0.1:9/base/v1/calls/{UUID}"


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=40).filter(lambda uuid: uuid.strip(". ")))
def test_a_uuid_whatever_stays_one_segment_of_the_path(uuid: str) -> None:
    vonage = Vonage(httpx.Response(204))
    ask(vonage, lambda client: client.hang_up(uuid))
    path = vonage.asked[0].url.raw_path.decode()
    assert path.startswith("/v1/calls/")
    segment = path.removeprefix("/v1/calls/")
    assert segment.strip(".") and not set(segment) & set("/?#\\ ")


@pytest.mark.parametrize("uuid", ["", ".", "..", " ", "x" * 257])
def test_what_is_no_uuid_is_never_sent(uuid: str) -> None:
    vonage = Vonage(httpx.Response(204))
    error = failure(vonage, lambda client: client.hang_up(uuid))
    assert not error.retryable
    assert vonage.asked == []


def test_extra_headers_go_along_but_cannot_replace_ours() -> None:
    vonage = Vonage(httpx.Response(204))
    extra = {"X-Fault": "slow", "authorization": "Bearer theirs"}
    ask(vonage, lambda client: client.hang_up(UUID, extra_headers=extra))
    headers = vonage.asked[0].headers
    assert headers["x-fault"] == "slow"
    assert "theirs" not in headers.get_list("authorization", split_commas=True)[0]
    assert len(headers.get_list("authorization")) == 1


def test_a_call_is_read_with_its_figures_as_vonage_writes_them() -> None:
    body = {
        "uuid": UUID,
        "conversation_uuid": "CON-1",
        "to": {"type": "phone", "number": "442079460000"},
        "status": "completed",
        "direction": "inbound",
        "rate": "0.39",
        "price": "23.40",
        "duration": "60",
        "start_time": "2026-01-01T12:00:00Z",
        "end_time": "2026-01-01T12:01:00Z",
        "network": None,
        "_links": {"self": {"href": "/calls/1"}},
    }
    vonage = Vonage(httpx.Response(200, json=body))
    assert ask(vonage, get_call) == CallInfo(
        uuid=UUID,
        conversation_uuid="CON-1",
        status="completed",
        direction="inbound",
        start_time="2026-01-01T12:00:00Z",
        end_time="2026-01-01T12:01:00Z",
        duration_s=60,
        rate="0.39",
        price="23.40",
    )
    assert vonage.asked[0].method == "GET"
    assert vonage.asked[0].content == b""


@pytest.mark.parametrize("duration", [None, "", "-1", "1.5", "٣", "9" * 5000, True, {}])
def test_a_live_or_odd_call_has_no_duration(duration: object) -> None:
    body = {"uuid": UUID, "status": "answered", "price": None, "duration": duration}
    info = ask(Vonage(httpx.Response(200, json=body)), get_call)
    assert info.duration_s is None
    assert (info.price, info.end_time) == ("", "")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"uuid":"x"}', b'{"status":"ringing"}'])
def test_an_answer_that_is_no_call_is_an_error(body: bytes) -> None:
    error = failure(Vonage(httpx.Response(200, content=body)), get_call)
    assert not error.retryable


class Endless(httpx.AsyncByteStream):
    """A body without end, that knows how much of it was taken and whether it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 1000
            yield b"x" * 1000

    async def aclose(self) -> None:
        self.closed = True


def test_an_answer_without_end_is_read_up_to_a_bound_and_closed() -> None:
    body = Endless()
    error = failure(lambda request: httpx.Response(400, stream=body), hang_up)
    assert error.status == 400
    assert body.taken <= 64 * 1024 + 1000
    assert body.closed


def test_the_total_time_ends_an_attempt_that_hangs() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    error = failure(never, hang_up, total_timeout_s=0.05)
    assert error.retryable
    assert "0.05 s (no answer)" in str(error)


def test_the_total_time_ends_the_backoff_and_tells_the_last_answer() -> None:
    async def hangs_at_last(request: httpx.Request) -> httpx.Response:
        if seen:
            await asyncio.Event().wait()
        seen.append(request)
        return httpx.Response(503)

    seen: list[httpx.Request] = []
    error = failure(hangs_at_last, hang_up, total_timeout_s=0.05)
    assert (error.retryable, error.status) == (True, 503)
    assert "HTTP 503" in str(error)


def test_a_cancelled_request_stays_cancelled() -> None:
    async def scenario() -> None:
        started = asyncio.Event()

        async def never(request: httpx.Request) -> httpx.Response:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as http:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(calls(http).hang_up(UUID))
                await started.wait()
                task.cancel()
            assert task.cancelled()

    asyncio.run(scenario())


def test_the_waits_between_attempts_grow_with_jitter_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    sleep, ours = asyncio.sleep, threading.get_ident()

    async def note(delay: float) -> None:
        if threading.get_ident() == ours:
            waits.append(delay)
        else:
            # The loop of another test's server, in a thread of its own.
            await sleep(delay)

    monkeypatch.setattr(asyncio, "sleep", note)
    with stamina.set_testing(False):
        for _ in range(20):
            failure(Vonage(httpx.Response(503)), hang_up)
    assert len(waits) == 60
    for first, second, third in zip(waits[0::3], waits[1::3], waits[2::3], strict=True):
        assert 0.1 <= first <= 0.3 and 0.2 <= second <= 0.4 and 0.4 <= third <= 0.6
    assert len(set(waits)) > 20


def test_over_a_real_socket_a_dropped_connection_is_followed_by_a_second_attempt() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heads) > 1:
                await reader.readexactly(len(b'{"action": "hangup"}'))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        finally:
            writer.close()

    async def scenario() -> Outcome:
        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0) as server,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            port = server.sockets[0].getsockname()[1]
            client = calls(http, api_url=f"http://127.0.0.1:{port}", attempt_timeout_s=30.0)
            return await client.hang_up("a/b?c")

    assert asyncio.run(scenario()) is Outcome.DONE
    assert [head.split(b"\r\n")[0] for head in heads] == [b"PUT /v1/calls/a%2Fb%3Fc HTTP/1.1"] * 2


@pytest.mark.parametrize(
    "api_url", ["", "api.nexmo.com", "ftp://api.nexmo.com", "https://", "https://x.example/?q=1"]
)
def test_an_api_address_that_is_none_is_refused_at_once(api_url: str) -> None:
    with pytest.raises(ValueError, match="wanted one like"):
        calls(httpx.AsyncClient(), api_url=api_url)


def test_a_key_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="wanted"):
        calls(httpx.AsyncClient(), private_key="no key")
