"""What the tests of the bridge share."""

from __future__ import annotations

import pytest

from tests.unit.bridge.house import Build, House


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Build:
    def build(capacity: int = 10) -> House:
        return House(monkeypatch, capacity)

    return build
