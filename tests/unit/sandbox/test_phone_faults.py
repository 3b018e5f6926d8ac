"""What the phone's side does when it goes wrong, as a service sees it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest

from sessions_app.sandbox.caller import Outcome
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.server import Sandbox
from tests.unit.sandbox.application_token import token
from tests.unit.sandbox.service import Media, Service, until
from tests.unit.sandbox.test_caller import CALLER_LEG, MEDIA_LEG, TONE, call, scene

TALK = [{"action": "talk", "text": "We are sorry."}]


async def play_on(media: Media) -> None:
    """Plays for a while at once, with a mark at the end, and listens."""
    await media.accept()
    await media.play(TONE * 2)
    await media.command(action="notify", payload={"id": 1})
    await media.drain()


def test_a_lost_connection_is_told_as_disconnected_and_its_ncco_is_heard() -> None:
    async def play(service: Service) -> None:
        service.on_event["disconnected"] = TALK
        async with call(service, fault=Fault.PHONE_ABORTS) as caller:
            await until(lambda: caller.agent_s)
            await caller.strike()
            assert await caller.ended()
        assert caller.talked == ["We are sorry."]
        assert caller.outcome is Outcome.FLOW_ENDED
        assert "disconnected" in service.statuses(MEDIA_LEG)
        assert "SipHeader_X-Sandbox-Fault" not in service.hooks[0].params

    scene(Service(play_on), play)


def test_a_frozen_phone_sends_nothing_reads_nothing_and_stays() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_FREEZES) as caller:
            await until(lambda: service.medias and service.medias[0].frames)
            await caller.strike()
            await service.medias[0].play(TONE)
            # Frames that were on their way have come when a whole second brings none.
            seen = -1
            while len(service.medias[0].frames) != seen:
                seen = len(service.medias[0].frames)
                await asyncio.sleep(0.3)
            assert caller.frames_received <= 1
            assert not caller.is_over
            await caller.hang_up()
        assert service.statuses(CALLER_LEG)[-1] == "completed"

    scene(Service(), play)


def test_half_dead_the_caller_is_heard_and_hears_nothing() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_HALF_DEAD) as caller:
            await until(lambda: service.medias and service.medias[0].frames)
            await caller.strike()
            media = service.medias[0]
            await media.play(TONE)
            await media.command(action="notify", payload={"id": 1})
            before = len(media.frames)
            await until(lambda: len(media.frames) > before + 20)
            assert (caller.agent_s, caller.frames_received) == (0.0, 0)
            assert len(media.texts) == 1, "no mark has come back"

    scene(Service(), play)


def test_lumps_are_half_a_second_at_once() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_LUMPS):
            await until(lambda: service.medias and service.medias[0].frames)
            media = service.medias[0]
            await until(lambda: len(media.frames) >= 25)
            assert len(media.frames) % 25 == 0
            await until(lambda: len(media.frames) >= 50)
        assert {len(frame) for frame in media.frames} == {640}

    scene(Service(), play)


def test_marks_that_are_lost_never_come_back() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_MARKS_LOST) as caller:
            assert await caller.agent_finished(quiet_s=0.3)
            assert caller.frames_received == 100
        assert len(service.medias[0].texts) == 1

    scene(Service(play_on), play)


def test_a_socket_that_is_never_opened_leaves_the_caller_waiting_until_rest_moves_him(
    sandbox: Sandbox,
) -> None:
    async def play(service: Service) -> None:
        options: dict[str, Any] = {"control_url": sandbox.control_url, "uuid": "never-opened"}
        async with call(service, fault=Fault.PHONE_NEVER_OPENS, **options) as caller:
            assert not caller.is_over
            transfer = {"action": "transfer", "destination": {"type": "ncco", "ncco": TALK}}
            async with httpx.AsyncClient(trust_env=False) as http:
                url = f"{sandbox.vonage_api_url}/v1/calls/never-opened"
                headers = {"Authorization": f"Bearer {token()}"}
                assert (await http.put(url, json=transfer, headers=headers)).status_code == 204
            assert await caller.ended()
        assert caller.talked == ["We are sorry."]
        assert service.medias == []
        assert service.statuses(MEDIA_LEG) == ["ringing", "started"]

    scene(Service(), play)


def test_the_answer_webhook_is_asked_again_and_the_first_socket_stays_behind() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_SECOND_SOCKET) as caller:
            await until(lambda: service.medias)
            await caller.strike()
            await until(lambda: len(service.medias) == 2)
            before = caller.frames_received
            await service.medias[0].play(TONE)
            await until(lambda: caller.frames_received > before)
            assert caller.agent_s == 0.0
            await service.medias[1].play(TONE)
            await until(lambda: caller.agent_s)
            await service.medias[0].close()
            await until(lambda: "disconnected" in service.statuses(MEDIA_LEG))
            assert not caller.is_over
        answers = [hook.params["uuid"] for hook in service.hooks if "/answer" in hook.path]
        assert len(answers) == 2
        assert len(set(answers)) == 1

    scene(Service(), play)


def test_shuffled_events_come_twice_and_not_in_their_order() -> None:
    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_EVENTS_SHUFFLED) as caller:
            await until(lambda: service.medias)
            await caller.hang_up()
        told = [(event["direction"], event["status"]) for event in service.events]
        assert {status for _, status in told} == {"ringing", "started", "answered", "completed"}
        assert max(Counter(told).values()) == 2
        own = service.statuses(CALLER_LEG)
        assert own.index("started") < own.index("ringing"), "later than what came next"

    scene(Service(), play)


async def leave_at_once(media: Media) -> None:
    """Closes when the caller's frames stop for a moment."""
    await media.accept()
    while True:
        try:
            async with asyncio.timeout(0.4):
                if await media.next() is None:
                    return
        except TimeoutError:
            await media.close()
            return


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.PHONE_GONE_BY_EVENT, ["ringing", "started", "answered", "completed"]),
        (Fault.PHONE_GONE_BY_SOCKET, ["ringing", "started", "answered"]),
        (Fault.PHONE_GONE_UNTOLD, ["ringing", "started", "answered"]),
    ],
)
def test_a_hang_up_is_told_in_one_way_or_in_none(
    sandbox: Sandbox, fault: Fault, told: list[str]
) -> None:
    async def play(service: Service) -> None:
        uuid = f"leg-{fault}"
        options: dict[str, Any] = {"control_url": sandbox.control_url, "uuid": uuid}
        async with call(service, fault=fault, **options) as caller:
            await until(lambda: service.medias and service.medias[0].frames)
            await caller.hang_up()
        assert service.statuses(CALLER_LEG) == told
        assert "disconnected" not in service.statuses(MEDIA_LEG)
        assert caller.released_s is not None
        assert (caller.released_s >= 0.3) is (fault is not Fault.PHONE_GONE_BY_SOCKET)
        async with httpx.AsyncClient(trust_env=False) as http:
            headers = {"Authorization": f"Bearer {token()}"}
            leg = await http.get(f"{sandbox.vonage_api_url}/v1/calls/{uuid}", headers=headers)
        assert leg.json()["status"] == "completed", "the carrier itself knows"

    scene(Service(leave_at_once), play)


def test_clear_is_confirmed_by_a_phone_that_only_loses_marks() -> None:
    texts: list[Any] = []

    async def media(media: Media) -> None:
        await media.accept()
        await media.command(action="clear")
        texts.append(json.loads(await media.text()))
        await media.drain()

    async def play(service: Service) -> None:
        async with call(service, fault=Fault.PHONE_MARKS_LOST):
            await until(lambda: texts)

    scene(Service(media), play)
    assert texts == [{"event": "websocket:cleared"}]
