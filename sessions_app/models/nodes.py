"""The processes that serve calls, as they tell of themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models.functions import Now


class NodeQuerySet(models.QuerySet[Any]):
    def alive(self, lost_s: float) -> NodeQuerySet:
        """Heard within so many seconds, by the database's clock, which may have been set back."""
        lost = timedelta(seconds=lost_s)
        return self.filter(heartbeat_at__gte=Now() - lost, heartbeat_at__lte=Now() + lost)


class Node(models.Model):
    """One server process: where its sockets are, how much it takes, whether it drains."""

    name = models.CharField(max_length=100, unique=True)
    media_url = models.CharField(max_length=200)
    channel_layer = models.CharField(max_length=20, help_text="memory or redis")
    sandbox_url = models.CharField(max_length=200, blank=True)
    capacity = models.PositiveIntegerField()
    version = models.CharField(max_length=20, blank=True)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField(db_index=True)
    drain_requested_at = models.DateTimeField(null=True, blank=True)
    draining = models.BooleanField(default=False)

    objects = NodeQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
