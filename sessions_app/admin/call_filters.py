"""How the list of calls is narrowed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from sessions_app.models import CallRecord, CallState


class LiveFilter(admin.SimpleListFilter):
    """Calls that go on, or those that are over."""

    title = "live or past"
    parameter_name = "live"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[CallRecord]
    ) -> list[tuple[str, str]]:
        return [("yes", "Live"), ("no", "Past")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "yes":
            return queryset.exclude(state__in=(CallState.HELD, CallState.ENDED))
        if self.value() == "no":
            return queryset.filter(state=CallState.ENDED)
        return queryset
