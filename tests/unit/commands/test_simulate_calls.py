from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.management import CommandError

from sessions_app.management.commands import simulate_calls
from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.load import CallResult, Target, summarise
from tests.unit.commands.rows import a_node
from tests.unit.commands.running import output_of, rows_of

pytestmark = pytest.mark.django_db


@dataclass
class FakeServer:
    """A server's health. `live` are its calls in memory, `rows` the fleet's."""

    url: str = ""
    status: str = "ok"
    live: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    hides_calls: bool = False
    authorization: str | None = None
    asked: int = 0
    on_asked: Callable[[int], None] = lambda count: None

    def health(self, *, own: bool) -> dict[str, Any]:
        self.asked += 1
        self.on_asked(self.asked)
        uuids = self.live if own else self.rows
        hidden = {} if self.hides_calls else {"uuids": uuids}
        return {
            "status": self.status,
            "node": "one",
            "sessions": {"active_count": len(uuids), **hidden},
        }


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.authorization = self.headers.get("Authorization")
            body = json.dumps(fake.health(own=self.path.endswith("?node=self"))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            fake.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield fake
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as fake:
        yield fake


def a_result(index: int, **fields: Any) -> CallResult:
    values: dict[str, Any] = {
        "index": index,
        "uuid": f"uuid-{index}",
        "fault": None,
        "outcome": Outcome.CALLER_HUNG_UP,
        "greeted": True,
        "replies_s": (0.8,),
        "unanswered": 0,
        "first_sound_s": 0.3,
        "longest_silence_s": 1.0,
        "met_silence": False,
        "broken": False,
        "clears": 0,
        "frames_received": 500,
        "talked": (),
        "duration_s": 10.0,
        "errors": (),
    }
    return CallResult(**values | fields)


class FakeLoad:
    """Instead of ringing, remembers how it was to be done."""

    def __init__(self) -> None:
        self.target: Target | None = None
        self.told: dict[str, Any] = {}
        self.results = [a_result(0), a_result(1)]

    async def __call__(self, target: Target, *, on_result: Any, **told: Any) -> Any:
        self.target, self.told = target, told
        for result in self.results:
            on_result(result)
        return self.results, summarise(self.results, 12.5)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> FakeLoad:
    fake = FakeLoad()
    monkeypatch.setattr(simulate_calls, "run_calls", fake)
    monkeypatch.setattr(simulate_calls, "RELEASE_S", 0.3)
    return fake


def test_good_calls_end_well_and_are_told(server: FakeServer, load: FakeLoad) -> None:
    told = output_of("simulate_calls", "--url", server.url, "--calls=2", "--at-once=2")

    lines = {line[:22].strip(): line[22:].strip() for line in told.splitlines()}
    assert lines["calls"] == "2 in 12.5 s"
    assert lines["greeted"] == "2"
    assert lines["met silence"] == lines["broke"] == lines["left behind"] == "0"
    assert lines["first sound"] == "0.30 s half, 0.30 s of 95 %, 0.30 s worst"
    assert lines["ended: caller hung up"] == "2"


def test_calls_are_signed_as_the_server_wants_and_hang_on_its_sandbox(
    server: FakeServer, load: FakeLoad, settings: Any
) -> None:
    a_node("one", sandbox_url="ws://127.0.0.1:9/sandbox/legs")
    a_node("two", sandbox_url="ws://127.0.0.1:8/sandbox/legs")

    output_of(
        "simulate_calls",
        *("--url", f"{server.url}/", "--calls=7", "--at-once=3", "--called=442079460001"),
        *("--questions=4", "--silence-limit=2.5", "--faults=openai-closes,none"),
    )

    assert load.target == Target(
        base_url=server.url,
        signature_secret=settings.VONAGE_SIGNATURE_SECRET,
        api_key=settings.VONAGE_API_KEY,
        application_id=settings.VONAGE_APPLICATION_ID,
        called="442079460001",
        control_url="ws://127.0.0.1:9/sandbox/legs",
    )
    assert (load.told["calls"], load.told["at_once"]) == (7, 3)
    assert load.told["faults"] == (Fault.OPENAI_CLOSES, None)
    assert (load.told["script"].questions, load.told["script"].silence_limit_s) == (4, 2.5)


def test_all_faults_are_all_and_none(server: FakeServer, load: FakeLoad) -> None:
    output_of("simulate_calls", "--url", server.url, "--faults=all")

    assert load.told["faults"] == (None, *Fault)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"met_silence": True}, "Of 2 calls, 1 met silence."),
        ({"broken": True}, "Of 2 calls, 1 broke."),
        ({"met_silence": True, "broken": True}, "Of 2 calls, 1 met silence, 1 broke."),
    ],
)
def test_a_bad_call_is_a_failure(
    server: FakeServer, load: FakeLoad, fields: dict[str, Any], told: str
) -> None:
    load.results = [a_result(0), a_result(1, **fields)]

    with pytest.raises(CommandError) as failed:
        output_of("simulate_calls", "--url", server.url)
    assert str(failed.value) == told


@pytest.mark.parametrize("where", ["live", "rows"])
def test_a_call_left_behind_is_a_failure(server: FakeServer, load: FakeLoad, where: str) -> None:
    setattr(server, where, ["somebody-else", "uuid-1"])

    with pytest.raises(CommandError, match="Of 2 calls, 1 left something behind"):
        output_of("simulate_calls", "--url", server.url)


def test_a_release_may_take_a_moment_and_other_calls_may_go_on(
    server: FakeServer, load: FakeLoad
) -> None:
    server.live = server.rows = ["somebody-else", "uuid-1"]

    def released(asked: int) -> None:
        if asked == 4:
            server.live = server.rows = ["somebody-else"]

    server.on_asked = released

    assert "left behind" in output_of("simulate_calls", "--url", server.url)


def test_scripts_get_everything(server: FakeServer, load: FakeLoad) -> None:
    told = rows_of("simulate_calls", "--url", server.url)

    assert told["summary"]["calls"] == 2
    assert told["summary"]["is_good"] is True
    assert told["summary"]["outcomes"] == {"caller hung up": 2}
    assert told["left_behind"] == []
    assert [call["uuid"] for call in told["calls"]] == ["uuid-0", "uuid-1"]


def test_health_is_asked_with_its_token(server: FakeServer, load: FakeLoad, settings: Any) -> None:
    settings.HEALTH_TOKEN = "token"

    output_of("simulate_calls", "--url", server.url)

    assert server.authorization == "Bearer token"


def test_nobody_rings_a_server_that_cannot_be_judged(server: FakeServer, load: FakeLoad) -> None:
    server.hides_calls = True
    with pytest.raises(CommandError, match="wanted its HEALTH_TOKEN"):
        output_of("simulate_calls", "--url", server.url)

    server.hides_calls, server.status = False, "draining"
    with pytest.raises(CommandError, match="it takes no calls, it is draining"):
        output_of("simulate_calls", "--url", server.url)

    with pytest.raises(CommandError, match=r"no server of ours answers there .ConnectError"):
        output_of("simulate_calls", "--url=http://127.0.0.1:1")
    assert load.target is None


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--calls=0", "read '0', wanted a whole number from 1"),
        ("--at-once=many", "read 'many', wanted a whole number from 1"),
        ("--faults=openai-sulks", "read 'openai-sulks', wanted some of: none, openai-refused"),
    ],
)
def test_what_is_wrong_is_told(option: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        output_of("simulate_calls", option)
