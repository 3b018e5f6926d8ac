"""The socket of "Call the agent": checks who opens it, then hands it to a conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError
from django.http.request import validate_host

from sessions_app.live import tickets
from sessions_app.live.browser_conversation import Conversation, Dialled
from sessions_app.live.browser_page import (
    CLOSE_MISTAKE,
    CLOSE_NORMAL,
    Message,
    Page,
    PageMistake,
)
from sessions_app.models import Agent

logger = logging.getLogger(__name__)

#: Leads to no number of anybody's; the agent is named by a parameter of the answer webhook.
UNROUTED: Final = "000"
_ADMIT_S: Final = 5.0


class BrowserCallConsumer(AsyncConsumer):
    """One socket, one call. Owns its `receive`: the generic dispatch passes every frame through a
    thread that all consumers of the process share.
    """

    channel_layer_alias = None

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        await receive()  # websocket.connect
        try:
            async with asyncio.timeout(_ADMIT_S):
                dialled = await database_sync_to_async(_admit)(scope)
        except (tickets.TicketError, DatabaseError, TimeoutError) as refused:
            logger.info("a call from a browser was refused: %s", _words(refused))
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        page, code = Page(receive, send), CLOSE_MISTAKE
        try:
            await Conversation(page, dialled).run()
            code = CLOSE_NORMAL
        except* (PageMistake, TimeoutError) as mistakes:
            logger.info("a call from a browser was closed: %s", _words(mistakes.exceptions[0]))
        except* Exception:
            logger.exception("a call from a browser failed")
        finally:
            await page.close(code)


def _words(error: BaseException) -> str:
    """A TimeoutError has none of its own."""
    return str(error).strip() or type(error).__name__


def _admit(scope: dict[str, Any]) -> Dialled:
    """Check the login and its ticket, and choose the address. Raises TicketError."""
    user = scope["user"]
    if not (user.is_active and user.is_staff):
        raise tickets.TicketError("no member of staff is logged in")
    session_key = str(scope["session"].session_key)
    agent_pk = tickets.redeem(scope["url_route"]["kwargs"]["ticket"], user.pk, session_key)
    agent = Agent.objects.visible_to(user).filter(pk=agent_pk).first()
    if agent is None:
        raise tickets.TicketError("the agent is gone, or somebody else's")
    number = agent.numbers.visible_to(user).values_list("number", flat=True).first()
    return Dialled(user.get_username(), agent.name, number or UNROUTED, own_address(scope))


def own_address(scope: dict[str, Any]) -> str:
    """Where this very process listens, so that the call stays in it.

    The socket's own address, if requests to it pass ALLOWED_HOSTS; else (a container's address, a
    wildcard) the loopback's; only when neither is allowed, or there is no port, the public one.
    """
    host, port = scope.get("server") or ("", None)
    if port:
        for name in (host, "127.0.0.1"):
            literal = f"[{name}]" if ":" in name else name
            if name and validate_host(literal, settings.ALLOWED_HOSTS):
                return f"http://{literal}:{port}"
    return str(settings.PUBLIC_URL)
