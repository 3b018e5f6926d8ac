"""Included under `api/`; no address here ends in a slash."""

from __future__ import annotations

from django.urls import path

from health import views

urlpatterns = [
    path("health", views.health, name="health"),
    path("health/live", views.live, name="health-live"),
]
