"""A supervisor whispers to the agent of a live call, from outside its process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.openai_connection import RealtimeConnection
from tests.fakes.waiting import eventually
from tests.integration.support import Rows, Shared, shared_stage

REFUND = "Offer him a refund."
#: As long as somebody who asked has to wait for the answer at most.
ANSWERED_S = 2.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_stage() as shared:
        yield shared


def ask(rows: Rows, call_uuid: str, text: str) -> None:
    """As another process does."""
    rows.ask(
        "INSERT INTO sessions_app_callcommand (call_id, kind, text, state, answer, requested_at) "
        "SELECT id, 'whisper', ?, 'asked', '', ? FROM sessions_app_callrecord WHERE uuid = ?",
        text,
        datetime.now(UTC).isoformat(" "),
        call_uuid,
    )


def answers(rows: Rows, call_uuid: str) -> list[str]:
    found = rows.ask(
        "SELECT c.answer FROM sessions_app_callcommand c "
        "JOIN sessions_app_callrecord r ON r.id = c.call_id "
        "WHERE r.uuid = ? AND c.state = 'done' ORDER BY c.id",
        call_uuid,
    )
    return [row["answer"] for row in found]


def whispers(model: RealtimeConnection) -> list[str]:
    items: list[dict[str, Any]] = [dict(e["item"]) for e in model.got("conversation.item.create")]
    return [item["content"][0]["text"] for item in items if item.get("role") == "system"]


def test_the_agent_is_told_and_takes_it_up_and_the_caller_hears_nothing_of_it(
    shared: Shared,
) -> None:
    s, rows = shared.stage, Rows.of(shared.stage.server)

    async def scenario() -> None:
        async with s.call() as phone:
            await phone.wait_for_voice()
            [model] = [each for each in s.openai.connections if each.open]
            await model.wait_idle()
            asked = len(model.got("response.create"))
            ask(rows, phone.uuid, REFUND)
            await eventually("an answer", lambda: answers(rows, phone.uuid), ANSWERED_S)
            assert answers(rows, phone.uuid) == ["the agent was told"]
            [whisper] = whispers(model)
            assert whisper.endswith(REFUND)
            await eventually("a request", lambda: len(model.got("response.create")) > asked, 20)
            # Twice a second commands are looked for: what is done is not done again.
            ask(rows, phone.uuid, "Be brief.")
            await eventually("the next", lambda: len(answers(rows, phone.uuid)) == 2, ANSWERED_S)
            assert [each.splitlines()[-1] for each in whispers(model)] == [REFUND, "Be brief."]
        await rows.ended(phone.uuid)
        assert "whispered" in rows.events(phone.uuid)
        said = rows.ask(
            "SELECT text FROM sessions_app_transcriptturn t "
            "JOIN sessions_app_callrecord r ON r.id = t.call_id WHERE r.uuid = ?",
            phone.uuid,
        )
        assert not [row for row in said if "refund" in row["text"]]
        assert s.violations() == []

    shared.run(scenario())
