from __future__ import annotations

import asyncio

import pytest

from tests.fakes.sockets import WebSocket
from tests.fakes.vonage import Faults, PhoneCall
from tests.fakes.waiting import eventually
from tests.unit.fakes.scenes import TALK, play, until_ended
from tests.unit.fakes.tiny_product import TinyProduct

# ---------------------------------------------------------------- the answer and its mishaps


def test_the_answer_is_tried_twice_and_then_the_fallback() -> None:
    def prepare(product: TinyProduct) -> None:
        product.answers = [(503, b""), (504, b"")]

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_ended()
        asked = [request for request in product.requests if "event" not in request.path]
        names = [request.path.rpartition("/")[2] for request in asked]
        assert names == ["answer", "answer", "fallback"]
        assert asked[-1].query["reason"] == "Connection closed."

    phone = play(scene, prepare=prepare)
    assert (phone.talked, phone.ended_by) == (["We are sorry."], "platform")


def test_a_retry_may_succeed() -> None:
    def prepare(product: TinyProduct) -> None:
        product.answers = [(503, b"")]

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()

    assert play(scene, prepare=prepare).violations == []


@pytest.mark.parametrize("body", [b"", b"{", b"{}", {"action": "talk"}])
def test_an_answer_that_is_no_ncco_is_a_violation(body: object) -> None:
    def prepare(product: TinyProduct) -> None:
        product.answers = [(200, body)]

    phone = play(until_ended, prepare=prepare)
    assert phone.ended_by == "dropped"
    assert phone.violations != []


def test_two_answers_at_once_must_be_the_same() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()

    assert play(scene, faults=Faults(duplicate_answer=True)).violations == []

    def prepare(product: TinyProduct) -> None:
        product.answers = [(200, [{"action": "talk", "text": text}]) for text in ("a", "b")]

    phone = play(until_ended, prepare=prepare, faults=Faults(duplicate_answer=True))
    assert phone.violations == ["two answers for one uuid are different"]


# ---------------------------------------------------------------- sockets that fail


def test_a_refused_socket_is_told_and_the_reply_is_followed() -> None:
    def prepare(product: TinyProduct) -> None:
        product.endpoint = {"uri": product.url.replace("http", "ws") + "/media/forged-ticket"}
        product.replies["failed"] = TALK

    phone = play(until_ended, prepare=prepare)
    assert (phone.refusals, phone.talked, phone.violations) == ([403], ["We are sorry."], [])


def test_a_socket_that_never_opens_is_unanswered() -> None:
    def prepare(product: TinyProduct) -> None:
        product.replies["unanswered"] = TALK

    phone = play(until_ended, prepare=prepare, faults=Faults(socket_never_opens=True))
    assert (phone.talked, phone.media_legs) == (["We are sorry."], [])


def test_a_socket_that_the_server_closes_is_disconnected() -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.close(1000)

    def prepare(product: TinyProduct) -> None:
        product.replies["disconnected"] = TALK

    phone = play(until_ended, talk, prepare)
    assert phone.talked == ["We are sorry."]
    assert phone.media.close_code == 1000


def test_a_socket_that_breaks_is_disconnected_too() -> None:
    def prepare(product: TinyProduct) -> None:
        product.replies["disconnected"] = TALK

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()
        phone.cut_media()
        await phone.wait_for_talk("sorry")
        assert product.close_codes == [1006]

    play(scene, prepare=prepare)


def test_a_caller_who_vanishes_leaves_a_cut_socket_and_two_completed_legs() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()
        await phone.abort()
        await eventually("the product to notice", lambda: product.close_codes == [1006])
        assert product.statuses.count("completed") == 2
        assert "disconnected" not in product.statuses

    play(scene)


def test_a_frozen_leg_neither_sends_nor_reads_while_it_stays_open() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        media = await phone.wait_connected()
        media.freeze()
        await asyncio.sleep(0.05)
        frames = media.frames_in
        await asyncio.sleep(0.1)
        assert (media.frames_in, media.open) == (frames, True)
        media.thaw()
        await eventually("more frames", lambda: media.frames_in > frames)

    play(scene)


def test_a_ticket_can_be_tried_a_second_time() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()
        assert await phone.knock() == 403
        assert phone.media.open

    play(scene)


def test_what_follows_the_websocket_is_a_violation() -> None:
    def prepare(product: TinyProduct) -> None:
        uri = {"uri": product.url.replace("http", "ws") + "/media/forged-ticket"}
        product.endpoint = uri
        product.answers = [(200, [*product.ncco("x"), *TALK])]

    phone = play(until_ended, prepare=prepare)
    assert any("plays at once" in text for text in phone.violations)


def test_an_ncco_where_none_may_be_is_a_violation() -> None:
    def prepare(product: TinyProduct) -> None:
        product.replies["ringing"] = TALK

    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await eventually("the complaint", lambda: phone.violations)

    play(scene, prepare=prepare)


def test_events_can_come_twice() -> None:
    async def scene(phone: PhoneCall, product: TinyProduct) -> None:
        await phone.wait_connected()
        await phone.hang_up()
        assert product.statuses.count("completed") == 4

    play(scene, faults=Faults(duplicate_events=True))
