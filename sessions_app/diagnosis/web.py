"""Bounded HTTP requests that also note how far our clock is from those who answer."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import httpx

TIMEOUT_S: Final = 6.0


class Web:
    """One HTTP client for all findings; leaving the `async with` closes it."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.http = httpx.AsyncClient(
            timeout=TIMEOUT_S, transport=transport, event_hooks={"response": [self._note]}
        )
        #: By host: how many seconds its clock is ahead of ours.
        self.ahead_s: dict[str, float] = {}

    async def _note(self, response: httpx.Response) -> None:
        try:
            there_s = parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return
        # RFC 9110, section 5.6.7: whole seconds, so it is half a second late on average.
        self.ahead_s[response.request.url.host] = there_s + 0.5 - time.time()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()


def why(error: httpx.HTTPError) -> str:
    """An error for people: its kind and, where it has one, the system's word for it."""
    said = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
