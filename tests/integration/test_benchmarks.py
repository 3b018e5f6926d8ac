"""The benchmarks still run, and a call that they measure is a good one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.product import ROOT

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="the load needs another core than the system"
)


def ran(module: str, *arguments: str, into: Path) -> list[dict[str, Any]]:
    """Its figures; raises with its words if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--json", str(into)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ")
    found = json.loads(into.read_text())
    assert isinstance(found, list)
    return found


def test_the_ladder_measures_the_product_beside_the_floor(tmp_path: Path) -> None:
    systems = ("bare", "product-dense")
    rungs = ran(
        "benchmarks.relay",
        *("--calls", "2", "--seconds", "3", "--systems", ",".join(systems)),
        into=tmp_path / "ladder.json",
    )
    assert [rung["system"] for rung in rungs] == list(systems)
    for rung in rungs:
        assert rung["problems"] == [], rung
        assert rung["calls"] == 2 and rung["cpu_ms_per_call_s"] > 0
        assert rung["to_model_ms"][0] > 0, "frames of the caller come to the model"
        assert rung["greeting_ms"][0] >= 0


def test_calls_that_come_and_go_are_greeted(tmp_path: Path) -> None:
    (churned,) = ran(
        "benchmarks.churn",
        *("--calls", "30", "--at-once", "3", "--systems", "product-daphne"),
        into=tmp_path / "churn.json",
    )
    assert churned["calls"] == 30 and churned["greeting_ms"][0] >= 0


def test_a_first_sentence_is_asked_for_and_heard(tmp_path: Path) -> None:
    (spoken,) = ran(
        "benchmarks.speech",
        *("--calls", "2", "--seconds", "10", "--systems", "product-dense"),
        into=tmp_path / "speech.json",
    )
    assert spoken["answers"] > 0
    assert spoken["asked_ms"][0] > 0 and spoken["heard_ms"][0] > 0


def test_answers_are_given_beside_live_calls(tmp_path: Path) -> None:
    (answered,) = ran(
        "benchmarks.answer",
        *("--calls", "2", "--rate", "5", "--seconds", "3", "--systems", "product-dense"),
        into=tmp_path / "answer.json",
    )
    assert answered["answers"] == 15 and answered["failed"] == 0
    assert answered["answer_ms"][0] > 0 and answered["health_ms"][0] > 0
