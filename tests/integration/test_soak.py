"""The short form of the soak: `simulate_calls --soak` against a server of its own.

What depends on how fast the machine is (the longest silence of all) is the long form's to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.server import RunningServer

CALLS = 36
#: What a caller need not notice, and a phone that is lost.
FAULTS = (
    "openai-garbage",
    "openai-fails-once",
    "phone-events-shuffled",
    "phone-marks-lost",
    "phone-aborts",
)


@pytest.fixture(scope="module")
def soaked() -> Iterator[dict[str, Any]]:
    with RunningServer(env={"AI_PROVIDER": "sandbox"}) as server:
        done = server.manage(
            "simulate_calls",
            *("--url", server.url, "--soak", "--json", "--seed=5"),
            *(
                f"--calls={CALLS}",
                "--at-once=10",
                "--fault-every=10",
                f"--faults={','.join(FAULTS)}",
            ),
            timeout_s=280,
        )
        assert done.stdout, done.stderr
        yield json.loads(done.stdout) | {"stderr": done.stderr}


@pytest.mark.timeout(300)
def test_every_caller_is_greeted_and_no_call_breaks(soaked: dict[str, Any]) -> None:
    summary = soaked["summary"]
    assert (summary["calls"], summary["greeted"]) == (CALLS, CALLS), soaked["stderr"]
    assert (summary["broken"], summary["given_up"]) == (0, 0), soaked["stderr"]
    healthy, *struck = summary["faults"]
    assert (healthy["fault"], healthy["calls"]) == ("none", CALLS - 3)
    assert healthy["endings"] == {"went on": CALLS - 3}
    assert sum(row["calls"] for row in struck) == 3
    assert {row["fault"] for row in struck} <= set(FAULTS)


@pytest.mark.timeout(300)
def test_the_usual_wait_is_far_from_silence(soaked: dict[str, Any]) -> None:
    for row in soaked["summary"]["faults"]:
        assert 0.0 < row["silence_s"]["p50"] < 3.0, soaked["stderr"]


@pytest.mark.timeout(300)
def test_nothing_is_left_and_the_process_is_what_it_was(soaked: dict[str, Any]) -> None:
    assert soaked["left_behind"] == {}
    before, after = soaked["process"]["before"], soaked["process"]["after"]
    assert before["rss_bytes"] > 10 << 20
    for name in ("fds", "threads"):
        assert after[name] <= before[name] + 5
