"""Who answers: agents, and the phone numbers that lead to them."""

from __future__ import annotations

import re
from typing import Any

import phonenumbers
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from simple_history.models import HistoricalRecords

from sessions_app.core.agent import AgentProfile, TurnDetection, VoiceKind, WhenBusy
from sessions_app.providers.registry import OPENAI_VOICES, SPEECHMATICS_VOICES, speaks

User = AbstractBaseUser | AnonymousUser

VOICES = [
    (
        "OpenAI",
        [(f"openai:{name}", f"OpenAI {name.title()}") for name in OPENAI_VOICES],
    ),
    (
        "Speechmatics (English only)",
        [(f"speechmatics:{name}", f"Speechmatics {name.title()}") for name in SPEECHMATICS_VOICES],
    ),
]


def is_superuser(user: User) -> bool:
    return bool(getattr(user, "is_superuser", False))


def normalised_number(text: str) -> str:
    """A phone number as Vonage writes it: E.164 without the plus.

    Raises ValidationError naming what was read and what is wanted.
    """
    digits = re.sub(r"[\s().\-/]", "", text).removeprefix("+")
    try:
        parsed = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        parsed = None
    if not digits.isdigit() or parsed is None or not phonenumbers.is_possible_number(parsed):
        raise ValidationError(
            "%(read)s is not a phone number; wanted the international form, as +44 20 7946 0000",
            params={"read": repr(text)},
        )
    return digits


class OwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to somebody; superusers see all."""

    def visible_to(self, user: User) -> OwnedQuerySet:
        return self if is_superuser(user) else self.filter(owner_id=user.pk or 0)


class Agent(models.Model):
    """A configured voice that answers calls. Changes apply to the next call."""

    name = models.CharField(max_length=100, unique=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="agents",
        help_text="Sees the agent and its calls. Empty: superusers only.",
    )
    is_default = models.BooleanField(
        "answers every other number",
        default=False,
        help_text="Answers calls to numbers that no agent was given.",
    )
    greeting = models.TextField(
        blank=True,
        max_length=1000,
        help_text="The first words of a call, spoken as they stand. "
        "Empty: the agent greets in its own words.",
    )
    instructions = models.TextField(
        max_length=20_000,
        help_text="Who the agent is, what it knows and what it may do.",
    )
    language = models.CharField(
        max_length=20,
        default="en-GB",
        validators=[RegexValidator(r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", "As en-GB or fr.")],
        help_text="Language tag such as en-GB. Speechmatics voices speak English only.",
    )
    voice = models.CharField(max_length=40, choices=VOICES, default="openai:marin")
    model = models.CharField(
        max_length=100,
        blank=True,
        help_text="The speech model; empty: the one this installation is set to.",
    )
    turn_detection = models.CharField(
        max_length=20,
        choices=[
            (TurnDetection.SERVER_VAD.value, "Silence after speech"),
            (TurnDetection.SEMANTIC_VAD.value, "Meaning of what was said"),
        ],
        default=TurnDetection.SERVER_VAD.value,
        help_text="How the end of the caller's turn is found.",
    )
    vad_threshold = models.FloatField(
        "sensitivity threshold",
        default=0.5,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="0 to 1. Higher hears less noise as speech.",
    )
    vad_prefix_ms = models.PositiveIntegerField(
        "audio kept before speech (ms)", default=300, validators=[MaxValueValidator(2000)]
    )
    vad_silence_ms = models.PositiveIntegerField(
        "silence that ends a turn (ms)",
        default=500,
        validators=[MinValueValidator(100), MaxValueValidator(5000)],
    )
    max_call_s = models.PositiveIntegerField(
        "longest call (s)",
        default=0,
        validators=[MaxValueValidator(7200)],
        help_text="0: the limit of this installation, which always holds.",
    )
    nudge_after_s = models.FloatField(
        "speak again after (s)",
        default=10.0,
        validators=[MinValueValidator(2.0), MaxValueValidator(600.0)],
        help_text="Silence after which a caller who says nothing is spoken to again.",
    )
    nudges_max = models.PositiveSmallIntegerField(
        "times spoken to again",
        default=2,
        validators=[MaxValueValidator(10)],
        help_text="After so many tries the caller is bid goodbye.",
    )
    apology = models.CharField(
        max_length=500,
        blank=True,
        help_text="Said when the agent cannot serve a call. Empty: a standard sentence.",
    )
    fallback_number = models.CharField(
        "person to fall back to",
        max_length=20,
        blank=True,
        help_text="A phone number that takes calls the agent cannot serve.",
    )
    when_busy = models.CharField(
        "when every line is busy",
        max_length=10,
        choices=[
            (WhenBusy.APOLOGISE.value, "Apologise, then the person if there is one"),
            (WhenBusy.PERSON.value, "Put through to the person"),
            (WhenBusy.HOLD.value, "Hold for about two minutes, then apologise"),
        ],
        default=WhenBusy.APOLOGISE.value,
        help_text="What callers get while there is no room for them, or the model is away.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OwnedQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"],
                condition=models.Q(is_default=True),
                name="one_default_agent",
                violation_error_message="Another agent already answers every other number.",
            ),
            models.CheckConstraint(
                condition=models.Q(vad_threshold__gte=0.0, vad_threshold__lte=1.0),
                name="agent_vad_threshold_0_to_1",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def voice_kind(self) -> VoiceKind:
        return VoiceKind(self.voice.partition(":")[0])

    def clean(self) -> None:
        """What a voice cannot do is said before a caller finds out."""
        super().clean()
        if self.fallback_number:
            try:
                self.fallback_number = normalised_number(self.fallback_number)
            except ValidationError as mistake:
                raise ValidationError({"fallback_number": mistake}) from None
        if self.when_busy == WhenBusy.PERSON and not self.fallback_number:
            raise ValidationError(
                {"when_busy": "To put callers through, give the person to fall back to."}
            )
        if not speaks(self.voice_kind, self.language):
            raise ValidationError(
                {"voice": f"Speechmatics voices speak English only, not {self.language!r}."}
            )

    def profile(self) -> AgentProfile:
        """The agent as a call sees it, frozen now."""
        return AgentProfile(
            name=self.name,
            greeting=self.greeting,
            instructions=self.instructions,
            language=self.language,
            voice_kind=self.voice_kind,
            voice=self.voice.partition(":")[2],
            model=self.model,
            turn_detection=TurnDetection(self.turn_detection),
            vad_threshold=self.vad_threshold,
            vad_prefix_ms=self.vad_prefix_ms,
            vad_silence_ms=self.vad_silence_ms,
            max_call_s=self.max_call_s,
            nudge_after_s=self.nudge_after_s,
            nudges_max=self.nudges_max,
            apology=self.apology,
            fallback_number=self.fallback_number,
            when_busy=WhenBusy(self.when_busy),
        )


class PhoneNumber(models.Model):
    """A number that people ring, and the agent that answers it."""

    number = models.CharField(
        max_length=20,
        unique=True,
        help_text="International form, as +44 20 7946 0000; kept as Vonage writes it.",
    )
    label = models.CharField(max_length=100, blank=True)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="numbers")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="phone_numbers",
        help_text="Sees the number and its calls. Empty: the agent's owner.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OwnedQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"+{self.number}" + (f" ({self.label})" if self.label else "")

    def clean(self) -> None:
        super().clean()
        try:
            self.number = normalised_number(self.number)
        except ValidationError as mistake:
            raise ValidationError({"number": mistake}) from None
