"""The server processes, as they tell of themselves; for superusers."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.expressions import Case, Value, When
from django.db.models.fields import BooleanField
from django.http import HttpRequest

from sessions_app.models import Node
from sessions_app.models.agents import is_superuser


@admin.register(Node)
class NodeAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Read-only: a process writes its own row."""

    list_display = (
        "name",
        "is_alive",
        "is_draining",
        "capacity",
        "channel_layer",
        "version",
        "media_url",
        "started_at",
        "heartbeat_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        alive = Node.objects.alive(settings.LOST_SECONDS).values("pk")
        heard = Case(
            When(pk__in=alive, then=Value(True)),
            default=Value(False),
            output_field=BooleanField(),
        )
        nodes: QuerySet[Node] = super().get_queryset(request).annotate(heard=heard)
        return nodes

    @admin.display(description="alive", boolean=True, ordering="heard")
    def is_alive(self, node: Any) -> bool:
        return bool(node.heard)

    @admin.display(description="drain")
    def is_draining(self, node: Node) -> str:
        if node.draining:
            return "draining"
        return "asked" if node.drain_requested_at else "–"

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        return is_superuser(request.user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Node | None = None) -> bool:
        return False
