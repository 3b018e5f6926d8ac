"""One sandbox for all tests here, quicker than the real services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sessions_app.sandbox.conf import Tempo
from sessions_app.sandbox.server import Sandbox, serve

QUICK = Tempo(
    thinking_s=0.02,
    burst=40.0,
    transcription_s=(0.01, 0.2),
    slow_s=0.3,
    expires_s=0.3,
    rest_slow_s=0.3,
    stall_s=5.0,
)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with serve(tempo=QUICK) as running:
        yield running
