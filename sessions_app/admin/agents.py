"""Agents and the numbers that lead to them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db.models import Count, ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest
from django.urls import URLPattern, reverse
from django.utils.html import format_html

from sessions_app.admin import prepared
from sessions_app.admin.owned import OwnedAdmin
from sessions_app.models import Agent, PhoneNumber
from sessions_app.models.agents import OwnedQuerySet, is_superuser

#: Parts of the page that say nothing of an agent that is still to be added.
_ONCE_SAVED = ("Prepared audio", "Dates")
_TEXT_ROWS = {"greeting": 3, "instructions": 20}


@admin.register(Agent)
class AgentAdmin(OwnedAdmin):
    """What an agent says, how it sounds and when it speaks."""

    list_display = ("name", "voice", "language", "number_count", "is_default", "owner", "calls")
    list_filter = ("voice", "language")
    list_select_related = ("owner",)
    search_fields = ("name", "instructions", "greeting")
    superuser_fields = ("owner", "is_default")
    readonly_fields = ("prepared_audio", "created_at", "updated_at")
    fieldsets = (
        (None, {"fields": ["name", "owner", "is_default"]}),
        (
            "What it says",
            {
                "fields": ["greeting", "instructions", "language"],
                "description": "Changes apply to the next call, never to one that goes on.",
            },
        ),
        ("How it sounds", {"fields": ["voice", "model"]}),
        (
            "When it cannot serve a call",
            {
                "fields": ["when_busy", "apology", "fallback_number"],
                "description": "A caller is never left in silence: they hear the apology, then "
                "the person's phone rings if there is one.",
            },
        ),
        (
            "Prepared audio",
            {
                "fields": ["prepared_audio"],
                "description": "What callers hear when no supplier can be waited for. A running "
                "server makes it in the agent's own voice, some seconds after a change.",
            },
        ),
        (
            "Turns and silence",
            {
                "classes": ["collapse"],
                "fields": [
                    "turn_detection",
                    "vad_threshold",
                    "vad_prefix_ms",
                    "vad_silence_ms",
                    "nudge_after_s",
                    "nudges_max",
                    "max_call_s",
                ],
                "description": "The defaults suit most conversations. A longer silence lets slow "
                "speakers finish; a shorter one answers faster.",
            },
        ),
        ("Dates", {"classes": ["collapse"], "fields": ["created_at", "updated_at"]}),
    )

    def get_queryset(self, request: HttpRequest) -> OwnedQuerySet:
        counted: OwnedQuerySet = (
            super().get_queryset(request).annotate(number_count=Count("numbers"))
        )
        return counted

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        return fieldsets if obj else [entry for entry in fieldsets if entry[0] not in _ONCE_SAVED]

    def get_urls(self) -> list[URLPattern]:
        return [prepared.url(self), *super().get_urls()]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """A greeting is a sentence or two; instructions are a page."""
        if db_field.name in _TEXT_ROWS:
            kwargs["widget"] = AdminTextareaWidget(attrs={"rows": _TEXT_ROWS[db_field.name]})
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Without the default agent other people's numbers would have nobody to answer them."""
        if isinstance(obj, Agent) and obj.is_default and not is_superuser(request.user):
            return False
        return super().has_delete_permission(request, obj)

    @admin.display(description="in its own voice")
    def prepared_audio(self, agent: Agent) -> str:
        return prepared.table(agent)

    @admin.display(description="numbers", ordering="number_count")
    def number_count(self, agent: Any) -> int:
        return int(agent.number_count)

    @admin.display(description="calls")
    def calls(self, agent: Agent) -> str:
        address = reverse("admin:sessions_app_callrecord_changelist")
        return format_html(
            '<a href="{}?agent__id__exact={}" aria-label="Calls of {}">Calls</a>',
            address,
            agent.pk,
            agent.name,
        )


@admin.register(PhoneNumber)
class PhoneNumberAdmin(OwnedAdmin):
    """Which agent answers which number."""

    list_display = ("number", "label", "agent", "owner")
    list_filter = (("agent", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("agent", "owner")
    search_fields = ("number", "label", "agent__name")
    fields = ("number", "label", "agent", "owner")

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        if db_field.name == "agent":
            agents: QuerySet[Any] = Agent.objects.visible_to(request.user)
            kwargs["queryset"] = agents
        field: ModelChoiceField[Any] | None = super().formfield_for_foreignkey(
            db_field, request, **kwargs
        )
        return field
