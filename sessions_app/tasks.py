"""Work after a call, done by the job worker: its summary.

The job is enqueued in the transaction that ends the row, so a crash between hang-up and summary
loses nothing. What the job library lacks is here: another try later after a failure, and a due time
on the row, after which a sweep asks again (a worker that was killed leaves its job running).
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta

import httpx
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from django_tasks import task

from sessions_app import conf
from sessions_app.core.errors import ProviderError
from sessions_app.core.usage import flattened
from sessions_app.logcontext import call_context, pseudonym
from sessions_app.models import CallRecord, SummaryState
from sessions_app.providers.openai.client import OpenAIConf
from sessions_app.providers.openai.summary import CallSummary, summarise, summary_request
from sessions_app.providers.tls import tls_context
from sessions_app.sandbox.server import serve

logger = logging.getLogger(__name__)

ATTEMPTS_MOST = 6
#: A summary that is not there by then is asked for again.
DUE_AFTER_S = 240.0
BACKOFF_S = 30.0


def enqueue_summary(record: CallRecord, delay_s: float = 0.0) -> None:
    """Ask for a call's summary, in the caller's transaction."""
    now = timezone.now()
    CallRecord.objects.filter(pk=record.pk).update(
        summary_state=SummaryState.PENDING,
        summary_due_at=now + timedelta(seconds=delay_s + DUE_AFTER_S),
    )
    summarise_call.using(run_after=now + timedelta(seconds=delay_s)).enqueue(record.pk)


def sweep() -> int:
    """Ask again for summaries that have waited too long; gives how many. Safe to run anywhere."""
    overdue = CallRecord.objects.filter(
        summary_state__in=[SummaryState.PENDING, SummaryState.RUNNING], summary_due_at__lt=Now()
    )
    overdue.filter(summary_attempts__gte=ATTEMPTS_MOST).update(
        summary_state=SummaryState.FAILED,
        summary_error="the job broke off every time",
        summary_due_at=None,
    )
    asked = 0
    for record in overdue[:50]:
        with transaction.atomic():
            claimed = overdue.filter(pk=record.pk, summary_due_at=record.summary_due_at).update(
                summary_due_at=timezone.now() + timedelta(seconds=DUE_AFTER_S)
            )
            if claimed:
                enqueue_summary(record)
                asked += 1
    return asked


@task()
def summarise_call(call_pk: int) -> None:
    """Make one call's summary. Run twice, it is made once."""
    claimed = CallRecord.objects.filter(
        pk=call_pk, summary_state__in=[SummaryState.PENDING, SummaryState.RUNNING]
    ).update(
        summary_state=SummaryState.RUNNING,
        summary_attempts=F("summary_attempts") + 1,
        summary_due_at=timezone.now() + timedelta(seconds=DUE_AFTER_S),
    )
    if not claimed:
        return
    record = CallRecord.objects.select_related("agent").get(pk=call_pk)
    with call_context(record.uuid):
        try:
            summary = asyncio.run(_ask(record))
        except ProviderError as error:
            _failed(record, error)
        else:
            _done(record, summary)


def transcript_text(record: CallRecord) -> str:
    """The conversation as the model reads it: `[00:03] caller: …`, a line a turn."""
    return "\n".join(
        f"[{turn.from_ms // 60000:02d}:{turn.from_ms // 1000 % 60:02d}] {turn.speaker}: {turn.text}"
        + (" (interrupted)" if turn.interrupted else "")
        for turn in record.turns.exclude(text="")
    )


async def _ask(record: CallRecord) -> CallSummary:
    provider = conf.load().provider
    request = summary_request(
        await asyncio.to_thread(transcript_text, record),
        model=provider.summary_model,
        language=record.agent.language if record.agent else "en-GB",
        safety_identifier=pseudonym(record.caller),
    )
    openai = OpenAIConf(
        api_key=provider.openai_api_key or "sandbox",
        base_url=provider.openai_base_url,
        realtime_model=provider.realtime_model,
        transcription_model=provider.transcription_model,
    )
    with ExitStack() as stack:
        if provider.sandbox:
            sandbox = stack.enter_context(serve())
            openai = replace(openai, base_url=sandbox.openai_base_url)
        async with httpx.AsyncClient(verify=tls_context()) as http:
            return await summarise(http, openai, request)


def _done(record: CallRecord, summary: CallSummary) -> None:
    told = asdict(summary)
    used = flattened(told.pop("usage"), "summary.")
    with transaction.atomic():
        row = CallRecord.objects.select_for_update().get(pk=record.pk)
        row.summary, row.summary_state = told, SummaryState.DONE
        row.summary_error, row.summary_due_at = "", None
        row.usage = {**row.usage, **used}
        row.save()
    logger.info("summary made")


def _failed(record: CallRecord, error: ProviderError) -> None:
    """Another try later, or the end of trying; either way the reason is shown."""
    reason = str(error)[:300]
    logger.warning("no summary yet: %s", reason)
    with transaction.atomic():
        if error.retryable and record.summary_attempts < ATTEMPTS_MOST:
            delay_s = BACKOFF_S * 2 ** (record.summary_attempts - 1) * random.uniform(0.75, 1.25)
            enqueue_summary(record, delay_s)
            CallRecord.objects.filter(pk=record.pk).update(summary_error=reason)
        else:
            CallRecord.objects.filter(pk=record.pk).update(
                summary_state=SummaryState.FAILED, summary_error=reason, summary_due_at=None
            )
