"""The ASGI application: HTTP, the phone's media sockets, and the pages' sockets.

Any ASGI server serves it. The calls' root begins with the first thing that comes in, or with the
server's lifespan where it has one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "callcenter.settings")

from django.core.asgi import get_asgi_application
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response

_django = get_asgi_application()

from callcenter.checks import refuse_on_mistakes  # noqa: E402
from callcenter.logs import silence_access_log  # noqa: E402

refuse_on_mistakes()
silence_access_log()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from sessions_app.bridge.manager import get_manager  # noqa: E402
from sessions_app.consumers import MediaConsumer  # noqa: E402
from sessions_app.live.routing import websocket_urlpatterns  # noqa: E402
from sessions_app.process import spare_collector  # noqa: E402

logger = logging.getLogger("callcenter.asgi")

# Redis's client takes a third of a second to import, which would hold the loop in the first call.
get_channel_layer()

_pages = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))


class _Bare(ASGIHandler):
    """Django's requests, addresses and views without its middleware, and without its threads.

    Vonage's webhooks and health need neither a login nor static files, and each middleware costs a
    trip through a thread or two, in which a burst of calls would queue up. Nor do their views use
    the connections that Django opens and closes with a request (the mirror's threads have their
    own), so no thread is begun to be told of its beginning and its end.
    """

    def load_middleware(self, is_async: bool = False) -> None:
        # The names are Django's; its stubs leave them out.
        none: list[Any] = []
        self._view_middleware = self._template_response_middleware = none
        self._exception_middleware = none
        respond: Any = getattr(self, "_get_response_async" if is_async else "_get_response")
        self._middleware_chain = convert_exception_to_response(respond)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            request, response = self.create_request(scope, body)
            if request is not None:
                response = await self._unless_hung_up(self.get_response_async(request), receive)
            if response is not None:
                await self.send_response(response, send)

    async def _unless_hung_up(self, view: Coroutine[Any, Any, Any], receive: Any) -> Any:
        """What the view answers; None when nobody waits for that any more."""
        async with asyncio.TaskGroup() as tasks:
            answering = tasks.create_task(view)
            listening = tasks.create_task(receive())  # the only news there can be: a disconnect
            await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
            answering.cancel()
            listening.cancel()
        return None if answering.cancelled() else answering.result()


_bare = _Bare()
_BARE_PATHS = ("/webhooks/", "/api/")


async def _http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Django; with the first request the calls' root begins where nothing else began it."""
    try:
        await get_manager().start()
    except Exception as error:
        logger.error("calls cannot be taken: %s", error)
    handler = _bare if scope["path"].startswith(_BARE_PATHS) else _django
    await handler(scope, receive, send)


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
        "http": _http,
        "lifespan": _lifespan,
        "websocket": URLRouter(
            [
                # No session, no user, no database in the phone's way.
                path("media/<str:ticket>", MediaConsumer.as_asgi()),
                re_path(r"^(?=ws/)", _pages),
                re_path(r"", _refused),  # type: ignore[arg-type]  # an ASGI app, as Channels wants
            ]
        ),
    }
)

# Everything that stays has been made.
spare_collector()
