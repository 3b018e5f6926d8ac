"""Jobs that wait for a worker."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db.models import Q
from django.db.models.functions import Now
from django_tasks_db.models import DBTaskResult, get_date_max

#: A free worker takes a job within a second or so.
JOB_OVERDUE_S: Final = 60


def overdue_jobs(older_than_s: float = JOB_OVERDUE_S) -> int:
    """How many jobs have been due for so long, by the database's clock, and nobody runs them."""
    since = Now() - timedelta(seconds=older_than_s)
    # A job without a time of its own is stored as due at the end of time.
    due = Q(run_after=get_date_max(), enqueued_at__lt=since) | Q(run_after__lt=since)
    return int(DBTaskResult.objects.ready().filter(due).count())
