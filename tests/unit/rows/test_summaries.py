"""The work after a call: tried again where that helps, ended where not, never forgotten."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from django.utils import timezone
from django_tasks import default_task_backend

from sessions_app import rows, tasks
from sessions_app.core.errors import ProviderError
from sessions_app.models import CallRecord, SummaryState
from sessions_app.providers.openai.summary import CallSummary, Intent, Sentiment
from tests.unit.rows.conftest import NODE, a_row, change, row, turn

pytestmark = pytest.mark.django_db

SUMMARY = CallSummary(
    summary="The caller said hello.",
    intent=Intent.OTHER,
    sentiment=Sentiment.NEUTRAL,
    follow_up=("Ring back",),
    callback_requested=True,
    usage={"total_tokens": 42},
)


class Model:
    """Stands where the summary is asked for."""

    def __init__(self, *answers: CallSummary | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, record: CallRecord) -> CallSummary:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def queue() -> list[Any]:
    """The jobs that were asked for."""
    default_task_backend.results.clear()
    return default_task_backend.results  # type: ignore[no-any-return]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    def answer(*answers: CallSummary | Exception) -> Model:
        stub = Model(*answers)
        monkeypatch.setattr(tasks, "_ask", stub)
        return stub

    return answer


def ended(**fields: Any) -> CallRecord:
    record = a_row(state=90, ended_at=timezone.now(), end_reason="agent_ended", **fields)
    record.turns.create(
        item_id="i1", speaker="caller", text="hello", from_ms=61_000, to_ms=62_000, final=True
    )
    tasks.enqueue_summary(record)
    return record


def work(record: CallRecord) -> None:
    tasks.summarise_call.func(record.pk)


def test_the_end_of_a_call_asks_for_its_summary(queue: list[Any]) -> None:
    a_row()
    now = timezone.now()
    ended = {"state": 90, "ended_at": now, "end_reason": "agent_ended"}
    rows.write(change(fields=ended, turns=[turn()]), NODE)
    assert [list(job.args) for job in queue] == [[row().pk]]
    assert row().summary_due_at is not None


def test_a_summary_is_made_once(model: Callable[..., Model]) -> None:
    record = ended(usage={"responses": 3})
    stub = model(SUMMARY)
    work(record)
    work(record)
    made = row()
    assert stub.asked == 1
    assert made.summary_state == SummaryState.DONE
    assert made.summary["summary"] == "The caller said hello."
    assert made.summary["follow_up"] == ["Ring back"]
    assert made.summary_due_at is None
    assert made.usage["responses"] == 3


def test_a_failure_that_may_pass_is_tried_again_later_and_later(
    model: Callable[..., Model], queue: list[Any]
) -> None:
    record = ended()
    model(ProviderError("HTTP 503", retryable=True))
    delays = []
    for _ in range(tasks.ATTEMPTS_MOST - 1):
        queue.clear()
        before = timezone.now()
        work(record)
        (job,) = queue
        delays.append((job.task.run_after - before).total_seconds())
        assert row().summary_state == SummaryState.PENDING
        assert row().summary_error == "HTTP 503", "the reason is shown meanwhile"
    assert all(later > sooner for sooner, later in pairwise(delays))
    assert 0.7 * tasks.BACKOFF_S <= delays[0] <= 1.3 * tasks.BACKOFF_S
    queue.clear()
    work(record)
    assert queue == []
    assert (row().summary_state, row().summary_error) == (SummaryState.FAILED, "HTTP 503")
    assert row().summary_due_at is None


def test_a_failure_that_cannot_pass_is_shown_at_once(
    model: Callable[..., Model], queue: list[Any]
) -> None:
    record = ended()
    queue.clear()
    model(ProviderError("HTTP 401: invalid_api_key", retryable=False))
    work(record)
    assert queue == []
    assert row().summary_state == SummaryState.FAILED
    assert "invalid_api_key" in row().summary_error


def test_a_second_try_that_goes_well_clears_the_reason(model: Callable[..., Model]) -> None:
    record = ended()
    model(ProviderError("HTTP 503", retryable=True), SUMMARY)
    work(record)
    work(record)
    assert (row().summary_state, row().summary_error) == (SummaryState.DONE, "")


def test_a_summary_that_is_overdue_is_asked_for_again(queue: list[Any]) -> None:
    ended()
    queue.clear()
    assert tasks.sweep() == 0
    late = timezone.now() - timedelta(seconds=1)
    CallRecord.objects.update(summary_due_at=late, summary_state=SummaryState.RUNNING)
    assert tasks.sweep() == 1
    assert len(queue) == 1
    assert tasks.sweep() == 0, "asked for again, it has its time again"


@pytest.mark.parametrize("state", [SummaryState.DONE, SummaryState.FAILED, SummaryState.NONE])
def test_what_is_settled_is_not_swept(state: SummaryState, queue: list[Any]) -> None:
    ended()
    queue.clear()
    late = timezone.now() - timedelta(seconds=1)
    CallRecord.objects.update(summary_due_at=late, summary_state=state)
    assert tasks.sweep() == 0
    assert queue == []


def test_a_job_that_breaks_every_time_is_not_asked_for_without_end(
    model: Callable[..., Model], queue: list[Any]
) -> None:
    """A fault of ours, or a worker that is killed each time: it ends, and is shown."""
    record = ended()
    stub = model(KeyError("a bug"))
    for _ in range(tasks.ATTEMPTS_MOST + 5):
        queue.clear()
        CallRecord.objects.update(summary_due_at=timezone.now() - timedelta(seconds=1))
        tasks.sweep()
        if not queue:
            break
        with suppress(KeyError):
            work(record)
    assert stub.asked <= tasks.ATTEMPTS_MOST + 1
    assert row().summary_state == SummaryState.FAILED
    assert row().summary_error


def test_a_call_that_was_deleted_meanwhile_is_no_fault(model: Callable[..., Model]) -> None:
    record = ended()
    pk = record.pk
    record.delete()
    stub = model(SUMMARY)
    tasks.summarise_call.func(pk)
    assert stub.asked == 0


def test_the_model_reads_the_conversation_line_by_line() -> None:
    record = ended()
    record.turns.create(
        item_id="i2", speaker="agent", text="Good morn", from_ms=62_500, interrupted=True
    )
    record.turns.create(item_id="i3", speaker="caller", text="", from_ms=70_000)
    assert tasks.transcript_text(record) == (
        "[01:01] caller: hello\n[01:02] agent: Good morn (interrupted)"
    )


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_names_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401, json={"error": {"code": "invalid_api_key", "message": "no"}})

    client = httpx.AsyncClient
    monkeypatch.setattr(
        tasks.httpx,
        "AsyncClient",
        lambda **_: client(transport=httpx.MockTransport(answer)),
    )
    record = ended()
    work(record)
    (request,) = seen
    assert b"447700900123" not in request.content
    assert row().summary_state == SummaryState.FAILED
