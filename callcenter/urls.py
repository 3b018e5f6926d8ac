"""All addresses over HTTP."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("webhooks/vonage/", include("sessions_app.urls")),
    path("api/", include("health.urls")),
    path("admin/", admin.site.urls),
]
