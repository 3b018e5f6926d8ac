from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from sessions_app.management.commands import _watched_server, simulate_calls
from sessions_app.management.commands._simulation_report import BEGINS, ENDS
from sessions_app.models import Agent
from sessions_app.sandbox.conversation import Ending
from sessions_app.sandbox.faults import OF_A_CALL, OF_SERVER, Fault, Wish, in_every_phase
from sessions_app.sandbox.load import Target, uuid_of
from sessions_app.sandbox.soak import FLAT_SLACK, Figures
from sessions_app.sandbox.tally import Summary, summarise
from tests.unit.commands.rows import a_node
from tests.unit.commands.running import output_of, rows_of
from tests.unit.sandbox.results import a_result

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
    process: dict[str, int] = field(default_factory=dict)
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
            **({"process": self.process} if self.process else {}),
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


class FakeLoad:
    """Instead of ringing, remembers how it was to be done."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.target: Target | None = None
        self.told: dict[str, Any] = {}
        self.results = [a_result(0), a_result(1)]
        self.runs: list[int] = []
        self.leaves_behind: tuple[str, int] | None = None
        """Where a call is left, and which."""

    async def __call__(
        self, target: Target, *, calls: int, run: str = "", on_result: Any = None, **told: Any
    ) -> Summary:
        self.target, self.told = target, {"calls": calls, **told}
        self.runs.append(calls)
        if on_result is None:  # a warm-up
            return summarise([], 1.0)
        if self.leaves_behind is not None:
            where, index = self.leaves_behind
            setattr(self.server, where, ["somebody-else", uuid_of(run, index)])
        for result in self.results:
            on_result(result)
        return summarise(self.results, 12.5)


@pytest.fixture
def load(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeLoad:
    fake = FakeLoad(server)
    monkeypatch.setattr(simulate_calls, "run_calls", fake)
    monkeypatch.setattr(_watched_server, "RELEASE_S", 0.3)
    monkeypatch.setattr(_watched_server, "SETTLE_S", 0.2)
    monkeypatch.setattr(_watched_server, "_LOOK_EVERY_S", 0.01)
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
    plan = load.told["faults"]
    closes = Wish(Fault.OPENAI_CLOSES)
    assert [plan(index) for index in range(3)] == [closes, None, closes]
    script = load.told["script"]
    assert (script.questions, script.fault_silence_limit_s, script.silence_limit_s) == (4, 2.5, 4.0)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("all", [None, *map(Wish, OF_A_CALL)]),
        ("none,phone", [None, *(Wish(fault) for fault in Fault if fault.is_of_phone)]),
        ("suppliers", [Wish(fault) for fault in OF_A_CALL if not fault.is_of_phone]),
        ("server", in_every_phase(OF_SERVER)),
        ("matrix", [None, *in_every_phase()]),
        ("openai-drops@tool-running!", [Wish.parse("openai-drops@tool-running!")]),
    ],
)
def test_faults_have_names_and_names_together(
    server: FakeServer, load: FakeLoad, names: str, wanted: list[Wish | None]
) -> None:
    output_of("simulate_calls", "--url", server.url, f"--faults={names}")

    plan = load.told["faults"]
    assert [plan(index) for index in range(len(wanted))] == wanted
    assert plan(len(wanted)) == wanted[0]


def test_faults_of_speech_need_an_agent_that_speaks_so(server: FakeServer, load: FakeLoad) -> None:
    options = ("--url", server.url, "--faults=tts-cut", "--fault-every=1")
    output_of("simulate_calls", *options)
    assert load.target is not None
    assert load.target.speech_agent == ""
    assert load.told["faults"](0) is None

    Agent.objects.create(name="Sarah", voice="speechmatics:sarah")
    output_of("simulate_calls", *options)
    assert load.target.speech_agent == "Sarah"
    assert load.told["faults"](0) == Wish(Fault.TTS_CUT)


def test_each_fault_has_a_line(server: FakeServer, load: FakeLoad) -> None:
    load.results = [
        a_result(0),
        a_result(1, "openai-quota", ending=Ending.APOLOGY, longest_silence_s=2.5),
        a_result(2, "openai-quota", ending=Ending.PERSON, longest_silence_s=1.5),
        a_result(3, "phone-gone-untold", released_s=1.25),
    ]

    told = output_of("simulate_calls", "--url", server.url, "--calls=4")

    lines = told[told.index("fault ") :].splitlines()
    assert lines[1].split() == ["none", "1", "–", "1", "1.00", "s", "1.00", "s", "went", "on",
                                "caller", "hung", "up", "0", "good"]  # fmt: skip
    assert "2      2       2        1.50 s   2.50 s  1 apology, 1 person" in lines[2]
    assert "released after 1.2 s" in lines[3]


@pytest.mark.parametrize(
    ("fault", "fields", "told"),
    [
        ("", {"met_silence": True}, "Of 2 calls, 1 met silence."),
        ("openai-quota", {"ending": Ending.CUT_OFF}, "Of 2 calls, 1 broke."),
        (
            "openai-closes",
            {"ending": Ending.APOLOGY},
            "Of 2 calls, 1 ended though the conversation had to go on.",
        ),
        (
            "openai-quota",
            {"met_silence": True, "ending": Ending.NOTHING},
            "Of 2 calls, 1 met silence, 1 broke.",
        ),
    ],
)
def test_a_bad_call_is_a_failure(
    server: FakeServer, load: FakeLoad, fault: str, fields: dict[str, Any], told: str
) -> None:
    load.results = [a_result(0), a_result(1, fault, **fields)]

    with pytest.raises(CommandError) as failed:
        output_of("simulate_calls", "--url", server.url)
    assert str(failed.value) == told


@pytest.mark.parametrize("where", ["live", "rows"])
def test_a_call_left_behind_is_a_failure(server: FakeServer, load: FakeLoad, where: str) -> None:
    load.leaves_behind = (where, 1)

    with pytest.raises(CommandError, match="Of 2 calls, 1 left something behind"):
        output_of("simulate_calls", "--url", server.url)


def test_a_release_may_take_a_moment_and_other_calls_may_go_on(
    server: FakeServer, load: FakeLoad
) -> None:
    load.leaves_behind = ("live", 1)

    def released(asked: int) -> None:
        if asked == 4:
            server.live = ["somebody-else"]

    server.on_asked = released

    assert "left behind" in output_of("simulate_calls", "--url", server.url)


def test_scripts_get_everything(server: FakeServer, load: FakeLoad) -> None:
    told = rows_of("simulate_calls", "--url", server.url)

    assert told["summary"]["calls"] == 2
    assert told["summary"]["is_good"] is True
    assert told["summary"]["outcomes"] == {"caller hung up": 2}
    assert told["left_behind"] == {}
    assert [row["fault"] for row in told["summary"]["faults"]] == ["none"]
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
        ("--faults=openai-mute@lunch", "read 'lunch' for openai-mute, wanted one of"),
        (
            "--faults=openai-sulks",
            "read 'openai-sulks', wanted some of: none, all, suppliers, phone, matrix, server, ",
        ),
    ],
)
def test_what_is_wrong_is_told(option: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        output_of("simulate_calls", option)


# --- soak ---


def soaked(server: FakeServer, *options: str) -> str:
    return output_of("simulate_calls", "--url", server.url, "--soak", *options)


def test_a_soak_is_many_short_calls_with_a_fault_in_every_tenth(
    server: FakeServer, load: FakeLoad
) -> None:
    Agent.objects.create(name="Sarah", voice="speechmatics:sarah")
    told = soaked(server, "--seed=7")

    assert load.runs == [10, 5000], "a warm-up first"
    assert load.told["at_once"] == 10
    assert load.told["script"].is_short
    plan = load.told["faults"]
    struck = [index for index in range(100) if plan(index) is not None]
    assert struck == list(range(9, 100, 10))
    assert {plan(index) for index in range(9, 5000, 10)} == set(map(Wish, OF_A_CALL))
    assert ["seed", "7"] in [line.split() for line in told.splitlines()]


def test_what_is_said_of_a_soak_counts(server: FakeServer, load: FakeLoad) -> None:
    soaked(server, "--calls=40", "--at-once=4", "--fault-every=5", "--faults=phone-aborts")

    assert load.runs == [4, 40]
    assert load.told["faults"](4) == Wish(Fault.PHONE_ABORTS)
    assert load.told["faults"](5) is None


def test_the_seed_of_random_faults_is_told(server: FakeServer, load: FakeLoad) -> None:
    told = rows_of("simulate_calls", "--url", server.url, "--faults=all", "--fault-every=2")

    assert isinstance(told["seed"], int)


def test_a_server_that_holds_more_after_a_soak_fails_it(server: FakeServer, load: FakeLoad) -> None:
    server.process = {"rss_bytes": 100 << 20, "fds": 30, "tasks": 9, "threads": 5}

    async def leak(*args: Any, **options: Any) -> Summary:
        if options.get("on_result"):
            server.process = server.process | {"fds": 31 + FLAT_SLACK, "threads": 6}
        return await load(*args, **options)

    simulate_calls.run_calls = leak  # type: ignore[assignment]  # put back by the fixture
    with pytest.raises(CommandError, match=r"^Of 2 calls, 6 more fds\.$"):
        soaked(server)


def test_figures_that_nobody_tells_are_not_known(
    server: FakeServer, load: FakeLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watched_server, "_figures_of_system", lambda port: Figures())
    told = soaked(server)

    unknown = [line.split("  ")[0] for line in told.splitlines() if line.endswith("not known")]
    assert unknown == ["idle fds", "idle tasks", "idle threads", "memory"]


def test_of_a_server_on_this_machine_the_system_tells(server: FakeServer, load: FakeLoad) -> None:
    told = rows_of("simulate_calls", "--url", server.url, "--soak")

    # It lives in the process that runs this test.
    assert told["process"]["before"]["rss_bytes"] > 10 << 20
    assert told["process"]["before"]["threads"] >= 2
    assert told["process"]["before"]["tasks"] is None


# --- documents ---


def test_the_figures_go_between_the_marks_of_a_document(
    server: FakeServer, load: FakeLoad, tmp_path: Path
) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(f"# Ours\n\nBefore.\n\n{BEGINS}\nold\n{ENDS}\n\nAfter.\n")

    for _ in range(2):
        output_of("simulate_calls", "--url", server.url, "--markdown", str(document))

    text = document.read_text()
    assert text.startswith("# Ours\n\nBefore.\n\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert text.count("| none | 2 | – | 2 | 1.00 s | 1.00 s | went on | caller hung up | 0 |") == 1
    assert text.count("- met silence: 0") == 1


def test_a_document_is_made_but_never_one_without_marks_spoilt(
    server: FakeServer, load: FakeLoad, tmp_path: Path
) -> None:
    made, foreign = tmp_path / "made.md", tmp_path / "foreign.md"
    foreign.write_text("Mine.")

    output_of("simulate_calls", "--url", server.url, "--markdown", str(made))
    assert "| fault | calls |" in made.read_text()

    with pytest.raises(CommandError, match=r"foreign\.md: read no marks, wanted"):
        output_of("simulate_calls", "--url", server.url, "--markdown", str(foreign))
    assert foreign.read_text() == "Mine."
