from __future__ import annotations

import asyncio
import json
import time

import jwt
import pytest

from tests.fakes.pattern import voice_pcm
from tests.fakes.sockets import WebSocket
from tests.fakes.vonage import FakeVonage, Faults, PhoneCall
from tests.fakes.waiting import eventually
from tests.unit.fakes.scenes import play, says
from tests.unit.fakes.tiny_product import FRAME, TinyProduct

# ---------------------------------------------------------------- an ordinary call


def test_a_call_is_answered_heard_and_completed() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()
        await phone.wait_for_voice()
        await eventually("caller's audio", lambda: product.audio_frames > 5)
        await phone.hang_up()
        assert product.close_codes == [1000]
        assert sorted(set(product.statuses)) == ["answered", "completed", "ringing", "started"]
        assert product.statuses.count("completed") == 2
        first = json.loads(product.text[0])
        assert product.text[0].startswith(" ")
        assert first["event"] == "websocket:connected"
        assert (first["content-type"], first["call"]) == ("audio/l16;rate=16000", phone.uuid)

    phone = play(scene, says(voice_pcm(1, 0, 500, 16_000)))
    assert phone.violations == []
    assert (phone.ended_by, phone.talked) == ("user", [])


def test_every_webhook_and_the_handshake_are_signed() -> None:
    async def scenario() -> None:
        async with FakeVonage() as vonage, TinyProduct() as product:
            async with vonage.call(product.addresses) as phone:
                await phone.wait_connected()
            secret = vonage.credentials.signature_secret
            tokens = [request.bearer for request in product.requests]
            for token in (*tokens, *product.authorizations):
                claims = jwt.decode(token, secret, algorithms=["HS256"])
                assert claims["iss"] == "Vonage"
                assert claims["application_id"] == vonage.credentials.application_id
            assert product.authorizations

    asyncio.run(scenario())


def test_the_answer_can_be_asked_by_post_without_a_callers_number() -> None:
    async def scenario() -> None:
        async with FakeVonage() as vonage, TinyProduct() as product:
            addresses = product.addresses.of(product.url, "POST")
            async with vonage.call(addresses, caller=None) as phone:
                await phone.wait_connected()
            (asked,) = [r for r in product.requests if r.path.endswith("/answer")]
            body = json.loads(asked.body)
            assert (asked.method, body["uuid"], "from" in body) == ("POST", phone.uuid, False)

    asyncio.run(scenario())


def test_audio_comes_in_fifty_times_a_second() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        await eventually("a second of audio", lambda: media.frames_in >= 50)
        assert media.opened_s is not None
        # Never faster; how much slower depends on the machine.
        assert media.frames_in <= (time.monotonic() - media.opened_s) * 50 + 2

    assert play(scene).violations == []


def test_the_caller_speaks_presses_keys_and_is_muted() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        await phone.press("5")
        await media.mute()
        await eventually("both texts", lambda: len(product.text) == 3)
        assert json.loads(product.text[1]) == {
            "event": "websocket:dtmf",
            "digit": "5",
            "duration": 260,
        }
        assert json.loads(product.text[2])["active"] is False
        frames = media.frames_in
        await asyncio.sleep(0.1)
        assert media.frames_in <= frames + 1

    play(scene)


# ---------------------------------------------------------------- playback


def test_what_was_heard_before_a_clear_is_known_exactly() -> None:
    async def talk(socket: WebSocket) -> None:
        await says(voice_pcm(6, 0, 5000, 16_000))(socket)
        await asyncio.sleep(0.3)
        await socket.send(json.dumps({"action": "clear"}))

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        await eventually("the clear", lambda: media.clears_s)
        await eventually("its ack", lambda: '{"event": "websocket:cleared"}' in product.text[-1])
        (clear,) = phone.playback.clears
        assert clear.dropped_ms + clear.heard_ms == pytest.approx(5000, abs=1)
        assert phone.playback.voice_heard_ms(6) == pytest.approx(clear.heard_ms, abs=15)
        assert media.first_frame_s is not None
        assert clear.heard_ms == pytest.approx((clear.at_s - media.first_frame_s) * 1000, abs=1)

    assert play(scene, talk).violations == []


def test_a_notify_comes_back_when_the_audio_before_it_was_played() -> None:
    async def talk(socket: WebSocket) -> None:
        for _ in range(10):
            await socket.send(FRAME)
        await socket.send(json.dumps({"action": "notify", "payload": {"id": 7}}))

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        await eventually("the echo", lambda: media.notified == [{"id": 7}])
        assert media.first_frame_s is not None
        assert time.monotonic() - media.first_frame_s >= 0.2
        assert phone.playback.queued_ms == 0

    play(scene, talk)


@pytest.mark.parametrize("returned", [True, False])
def test_a_notify_that_was_cleared_comes_back_only_if_told_so(returned: bool) -> None:
    async def talk(socket: WebSocket) -> None:
        for _ in range(500):
            await socket.send(FRAME)
        await socket.send(json.dumps({"action": "notify", "payload": {"id": 7}}))
        await socket.send(json.dumps({"action": "clear"}))
        await socket.send(json.dumps({"action": "notify", "payload": {"id": 8}}))

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        await eventually("the second echo", lambda: {"id": 8} in media.notified)
        assert ({"id": 7} in media.notified) is returned

    play(scene, talk, faults=Faults(returns_marks_on_clear=returned))


@pytest.mark.parametrize("size", [320, 638, 642, 1280])
def test_a_frame_of_another_size_ends_the_leg_with_1006(size: int) -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.send(b"\0" * size)

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_ended()
        await eventually("the product to notice", lambda: product.close_codes)
        assert product.close_codes == [1006]
        assert "disconnected" in product.statuses

    phone = play(scene, talk)
    assert phone.violations == [f"a frame of {size} bytes where 640 are required"]


@pytest.mark.parametrize(
    "text", ["{", '{"action":"hangup"}', '{"action":"clear","now":1}', '{"action":"notify"}', "[]"]
)
def test_an_unknown_command_is_a_violation(text: str) -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await eventually("the complaint", lambda: phone.violations)

    async def talk(socket: WebSocket) -> None:
        await socket.send(text)

    play(scene, talk)


def test_more_than_a_minute_ahead_is_a_violation() -> None:
    async def talk(socket: WebSocket) -> None:
        for _ in range(3200):
            await socket.send(FRAME)

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await eventually("the complaint", lambda: phone.violations)

    phone = play(scene, talk)
    assert "3072" in phone.violations[0]


def test_it_speaks_24_khz_too() -> None:
    def prepare(product: TinyProduct) -> None:
        product.rate = 24_000

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_for_voice()
        assert phone.playback.rate == 24_000

    assert play(scene, says(voice_pcm(1, 0, 400, 24_000), 960), prepare).violations == []
