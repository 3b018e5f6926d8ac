"""When the fleet's next calls connect: one row, so that two processes never take the same place."""

from __future__ import annotations

from django.db import models


class ConnectPace(models.Model):
    """Locked by whoever takes a place; see `core.pacing`."""

    taken = models.JSONField(
        default=list, help_text="When calls connect, in unix milliseconds, the earliest first."
    )

    def __str__(self) -> str:
        return f"{len(self.taken)} places taken"
