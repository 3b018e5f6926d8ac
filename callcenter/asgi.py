"""The ASGI application: HTTP, the phone's media sockets, and the pages' sockets.

Any ASGI server serves it. The calls' root begins with the first thing that comes in, or with the
server's lifespan where it has one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from callcenter.checks import refuse_on_mistakes  # noqa: E402
from callcenter.logs import silence_access_log  # noqa: E402

refuse_on_mistakes()
silence_access_log()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from sessions_app.bridge.manager import get_manager  # noqa: E402
from sessions_app.consumers import MediaConsumer  # noqa: E402
from sessions_app.live.routing import websocket_urlpatterns  # noqa: E402

_pages = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


async def _refused(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An address that is not ours: 403 before the socket is accepted."""
    await receive()
    await send({"type": "websocket.close"})


async def _lifespan(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Begin with the server and end with it, where it tells (Daphne does not)."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await get_manager().start()
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await get_manager().shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return


application = ProtocolTypeRouter(
    {
        "http": _django,
        "lifespan": _lifespan,
        "websocket": URLRouter(
            [
                # No session, no user, no database in the phone's way.
                path("media/<str:ticket>", MediaConsumer.as_asgi()),
                re_path(r"^ws/", _pages),
                re_path(r"", _refused),  # type: ignore[arg-type]  # an ASGI app, as Channels wants
            ]
        ),
    }
)
