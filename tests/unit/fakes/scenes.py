"""Plays a scene on a simulated phone that calls the tiny product."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fakes.sockets import WebSocket
from tests.fakes.vonage import FakeVonage, PhoneCall
from tests.unit.fakes.tiny_product import Talk, TinyProduct, nothing

TALK = [{"action": "talk", "text": "We are sorry."}]
Scene = Callable[[PhoneCall, TinyProduct], Awaitable[None]]


def play(
    scene: Scene,
    talk: Talk = nothing,
    prepare: Callable[[TinyProduct], None] = lambda product: None,
    **call: Any,
) -> PhoneCall:
    """Calls a tiny product and plays a scene on the phone; the phone when all is over."""

    async def scenario() -> PhoneCall:
        async with FakeVonage() as vonage, TinyProduct(talk) as product:
            prepare(product)
            async with vonage.call(product.addresses, retry_pause_s=0.01, **call) as phone:
                await scene(phone, product)
            assert vonage.open_sockets == 0
        return phone

    return asyncio.run(scenario())


async def until_ended(phone: PhoneCall, product: TinyProduct) -> None:
    await phone.wait_ended()


def says(pcm: bytes, frame_bytes: int = 640) -> Talk:
    """Sends all of it at once."""

    async def talk(socket: WebSocket) -> None:
        for at in range(0, len(pcm), frame_bytes):
            await socket.send(pcm[at : at + frame_bytes])

    return talk
