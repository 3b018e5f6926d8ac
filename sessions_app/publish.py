"""Small semantic messages to whoever watches a call; never audio, never a promise.

A message is a hint: it may be lost, so pages read the rows first and again after a gap. Each has a
`type` that is also the name of the watching consumer's handler (dots become underscores):

    call.turn    {"uuid", "turn": {item_id, speaker, text, from_ms, to_ms, interrupted, final}}
    call.state   {"uuid", "state": "ringing" | "answered" | "live" | "ended", "reason": ""}
    call.note    {"uuid", "kind", "detail"}
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)


def call_group(call_uuid: str) -> str:
    """The channel layer's group of one call; its names allow fewer characters than a uuid may."""
    return f"call.{hashlib.sha256(call_uuid.encode()).hexdigest()[:40]}"


async def publish(call_uuid: str, message: dict[str, Any]) -> None:
    """Send to those who watch this call. A layer that is away costs a debug line, nothing else."""
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        await layer.group_send(call_group(call_uuid), {"uuid": call_uuid, **message})
    except Exception as away:  # any client library's error; nobody's call depends on it
        logger.debug("not published: %s", away)
