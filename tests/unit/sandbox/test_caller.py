"""The simulated caller against a hand-written call centre, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
import numpy as np
import pytest

from sessions_app.sandbox.caller import Caller, Outcome
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.samples import BY_KEY
from sessions_app.sandbox.server import Sandbox
from tests.unit.sandbox.application_token import token
from tests.unit.sandbox.service import Media, Service, running, until

SECRET = "signature-secret-of-at-least-32-bytes"
TONE = (6000 * np.sin(np.arange(16000) / 5)).astype("<i2").tobytes()
CALLER_LEG, MEDIA_LEG = "inbound", "outbound"


def call(service: Service, **options: Any) -> Caller:
    return Caller(
        service.url,
        signature_secret=SECRET,
        api_key="key-1",
        application_id="app-1",
        retry_s=0.01,
        **options,
    )


def scene(service: Service, play: Callable[[Service], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running(service), asyncio.timeout(40):
            await play(service)

    asyncio.run(run())


def claims(authorization: str) -> dict[str, Any]:
    token = authorization.removeprefix("Bearer ")
    return jwt.decode(token, SECRET, algorithms=["HS256"])


# --- webhooks ---


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_answer_webhook_is_asked_signed_and_with_its_parameters(method: str) -> None:
    async def play(service: Service) -> None:
        options = {"uuid": "leg-1", "answer_params": {"region_url": "https://x.vonage.com"}}
        async with call(service, method=method, fault=Fault.TTS_CUT, **options):
            pass
        hook = service.hooks[0]
        assert (hook.method, hook.path) == (method, "/webhooks/vonage/answer")
        assert hook.params["uuid"] == "leg-1"
        assert hook.params["to"] == "442079460000"
        assert hook.params["region_url"] == "https://x.vonage.com"
        assert hook.params["SipHeader_X-Sandbox-Fault"] == "tts-cut"
        assert hook.params["conversation_uuid"].startswith("CON-")
        signed = claims(hook.authorization)
        assert (signed["iss"], signed["api_key"], signed["application_id"]) == (
            "Vonage",
            "key-1",
            "app-1",
        )
        digest = hashlib.sha256(hook.body).hexdigest() if method == "POST" else None
        assert signed.get("payload_hash") == digest

    scene(Service(), play)


def test_events_of_both_legs_are_told_ringing_before_started_and_completed_last() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            await caller.hang_up()
        assert caller.outcome is Outcome.CALLER_HUNG_UP
        for direction in (CALLER_LEG, MEDIA_LEG):
            wanted = ["ringing", "started", "answered", "completed"]
            assert service.statuses(direction) == wanted
        ringing, started = service.events[:2]
        assert ringing["timestamp"] == started["timestamp"]
        media_events = [e for e in service.events if e["direction"] == MEDIA_LEG]
        assert {e["conversation_uuid"] for e in service.events} == {ringing["conversation_uuid"]}
        assert len({e["uuid"] for e in service.events}) == 2
        assert all(e["headers"] == {"call": "c-1"} for e in media_events)
        completed = service.events[-1]
        assert all(isinstance(completed[k], str) for k in ("price", "rate", "duration"))
        for hook in service.hooks[1:]:
            assert claims(hook.authorization)["payload_hash"] == (
                hashlib.sha256(hook.body).hexdigest()
            )

    scene(Service(), play)


@pytest.mark.parametrize("failures", [[503], [0]])
def test_a_failed_answer_is_asked_again_with_the_same_token(failures: list[int]) -> None:
    async def play(service: Service) -> None:
        async with call(service):
            pass
        first, second = [hook for hook in service.hooks if hook.path.endswith("/answer")]
        assert first.authorization == second.authorization
        assert service.medias

    scene(Service(answers=failures), play)


def test_after_two_failures_the_fallback_is_asked_with_the_reason() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            await caller.ended()
        fallback = next(hook for hook in service.hooks if hook.path.endswith("/fallback"))
        assert "503" in fallback.params["reason"]
        assert caller.talked == ["Sorry."]
        assert caller.outcome is Outcome.FLOW_ENDED

    scene(Service(answers=[503, 503]), play)


def test_a_refused_or_unreadable_answer_is_a_call_that_was_not_answered() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            assert caller.is_over
        assert caller.outcome is Outcome.NOT_ANSWERED
        assert any("hangup" in error for error in caller.errors)
        assert service.events == []

    scene(Service(ncco=[{"action": "hangup"}]), play)


# --- media ---


def test_the_media_socket_opens_signed_and_says_connected_with_the_headers() -> None:
    seen: dict[str, Any] = {}

    async def media(media: Media) -> None:
        seen["connected"] = await media.accept()
        seen["text"] = media.texts[0]
        seen["claims"] = claims(media.authorization)
        await media.drain()
        seen["sizes"] = {len(frame) for frame in media.frames}

    async def play(service: Service) -> None:
        async with call(service):
            await asyncio.sleep(0.3)

    scene(Service(media), play)
    assert seen["text"].startswith(' {"event"')
    assert seen["connected"] == {
        "event": "websocket:connected",
        "content-type": "audio/l16;rate=16000",
        "call": "c-1",
    }
    assert seen["claims"]["application_id"] == "app-1"
    assert seen["sizes"] == {640}


@pytest.mark.parametrize("authorization", [{"type": "custom", "value": "Bearer abc"}, None])
def test_the_handshake_carries_what_the_ncco_asks(authorization: dict[str, str] | None) -> None:
    async def play(service: Service) -> None:
        if authorization is None:
            service.ncco = service.to_media()
            del service.ncco[0]["endpoint"][0]["authorization"]
        async with call(service):
            pass
        assert service.medias[0].authorization == (authorization or {}).get("value", "")

    scene(Service(endpoint={"authorization": authorization} if authorization else {}), play)


def test_frames_leave_in_real_time_speech_included() -> None:
    heard = bytearray()

    async def media(media: Media) -> None:
        await media.accept()
        await media.drain()
        heard.extend(b"".join(media.frames))

    async def play(service: Service) -> None:
        async with call(service) as caller:
            began = time.monotonic()
            await caller.say(BY_KEY["yes"].text)
            lasted = time.monotonic() - began
            assert lasted > 1.5
        total_s = len(heard) / 32000
        assert total_s >= 1.5
        assert total_s < time.monotonic() - began + 1.1

    scene(Service(media), play)
    assert np.abs(np.frombuffer(bytes(heard), "<i2").astype(int)).max() > 3000


def test_what_the_agent_sends_in_a_burst_is_heard_in_real_time_and_marks_come_back() -> None:
    marks: list[Any] = []

    async def media(media: Media) -> None:
        await media.accept()
        await media.play(TONE[:12800])
        await media.command(action="notify", payload={"id": 7})
        marks.append(json.loads(await media.text()))
        await media.drain()

    played: list[int] = []

    async def play(service: Service) -> None:
        async with call(service, on_played=lambda frame, rate: played.append(rate)) as caller:
            assert await caller.agent_finished(quiet_s=0.2)
        assert caller.heard == TONE[:12800]
        assert caller.frames_received == 20
        assert caller.first_sound_s is not None
        assert caller.rate_hz == 16000

    scene(Service(media), play)
    assert marks == [{"event": "websocket:notify", "payload": {"id": 7}}]
    assert played == [16000] * 20


def test_clear_drops_what_is_queued_and_is_confirmed() -> None:
    texts: list[Any] = []

    async def media(media: Media) -> None:
        await media.accept()
        for _ in range(20):
            await media.play(TONE)
        await media.command(action="clear")
        texts.append(json.loads(await media.text()))
        await media.drain()

    async def play(service: Service) -> None:
        async with call(service, keep_heard_s=60) as caller:
            await until(lambda: caller.clears)
            await asyncio.sleep(0.1)
            before = len(caller.heard)
            await asyncio.sleep(0.2)
            assert len(caller.heard) == before
        assert len(caller.heard) < 20 * len(TONE) / 2

    scene(Service(media), play)
    assert texts == [{"event": "websocket:cleared"}]


@pytest.mark.parametrize(
    ("act", "wanted"),
    [
        ("short frame", "frame of 320 bytes, wanted 640"),
        ("long frame", "frame of 1280 bytes, wanted 640"),
        ("hangup", "unknown command 'hangup'"),
        ("text", "a text message that is no command"),
    ],
)
def test_breaking_the_protocol_ends_the_call_as_vonage_would(act: str, wanted: str) -> None:
    closed = []

    async def media(media: Media) -> None:
        await media.accept()
        match act:
            case "short frame":
                await media.play(TONE[:320])
            case "long frame":
                await media.play(TONE[:1280], size=1280)
            case "hangup":
                await media.command(action="hangup")
            case _:
                await media.command(event="websocket:hello")
        await media.drain()
        closed.append(True)

    async def play(service: Service) -> None:
        async with call(service) as caller:
            assert await caller.ended(10)
        assert caller.outcome is Outcome.BROKEN
        assert any(wanted in error for error in caller.errors)
        assert service.statuses(CALLER_LEG)[-1] == "completed"

    scene(Service(media), play)
    assert closed == [True]


def test_keys_and_mutes_are_told_to_the_service() -> None:
    texts: list[Any] = []
    quiet: list[int] = []

    async def media(media: Media) -> None:
        await media.accept()
        for _ in range(3):
            texts.append(json.loads(await media.text()))
            quiet.append(len(media.frames))
        await media.drain()

    async def play(service: Service) -> None:
        async with call(service) as caller:
            await caller.dtmf("5")
            await asyncio.sleep(0.1)
            await caller.mute()
            await asyncio.sleep(0.3)
            await caller.mute(False)
            await asyncio.sleep(0.1)
            with pytest.raises(ValueError, match="'12'"):
                await caller.dtmf("12")

    scene(Service(media), play)
    assert texts[0] == {"event": "websocket:dtmf", "digit": "5", "duration": 260}
    assert [text["active"] for text in texts[1:]] == [False, True]
    assert texts[1]["event"] == "websocket:media:update"
    assert quiet[2] - quiet[1] <= 1


def test_a_frozen_caller_sends_nothing_and_stays() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            await asyncio.sleep(0.1)
            caller.freeze()
            await asyncio.sleep(0.05)
            before = len(service.medias[0].frames)
            await asyncio.sleep(0.2)
            assert len(service.medias[0].frames) == before
            assert not caller.is_over

    scene(Service(), play)


def test_an_abort_resets_the_socket_and_tells_nothing() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            await asyncio.sleep(0.1)
            await caller.abort()
        assert caller.outcome is Outcome.ABORTED
        await asyncio.sleep(0.1)
        assert "completed" not in service.statuses(CALLER_LEG)
        assert "disconnected" not in service.statuses(MEDIA_LEG)

    scene(Service(), play)


# --- when media fails ---


async def close_at_once(media: Media) -> None:
    await media.accept()
    await media.close()


def test_when_the_server_closes_its_socket_the_ncco_for_disconnected_is_played() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            assert await caller.ended()
        assert caller.talked == ["One moment."]
        assert caller.outcome is Outcome.FLOW_ENDED
        disconnected = next(e for e in service.events if e.get("status") == "disconnected")
        assert disconnected["headers"] == {"call": "c-1"}
        assert caller.heard

    apology = [{"action": "talk", "text": "One moment."}]
    scene(Service(close_at_once, on_event={"disconnected": apology}), play)


def test_a_socket_that_closes_with_nothing_to_follow_drops_the_call() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            assert await caller.ended()
        assert caller.outcome is Outcome.DROPPED
        assert service.statuses(CALLER_LEG)[-1] == "completed"

    scene(Service(close_at_once), play)


def test_an_ncco_for_disconnected_may_connect_again() -> None:
    turns: list[int] = []

    async def media(media: Media) -> None:
        turns.append(len(turns))
        await media.accept()
        if len(turns) == 1:
            await media.close()
        await media.drain()

    async def play(service: Service) -> None:
        service.on_event["disconnected"] = service.to_media()
        async with call(service) as caller:
            await until(lambda: len(turns) == 2)
            await asyncio.sleep(0.1)
            assert not caller.is_over
        assert caller.outcome is Outcome.CALLER_HUNG_UP

    scene(Service(media), play)


@pytest.mark.parametrize(
    ("event_type", "talked"), [({}, ["Sorry, no."]), ({"eventType": None}, [])]
)
def test_a_refused_socket_is_a_failed_leg_and_only_a_synchronous_one_is_answered(
    event_type: dict[str, Any], talked: list[str]
) -> None:
    async def play(service: Service) -> None:
        if event_type:
            service.ncco = service.to_media()
            del service.ncco[0]["eventType"]
        async with call(service) as caller:
            assert await caller.ended()
        assert caller.talked == talked
        assert service.statuses(MEDIA_LEG)[-1] == "failed"

    apology = [{"action": "talk", "text": "Sorry, no."}]
    scene(Service(refuse_media=403, on_event={"failed": apology}), play)


def test_an_unreachable_socket_is_an_unanswered_leg() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            assert await caller.ended()
        assert service.statuses(MEDIA_LEG)[-1] == "unanswered"

    scene(Service(endpoint={"uri": "ws://127.0.0.1:9/media"}), play)


def test_what_follows_a_connect_is_played_as_soon_as_the_socket_is_up() -> None:
    async def play(service: Service) -> None:
        service.ncco = [*service.to_media(), {"action": "talk", "text": "Goodbye."}]
        async with call(service) as caller:
            await caller.agent_starts()
            assert caller.talked == ["Goodbye."]
            assert not caller.is_over

    scene(Service(), play)


def test_a_person_takes_over_and_silence_is_no_longer_the_services() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            await asyncio.sleep(0.5)
            assert caller.longest_silence_s < 0.4
            assert caller.connected_to == [{"type": "phone", "number": "442079460001"}]
        assert caller.outcome is Outcome.CALLER_HUNG_UP
        assert service.statuses(MEDIA_LEG) == ["ringing", "started", "answered", "completed"]

    endpoint = {"type": "phone", "number": "442079460001"}
    scene(Service(ncco=[{"action": "connect", "endpoint": [endpoint]}]), play)


def test_a_person_who_does_not_answer_lets_the_ncco_go_on() -> None:
    async def play(service: Service) -> None:
        async with call(service, person_answers=False) as caller:
            assert await caller.ended()
        assert caller.talked == ["Nobody is free."]

    endpoint = {"type": "phone", "number": "442079460001"}
    talk = {"action": "talk", "text": "Nobody is free."}
    scene(Service(ncco=[{"action": "connect", "endpoint": [endpoint]}, talk]), play)


def test_silence_is_measured_while_nobody_speaks() -> None:
    async def media(media: Media) -> None:
        await media.accept()
        await media.play(TONE[:6400])
        await media.drain()

    async def play(service: Service) -> None:
        async with call(service) as caller:
            await caller.agent_finished(quiet_s=0.6)
        assert caller.longest_silence_s >= 0.6
        frozen = caller.longest_silence_s
        await asyncio.sleep(0.05)
        assert caller.longest_silence_s == frozen

    scene(Service(media), play)


def test_live_speech_is_passed_on() -> None:
    async def play(service: Service) -> None:
        async with call(service) as caller:
            caller.feed(TONE[:6401])
            await asyncio.sleep(0.5)
        assert TONE[:6400] in b"".join(service.medias[0].frames)

    scene(Service(), play)


# --- REST, through a sandbox in another thread ---


def order(sandbox: Sandbox, uuid: str, path: str, body: dict[str, Any]) -> Awaitable[int]:
    def put() -> int:
        url = f"{sandbox.vonage_api_url}/v1/calls/{uuid}{path}"
        headers = {"Authorization": f"Bearer {token()}"}
        return httpx.put(url, json=body, headers=headers, trust_env=False).status_code

    return asyncio.to_thread(put)


def media_uuid(service: Service) -> str:
    return next(e["uuid"] for e in service.events if e.get("direction") == MEDIA_LEG)


def test_a_hangup_of_the_caller_by_rest_ends_everything(sandbox: Sandbox) -> None:
    async def play(service: Service) -> None:
        async with call(service, control_url=sandbox.control_url) as caller:
            assert await order(sandbox, caller.uuid, "", {"action": "hangup"}) == 204
            assert await caller.ended()
        assert caller.outcome is Outcome.HUNG_UP_BY_SERVICE
        assert service.statuses(CALLER_LEG)[-1] == "completed"
        assert service.statuses(MEDIA_LEG)[-1] == "completed"
        assert "disconnected" not in service.statuses(MEDIA_LEG)
        assert service.events[-1]["disconnected_by"] == "platform"

    scene(Service(), play)


def test_a_hangup_of_the_media_leg_by_rest_is_no_disconnection(sandbox: Sandbox) -> None:
    async def play(service: Service) -> None:
        async with call(service, control_url=sandbox.control_url) as caller:
            await until(lambda: MEDIA_LEG in [e.get("direction") for e in service.events])
            assert await order(sandbox, media_uuid(service), "", {"action": "hangup"}) == 204
            assert await caller.ended()
        assert caller.outcome is Outcome.FLOW_ENDED
        assert service.statuses(MEDIA_LEG) == ["ringing", "started", "answered", "completed"]

    scene(Service(), play)


def test_a_transfer_replaces_the_ncco_and_leaves_the_media_leg_alone(sandbox: Sandbox) -> None:
    async def media(media: Media) -> None:
        await media.accept()
        while await media.next() is not None:
            await media.play(TONE[:640])

    async def play(service: Service) -> None:
        endpoint = {"type": "phone", "number": "442079460001"}
        ncco = [
            {"action": "talk", "text": "I will connect you."},
            {"action": "connect", "endpoint": [endpoint]},
        ]
        body = {"action": "transfer", "destination": {"type": "ncco", "ncco": ncco}}
        async with call(service, control_url=sandbox.control_url) as caller:
            await caller.agent_starts()
            assert await order(sandbox, caller.uuid, "", body) == 204
            await until(lambda: caller.connected_to)
            assert caller.talked == ["I will connect you."]
            assert await order(sandbox, media_uuid(service), "", {"action": "hangup"}) == 204
            await asyncio.sleep(0.2)
            assert not caller.is_over
        assert [e["uuid"] for e in service.events if e.get("type") == "transfer"] == [caller.uuid]

    scene(Service(media), play)


def test_words_keys_and_earmuffs_by_rest_reach_the_caller(sandbox: Sandbox) -> None:
    async def play(service: Service) -> None:
        async with call(service, control_url=sandbox.control_url) as caller:
            await order(sandbox, caller.uuid, "/dtmf", {"digits": "12#"})
            await order(sandbox, caller.uuid, "/talk", {"text": "Please hold."})
            await caller.agent_starts()
            assert caller.digits == ["12#"]
            assert caller.talked == ["Please hold."]
            await order(sandbox, caller.uuid, "", {"action": "mute"})
            await order(sandbox, caller.uuid, "", {"action": "earmuff"})
            await asyncio.sleep(0.1)
            before = len(caller.heard)
            await asyncio.sleep(0.1)
            assert len(caller.heard) == before
        assert any("media:update" in text for text in service.medias[0].texts)

    scene(Service(), play)


# --- nothing is left behind ---


def test_after_a_hundred_calls_no_task_is_left() -> None:
    async def play(service: Service) -> None:
        async with call(service):
            pass
        before = len(asyncio.all_tasks())

        async def one(number: int) -> None:
            async with call(service) as caller:
                if number % 3 == 0:
                    await caller.abort()

        for _ in range(4):
            async with asyncio.TaskGroup() as group:
                for number in range(25):
                    group.create_task(one(number))
        await asyncio.sleep(0.2)
        assert len(asyncio.all_tasks()) <= before

    scene(Service(), play)
