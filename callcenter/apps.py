from __future__ import annotations

from django.apps import AppConfig


class CallcenterConfig(AppConfig):
    name = "callcenter"

    def ready(self) -> None:
        # Importing registers the system checks.
        from callcenter import checks  # noqa: F401
