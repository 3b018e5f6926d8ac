"""The WebSockets that staff open in a browser; wrapped in the login and the check of `Origin`."""

from __future__ import annotations

from django.urls import path

from sessions_app.live.browser_call import BrowserCallConsumer

websocket_urlpatterns = [
    path("ws/browser-call/<str:ticket>", BrowserCallConsumer.as_asgi()),
]
