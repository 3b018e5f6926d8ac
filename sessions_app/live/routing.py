"""The WebSockets that staff open in a browser; wrapped in the login and the check of `Origin`.

`ws/browser-call/TICKET`; Channels takes off what an outer router has matched, so `ws/` may be gone.
"""

from __future__ import annotations

from django.urls import re_path

from sessions_app.live.browser_call import BrowserCallConsumer

websocket_urlpatterns = [
    re_path(r"^(?:ws/)?browser-call/(?P<ticket>[^/]+)$", BrowserCallConsumer.as_asgi()),
]
