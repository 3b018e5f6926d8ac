"""A phone's socket that comes when its call has just ended: nobody may listen to silence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sessions_app import conf, consumers
from sessions_app.bridge.inbox import Inbox
from sessions_app.bridge.session import CallSession
from sessions_app.core import events as ev
from sessions_app.frames import HAND_AUDIO
from sessions_app.logcontext import current_call
from tests.unit.bridge.clockwork import run
from tests.unit.bridge.fakes import FakeProvider, FakeVoice, World, hangs, slow


class Socket:
    """An ASGI WebSocket: what the server was told, and a caller who stays on."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._events.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        return await self._events.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self._events.put_nowait({"type": "websocket.disconnect", "code": 1000})

    @property
    def closed(self) -> bool:
        return any(message["type"] == "websocket.close" for message in self.sent)


def ring(
    monkeypatch: pytest.MonkeyPatch, session: CallSession, socket: Socket, **scope: Any
) -> asyncio.Task[Any]:
    async def claim(ticket: str) -> CallSession:
        return session

    manager = SimpleNamespace(conf=conf.load(), reception=SimpleNamespace(claim=claim))
    monkeypatch.setattr(consumers, "get_manager", lambda: manager)
    scope |= {"headers": [], "url_route": {"kwargs": {"ticket": "t"}}}
    consumer = consumers.MediaConsumer()
    return asyncio.create_task(consumer(scope, socket.receive, socket.send))


async def ends(serving: asyncio.Task[Any], socket: Socket) -> None:
    await asyncio.wait([serving], timeout=20)
    done = serving.done()
    serving.cancel()
    await asyncio.wait([serving])
    assert done, "the consumer serves a call that is over"
    assert socket.closed, "the socket stays open and silent"


def test_a_phone_that_comes_after_the_release_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        session = World(FakeProvider()).session()
        task = asyncio.create_task(session.run())
        await asyncio.sleep(0.1)
        await session.close()
        await task
        socket = Socket()
        await ends(ring(monkeypatch, session, socket), socket)

    run(story())


@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.7, 1.1, 1.6])
def test_a_phone_that_comes_during_the_release_is_closed(
    monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    async def story() -> None:
        world = World(FakeProvider(closing=slow, speaks=False), voice=FakeVoice(closing=hangs))
        session = world.session()
        task = asyncio.create_task(session.run())
        await asyncio.sleep(0.1)
        session.handle(ev.CallerGone())
        await asyncio.sleep(after_s)
        socket = Socket()
        await ends(ring(monkeypatch, session, socket), socket)
        await task

    run(story())


def test_a_phone_in_time_is_served_until_it_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        session = World(FakeProvider()).session()
        task = asyncio.create_task(session.run())
        socket = Socket()
        serving = ring(monkeypatch, session, socket)
        await asyncio.sleep(1)
        assert session.media_opened
        socket._events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(serving, 20)
        await task
        assert session.end_reason is ev.EndReason.CALLER_HUNG_UP

    run(story())


def test_a_server_that_hands_audio_over_does_so_while_the_call_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        provider = FakeProvider()
        session = World(provider).session()
        task = asyncio.create_task(session.run())
        handed: list[Any] = []
        socket = Socket()
        extension = {HAND_AUDIO: {"hand_to": handed.append}}
        serving = ring(monkeypatch, session, socket, extensions=extension)
        await asyncio.sleep(1)
        [take] = handed
        told: list[str] = []
        monkeypatch.setattr(Inbox, "put", lambda inbox, frame: told.append(current_call.get()))
        take(bytes(session.setup.frame_bytes))
        assert told == [session.call_uuid], "what is logged there does not say of which call"
        assert current_call.get() == ""
        socket._events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(serving, 20)
        await task
        assert handed == [take, None], "the server keeps the call"

    run(story())


def test_a_server_is_not_held_up_by_a_caller_who_is_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Daphne cuts off what serves a socket ten seconds after that has gone."""

    async def story() -> None:
        session = World(FakeProvider()).session()
        task = asyncio.create_task(session.run())
        socket = Socket()
        serving = ring(monkeypatch, session, socket)
        await asyncio.sleep(1)
        session.handle(ev.MediaAwaited(for_s=30.0))
        socket._events.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await asyncio.wait_for(serving, 1)
        await asyncio.sleep(25)
        assert not session.over
        await task
        assert session.end_reason is ev.EndReason.MEDIA_LOST

    run(story())


def test_a_server_that_cuts_a_socket_off_ends_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        session = World(FakeProvider()).session()
        task = asyncio.create_task(session.run())
        socket = Socket()
        serving = ring(monkeypatch, session, socket)
        await asyncio.sleep(1)
        serving.cancel()
        await asyncio.wait([serving])
        assert session.over and socket.closed
        await task
        assert session.end_reason is ev.EndReason.MEDIA_LOST

    run(story())
