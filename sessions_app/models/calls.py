"""What happened in calls: the mirrored call, its turns and events, and what was asked of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from sessions_app import rights
from sessions_app.core.events import EndReason, Speaker
from sessions_app.models.agents import Agent, User


class CallState(models.IntegerChoices):
    """Only ever moves to a larger number."""

    #: Waits for room, spoken to by the carrier; no process serves it, and it has no slot.
    HELD = 5, "on hold"
    RINGING = 10, "ringing"
    ANSWERED = 20, "answered"
    LIVE = 30, "live"
    ENDED = 90, "ended"


class SummaryState(models.TextChoices):
    NONE = "none", "nothing to summarise"
    PENDING = "pending", "waiting"
    RUNNING = "running", "being made"
    DONE = "done", "done"
    FAILED = "failed", "failed"


END_REASONS = [(reason.value, reason.value.replace("_", " ")) for reason in EndReason]


class CallQuerySet(models.QuerySet[Any]):
    """Calls, by who may see them and by whether they go on."""

    def visible_to(self, user: User) -> CallQuerySet:
        """Everybody sees their own; see `rights.SEE_ALL`."""
        return self if rights.may(user, rights.SEE_ALL) else self.filter(user_id=user.pk or 0)

    def live(self) -> CallQuerySet:
        """From the answer that reserved a slot until the end."""
        return self.exclude(state__in=(CallState.HELD, CallState.ENDED))

    def held(self) -> CallQuerySet:
        """Those who wait for a slot."""
        return self.filter(state=CallState.HELD)

    def silent_for(self, lost_s: float) -> CallQuerySet:
        """Calls whose process has not been heard for so long, by the database's clock; one that
        was heard in the future was heard before that clock was set back.
        """
        lost = timedelta(seconds=lost_s)
        return self.live().filter(
            models.Q(heartbeat_at__lt=Now() - lost) | models.Q(heartbeat_at__gt=Now() + lost)
        )


class CallRecord(models.Model):
    """The mirror of one call, from its answer webhook to its summary."""

    uuid = models.CharField(
        max_length=128,
        unique=True,
        help_text="The caller's leg at Vonage. An opaque text, with or without hyphens.",
    )
    conversation_uuid = models.CharField(max_length=128, blank=True, db_index=True)
    region_url = models.CharField(max_length=200, blank=True)
    caller = models.CharField(max_length=100, blank=True, help_text="Empty: withheld.")
    called = models.CharField(max_length=100, blank=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="calls",
        verbose_name="owner",
        help_text="The number's owner, else the agent's. Nobody: who may see all calls sees it.",
    )
    agent = models.ForeignKey(
        Agent, null=True, blank=True, on_delete=models.SET_NULL, related_name="calls"
    )
    agent_name = models.CharField(max_length=100, blank=True)
    voice = models.CharField(max_length=40, blank=True)
    model = models.CharField(max_length=100, blank=True)
    node = models.CharField(max_length=100, blank=True, help_text="The process that serves it.")
    state = models.PositiveSmallIntegerField(choices=CallState, default=CallState.RINGING)
    ringing_at = models.DateTimeField(db_index=True)
    answered_at = models.DateTimeField(null=True, blank=True)
    media_opened_at = models.DateTimeField(null=True, blank=True)
    greeting_heard_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=30, blank=True, choices=END_REASONS)
    heartbeat_at = models.DateTimeField(default=None, null=True, blank=True)

    ticket_issued_s = models.PositiveBigIntegerField(
        default=0, help_text="When the newest media ticket was made, in unix seconds."
    )
    ticket_generation = models.PositiveIntegerField(
        default=0, help_text="The newest media ticket that was given out."
    )
    ticket_claimed = models.PositiveIntegerField(
        default=0, help_text="The newest media ticket whose socket has opened."
    )

    connect_delay_ms = models.PositiveIntegerField(
        default=0,
        help_text="How long the caller was to be spoken to before the connect (of the media, or of "
        "the person who took the call).",
    )
    hold_round = models.PositiveSmallIntegerField(
        default=0, help_text="How many times the caller was asked to hold."
    )

    usage = models.JSONField(default=dict, blank=True, help_text="The provider's own units.")
    price = models.DecimalField(
        max_digits=12, decimal_places=8, null=True, blank=True, help_text="Vonage's, in EUR."
    )
    carrier_duration_s = models.PositiveIntegerField(null=True, blank=True)

    summary = models.JSONField(default=dict, blank=True)
    summary_state = models.CharField(max_length=10, choices=SummaryState, default=SummaryState.NONE)
    summary_attempts = models.PositiveSmallIntegerField(default=0)
    summary_error = models.CharField(max_length=300, blank=True)
    summary_due_at = models.DateTimeField(
        null=True, blank=True, help_text="After this a summary still missing is asked for again."
    )

    objects = CallQuerySet.as_manager()

    class Meta:
        verbose_name = "call"
        ordering = ["-ringing_at", "-id"]
        permissions = [*rights.PERMISSIONS]
        indexes = [
            models.Index(fields=["node", "state"], name="call_node_state"),
            models.Index(
                fields=["heartbeat_at"],
                condition=~models.Q(state=CallState.ENDED),
                name="call_live_heartbeat",
            ),
            models.Index(
                fields=["summary_due_at"],
                condition=models.Q(summary_due_at__isnull=False),
                name="call_summary_due",
            ),
            models.Index(fields=["user", "-ringing_at"], name="call_owner_time"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=(
                    models.Q(state=CallState.ENDED, ended_at__isnull=False)
                    & ~models.Q(end_reason="")
                )
                | (~models.Q(state=CallState.ENDED) & models.Q(ended_at__isnull=True)),
                name="call_ended_has_time_and_reason",
            ),
            models.CheckConstraint(
                condition=models.Q(ticket_claimed__lte=models.F("ticket_generation")),
                name="call_claims_only_given_tickets",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.uuid} ({self.get_state_display()})"

    @property
    def is_live(self) -> bool:
        return self.state not in (CallState.HELD, CallState.ENDED)

    @property
    def has_ended(self) -> bool:
        return self.state == CallState.ENDED

    @property
    def duration_s(self) -> int | None:
        """From the answer to the end; None while the call goes on."""
        start = self.answered_at or self.media_opened_at or self.ringing_at
        return round((self.ended_at - start).total_seconds()) if self.ended_at else None


class TranscriptTurn(models.Model):
    """One stretch of somebody speaking; what the text says of the agent, the caller heard."""

    call = models.ForeignKey(CallRecord, on_delete=models.CASCADE, related_name="turns")
    item_id = models.CharField(max_length=100)
    speaker = models.CharField(
        max_length=10, choices=[(Speaker.CALLER.value, "caller"), (Speaker.AGENT.value, "agent")]
    )
    text = models.TextField(blank=True)
    from_ms = models.PositiveIntegerField(help_text="On the call's clock: 0, media opened.")
    to_ms = models.PositiveIntegerField(null=True, blank=True)
    interrupted = models.BooleanField(default=False)
    final = models.BooleanField(default=False)

    class Meta:
        verbose_name = "turn"
        ordering = ["call", "from_ms", "id"]
        constraints = [
            models.UniqueConstraint(fields=["call", "item_id"], name="turn_once_per_call"),
            models.CheckConstraint(
                condition=models.Q(to_ms__isnull=True) | models.Q(to_ms__gte=models.F("from_ms")),
                name="turn_ends_after_it_begins",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.speaker} at {self.from_ms / 1000:.1f} s"


class CallEvent(models.Model):
    """Something worth knowing about a call; `detail` holds nothing secret."""

    call = models.ForeignKey(CallRecord, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=50)
    detail = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = "event"
        ordering = ["call", "at", "id"]
        indexes = [models.Index(fields=["call", "at"], name="event_call_time")]

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".strip()


class CommandKind(models.TextChoices):
    HANG_UP = "hang_up", "hang up"
    WHISPER = "whisper", "whisper to the agent"
    CARRIER_ENDED = "carrier_ended", "the carrier reported the end elsewhere"


class CommandState(models.TextChoices):
    ASKED = "asked", "asked"
    DONE = "done", "done"
    REFUSED = "refused", "refused"


class CallCommand(models.Model):
    """Something asked of a live call from outside its process, and the owner's answer."""

    call = models.ForeignKey(CallRecord, on_delete=models.CASCADE, related_name="commands")
    kind = models.CharField(max_length=20, choices=CommandKind)
    #: The default is the database's, too: a release that does not know of it goes on writing rows.
    text = models.CharField(
        max_length=500,
        blank=True,
        default="",
        db_default="",
        help_text="What the agent is to be told, for one.",
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Nobody: asked on the command line or by the system.",
    )
    requested_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=10, choices=CommandState, default=CommandState.ASKED)
    answer = models.CharField(max_length=200, blank=True)
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "command"
        ordering = ["-requested_at", "-id"]
        indexes = [
            models.Index(
                fields=["requested_at"],
                condition=models.Q(state=CommandState.ASKED),
                name="command_asked",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.get_state_display()}"
