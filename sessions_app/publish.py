"""Small semantic messages to whoever watches a call; never audio, never a promise.

A message is a hint: it may be lost, so pages read the rows first and again after a gap. Each has a
`type` that is also the name of the watching consumer's handler (dots become underscores):

    call.turn    {"uuid", "turn": {item_id, speaker, text, from_ms, to_ms, interrupted, final}}
    call.state   {"uuid", "state": "ringing" | "answered" | "live" | "ended", "reason": ""}
    call.note    {"uuid", "kind", "detail"}
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

TIMEOUT_S = 0.5


def call_group(call_uuid: str) -> str:
    """The channel layer's group of one call; its names allow fewer characters than a uuid may."""
    return f"call.{hashlib.sha256(call_uuid.encode()).hexdigest()[:40]}"


async def publish(call_uuid: str, message: dict[str, Any]) -> bool:
    """Send to those who watch this call; False if the layer is away, which nobody's call minds."""
    layer = get_channel_layer()
    if layer is None:
        return False
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await layer.group_send(call_group(call_uuid), {"uuid": call_uuid, **message})
    except Exception as away:  # whatever its client library raises
        logger.debug("not published: %s", away)
        return False
    return True
