"""Rows with an owner: everybody sees and changes their own, superusers all."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from simple_history.admin import SimpleHistoryAdmin

from sessions_app.models.agents import OwnedQuerySet, is_superuser


class OwnedAdmin(SimpleHistoryAdmin):
    """Scopes every way to a row: lists, pages, choices, deletions and the history's versions."""

    object_history_list_template = "admin/sessions_app/history_list.html"
    #: Only superusers choose these; everybody else reads them.
    superuser_fields: tuple[str, ...] = ("owner",)

    def get_queryset(self, request: HttpRequest) -> OwnedQuerySet:
        rows: OwnedQuerySet = super().get_queryset(request)
        return rows.visible_to(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(super().has_view_permission(request, obj)) and self._is_theirs(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(super().has_change_permission(request, obj)) and self._is_theirs(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(super().has_delete_permission(request, obj)) and self._is_theirs(request, obj)

    def _is_theirs(self, request: HttpRequest, obj: Model | None) -> bool:
        # An old version names the owner of its day, so the row itself is asked.
        if obj is None or is_superuser(request.user):
            return True
        return self.get_queryset(request).filter(pk=obj.pk).exists()

    def history_form_view(
        self,
        request: HttpRequest,
        object_id: str,
        version_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The library lets whoever may see an old version restore it too; only who may change."""
        if request.method == "POST":
            row = self.get_object(request, object_id)
            if row is None or not self.has_change_permission(request, row):
                raise PermissionDenied
        answer: HttpResponse = super().history_form_view(
            request, object_id, version_id, extra_context
        )
        return answer

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Whoever adds a row becomes its owner, so there is nothing to show of that yet."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None or is_superuser(request.user):
            return fieldsets
        shown = []
        for title, options in fieldsets:
            fields = [name for name in options["fields"] if name not in self.superuser_fields]
            if fields:
                shown.append((title, {**options, "fields": fields}))
        return shown

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fixed = () if is_superuser(request.user) else self.superuser_fields
        return (*super().get_readonly_fields(request, obj), *fixed)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """An old version restored by its owner must not bring back what only superusers set."""
        if not is_superuser(request.user):
            if change:
                kept = self.model.objects.values(*self.superuser_fields).get(pk=obj.pk)
            else:
                kept = {"owner": request.user.pk}
            for name, value in kept.items():
                setattr(obj, obj._meta.get_field(name).attname, value)
        super().save_model(request, obj, form, change)
