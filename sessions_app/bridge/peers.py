"""Asks another server process of this fleet how it is."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit, urlunsplit

import httpx

logger = logging.getLogger(__name__)

TIMEOUT_S = 2.0
_HTTP = {"ws": "http", "wss": "https"}


async def still_serves(
    http: httpx.AsyncClient, media_url: str, node: str, call_uuid: str, token: str = ""
) -> bool:
    """Whether that process is alive and has the call, by its own account.

    False when it does not answer, or somebody else answers in its place.
    """
    # The token is the fleet's own, and so is the address: the process itself wrote it on its row.
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        parts = urlsplit(media_url)
        place = (_HTTP[parts.scheme], parts.netloc, "/api/health", "node=self", "")
        reply = await http.get(
            urlunsplit(place), headers=headers, timeout=TIMEOUT_S, follow_redirects=False
        )
        report = reply.json()
        return report["node"] == node and call_uuid in report["sessions"]["uuids"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as unheard:
        logger.debug("%s does not answer: %s", node, type(unheard).__name__)
        return False
