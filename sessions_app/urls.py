"""Vonage's webhooks."""

from __future__ import annotations

from django.urls import path

from sessions_app import webhooks

urlpatterns = [
    path("answer", webhooks.answer, name="vonage-answer"),
    path("event", webhooks.event, name="vonage-event"),
    path("fallback", webhooks.fallback, name="vonage-fallback"),
]
