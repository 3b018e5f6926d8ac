"""Calls that come in faster than the carrier connects, and callers for whom there is no room."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime

import pytest

from tests.fakes.ncco import is_websocket
from tests.fakes.openai_script import Refusal, Reply, Script
from tests.fakes.server import RunningServer
from tests.fakes.stage import Stage, stage
from tests.fakes.waiting import eventually
from tests.fakes.webhooks import Delivery
from tests.integration.support import (
    Ncco,
    Row,
    Rows,
    Shared,
    Wire,
    apologises,
    ask_answer,
    connects,
    flow,
    hang_up,
    new_uuid,
    postgres_database,
    shared_stage,
    tell,
)

PACED = {"VONAGE_CONNECTS_PER_SECOND": "3"}
#: Faster than any voice of the carrier reads.
CHARS_PER_S = 20


def said_first_s(ncco: Ncco) -> float:
    """How long at least the words before the connect to our socket take."""
    *talks, connect = ncco
    assert is_websocket(connect), ncco
    assert all(action["action"] == "talk" for action in talks), "nobody listens to a `wait`"
    return sum(len(action["text"]) for action in talks) / CHARS_PER_S


def places_s(rows: Rows) -> list[float]:
    """When the fleet's calls connect, as far as the pace's row remembers."""
    found = rows.ask("SELECT taken FROM sessions_app_connectpace")
    if not found:
        return []
    taken = found[0]["taken"]
    return sorted(at / 1000 for at in (json.loads(taken) if isinstance(taken, str) else taken))


def busiest_second(places: Sequence[float]) -> int:
    return max((sum(at <= other <= at + 1 for other in places) for at in places), default=0)


async def burst(s: Stage, servers: Sequence[RunningServer], count: int) -> dict[str, Delivery]:
    """So many new calls in one instant, in turn at these servers."""
    uuids = [new_uuid() for _ in range(count)]
    replies = await asyncio.gather(
        *(ask_answer(s, each, server=servers[n % len(servers)]) for n, each in enumerate(uuids))
    )
    return dict(zip(uuids, replies, strict=True))


async def free(s: Stage, *servers: RunningServer, uuids: Sequence[str]) -> None:
    """Ends these calls, whoever has them."""
    for server in servers:
        for each in uuids:
            await tell(s, each, "completed", server=server)
    await eventually(
        "the slots", lambda: not any(server.active_count() for server in servers), every_s=0.05
    )


# ---------------------------------------------------------------------- the pace


@pytest.fixture(scope="module")
def paced() -> Iterator[Shared]:
    with shared_stage(env=PACED) as running:
        yield running


async def check_pace(
    replies: Mapping[str, Delivery], rows: Rows, servers: Sequence[RunningServer]
) -> None:
    """Every call connects at its place, is spoken to until then, and no second is too full."""
    done_s, places = time.time(), places_s(rows)
    assert busiest_second(places) <= 3
    still_to_come = 0
    for call_uuid, reply in replies.items():
        said_s = said_first_s(flow(reply))

        def its_row_says_so(call_uuid: str = call_uuid, said_s: float = said_s) -> bool:
            # Words without need would be as wrong as silence.
            delay_s = rows.call(call_uuid)["connect_delay_ms"] / 1000
            return said_s >= delay_s and (said_s == 0) == (delay_s == 0)

        # At once, but for calls that were answered before a slow database was.
        await eventually("the row of what was said", its_row_says_so, every_s=0.05)
        if not any("without the database" in t for s in servers for t in s.lines_of(call_uuid)):
            row = rows.call(call_uuid)
            still_to_come += rung_at_s(row) + row["connect_delay_ms"] / 1000 > done_s
    # No two processes have taken the same place: each that was to come then is one of its own.
    assert sum(at > done_s for at in places) >= still_to_come


def rung_at_s(row: Row) -> float:
    at = row["ringing_at"]
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return float(moment.replace(tzinfo=UTC).timestamp())


def test_a_burst_is_spoken_to_and_connected_three_a_second(paced: Shared) -> None:
    s, rows = paced.stage, Rows.of(paced.stage.server)

    async def scenario() -> None:
        replies = await burst(s, [s.server], 15)
        await check_pace(replies, rows, [s.server])
        # The same again, however late and however often.
        for method in ("GET", "POST"):
            for each, reply in replies.items():
                assert (await ask_answer(s, each, method)).body == reply.body
        await free(s, s.server, uuids=list(replies))

    paced.run(scenario())


def test_a_caller_who_is_spoken_to_first_is_served_as_any_other(paced: Shared) -> None:
    s, rows = paced.stage, Rows.of(paced.stage.server)

    async def scenario() -> None:
        crowd = await burst(s, [s.server], 30)
        async with s.call() as phone:
            await phone.wait_for_voice()
            assert phone.talked, "it was his turn at once"
            assert [action["action"] for action in phone.nccos[0]] == ["talk", "connect"]
        assert (await rows.ended(phone.uuid))["end_reason"] == "caller_hung_up"
        await free(s, s.server, uuids=list(crowd))
        assert s.violations() == []

    paced.run(scenario())


def test_a_caller_who_comes_alone_hears_no_words_before_the_agent(paced: Shared) -> None:
    s, rows = paced.stage, Rows.of(paced.stage.server)

    async def scenario() -> None:
        await eventually(
            "the crowd's places to pass",
            lambda: all(at < time.time() - 1.1 for at in places_s(rows)),
            timeout_s=30,
        )
        call_uuid = new_uuid()
        connects(await ask_answer(s, call_uuid))
        await free(s, s.server, uuids=[call_uuid])

    paced.run(scenario())


def test_more_than_can_be_connected_soon_are_told_so() -> None:
    async def scenario() -> None:
        async with stage(env={"VONAGE_CONNECTS_PER_SECOND": "1"}) as s:
            rows = Rows.of(s.server)
            replies = await burst(s, [s.server], 40)
            taken = {u: r for u, r in replies.items() if is_websocket(flow(r)[-1])}
            refused = {u: r for u, r in replies.items() if u not in taken}
            # One a second (and a tenth) for twenty seconds, and what passed during the burst.
            assert 19 <= len(taken) < 40
            assert s.server.active_count() == len(taken)
            for each, reply in refused.items():
                apologises(reply)
                assert (await rows.ended(each))["end_reason"] == "refused"
                assert any("connect" in event for event in rows.events(each))
                assert (await ask_answer(s, each)).body == reply.body
            assert max(said_first_s(flow(reply)) for reply in taken.values()) < 25
            assert busiest_second(places_s(rows)) == 1
            await free(s, s.server, uuids=list(taken))

    asyncio.run(scenario())


@pytest.mark.services
def test_two_processes_keep_one_pace(postgres_url: str) -> None:
    async def scenario(url: str) -> None:
        async with AsyncExitStack() as stack:
            env = {**PACED, "DATABASE_URL": url, "NODE_NAME": "node-a"}
            s = await stack.enter_async_context(stage(env=env))
            beside = RunningServer(
                s.openai,
                s.speechmatics,
                s.vonage,
                beside=s.server,
                env={**PACED, "NODE_NAME": "node-b"},
            )
            b, rows = await stack.enter_async_context(beside), Rows.of(s.server)
            replies = await burst(s, [s.server, b], 24)
            await check_pace(replies, rows, [s.server, b])
            assert s.server.active_count() == b.active_count() == 12
            # Whoever is asked again gives the same words and the same ticket.
            for n, (each, reply) in enumerate(replies.items()):
                again = await ask_answer(s, each, server=(b, s.server)[n % 2])
                assert [action.get("text") for action in flow(again)] == [
                    action.get("text") for action in flow(reply)
                ]
                assert flow(again)[-1]["endpoint"] == flow(reply)[-1]["endpoint"]
            await free(s, s.server, b, uuids=list(replies))

    with postgres_database(postgres_url) as url:
        asyncio.run(scenario(url))


@pytest.mark.services
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_burst_while_the_database_goes_is_answered_in_time_and_paced(
    postgres_url: str, how: str
) -> None:
    """More callers than slots, and the database is lost among them."""

    async def scenario(url: str, wire: Wire) -> None:
        env = {**PACED, "DATABASE_URL": wire.through(url), "MAX_CONCURRENT_CALLS": "5"}
        async with stage(env=env) as s:
            # So that an agent is remembered.
            first = new_uuid()
            connects(await ask_answer(s, first))
            await free(s, s.server, uuids=[first])
            ringing = asyncio.create_task(burst(s, [s.server], 30))
            await eventually("the first of them", lambda: s.server.active_count() > 0, every_s=0)
            (wire.hang if how == "hangs" else wire.cut)()
            replies = await ringing
            flows = [flow(reply) for reply in replies.values()]
            assert all(reply.elapsed_ms < 4500 for reply in replies.values())
            taken = [each for each in flows if is_websocket(each[-1])]
            assert len(taken) == 5 == s.server.active_count()
            assert all(each[0]["action"] == "talk" for each in flows if each not in taken)
            again = await burst(s, [s.server], 5)
            assert all(reply.elapsed_ms < 4500 for reply in again.values())
            for reply in again.values():
                apologises(reply)
            await free(s, s.server, uuids=list(replies))
            # Slots are there again, rows are not.
            without = await burst(s, [s.server], 5)
            assert all(is_websocket(flow(reply)[-1]) for reply in without.values())
            wire.mend()
            await free(s, s.server, uuids=list(without))
            for each in without:
                await Rows(url).ended(each, timeout_s=20)

    with postgres_database(postgres_url) as url, Wire.to(url, 5432) as wire:
        asyncio.run(scenario(url, wire))


# ---------------------------------------------------------------------- no room


@contextmanager
def set_to(s: Stage, **options: str) -> Iterator[None]:
    """The default agent, changed for a while."""
    flags = {"when_busy": "apologise", "apology": "", "fallback_number": ""} | options
    for values in (flags, {"when_busy": "apologise", "apology": "", "fallback_number": ""}):
        given = [
            part
            for name, value in values.items()
            for part in (f"--{name.replace('_', '-')}", value)
        ]
        done = s.server.manage("agent", "Receptionist", *given)
        assert done.returncode == 0, done.stderr
        if values is flags:
            yield


@pytest.fixture(scope="module")
def small() -> Iterator[Shared]:
    """A house with room for one call."""
    with shared_stage(env={"MAX_CONCURRENT_CALLS": "1"}) as running:
        yield running


async def ask_next(s: Stage, held: Ncco) -> Delivery:
    """The carrier performs the `notify` of this flow."""
    (notify,) = [action for action in held if action["action"] == "notify"]
    payload = {"payload": notify["payload"], "conversation_uuid": "CON-1"}
    return await s.vonage.forge(notify["eventUrl"][0], payload, notify["eventMethod"])


def is_held(reply: Delivery) -> bool:
    kinds = [action["action"] for action in flow(reply)]
    return kinds[:3] == ["talk", "notify", "talk"]


def test_a_held_caller_hears_sentences_until_there_is_room(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(s, when_busy="hold"):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            async with s.call() as phone:
                await eventually("the second sentence", lambda: len(phone.talked) >= 2)
                assert s.server.active_count() == 1, "a held call takes no slot"
                assert phone.uuid not in s.server.health()["sessions"]["uuids"]
                assert rows.call(phone.uuid)["ended_at"] is None
                await hang_up(s, busy)
                await phone.wait_for_voice()
                assert s.server.active_count() == 1
                assert not any("cannot take your call" in text for text in phone.talked)
            row = await rows.ended(phone.uuid)
            assert row["end_reason"] == "caller_hung_up"
            events = rows.events(phone.uuid)
            assert "held every slot is taken" in events
            assert any(event.startswith("taken_from_hold") for event in events)
            await free(s, s.server, uuids=[busy])
        assert s.violations() == []

    small.run(scenario())


def test_a_hold_that_lasts_too_long_ends_in_the_apology_and_the_person(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(
            s, when_busy="hold", apology="I am so sorry.", fallback_number="+44 7700 900999"
        ):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            async with s.call() as phone:
                await phone.wait_for_talk("so sorry", timeout_s=20)
                await eventually("the person", lambda: phone.connected_to == ["447700900999"])
                assert len(phone.talked) > 10
                phone.person_hangs_up()
                await phone.wait_ended()
            row = await rows.ended(phone.uuid)
            assert row["end_reason"] == "refused"
            assert phone.media_legs == []
            await free(s, s.server, uuids=[busy])
        assert s.violations() == []

    small.run(scenario())


def test_who_hangs_up_on_hold_leaves_a_row_that_is_true(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(s, when_busy="hold"):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            held = await ask_answer(s, late := new_uuid())
            assert is_held(held)
            await tell(s, late, "completed", price="0.01", duration="3")
            row = await rows.ended(late)
            assert (row["end_reason"], row["carrier_duration_s"]) == ("caller_hung_up", 3)
            await free(s, s.server, uuids=[busy])
            # A question that was under way is no reason to take him in.
            apologises(await ask_next(s, flow(held)))
            assert s.server.active_count() == 0

    small.run(scenario())


def test_every_webhook_of_a_hold_has_one_reply(small: Shared) -> None:
    """Twice, in the same moment, late, and when there is room meanwhile."""
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(s, when_busy="hold"):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            first = await ask_answer(s, late := new_uuid())
            assert is_held(first)
            assert (await ask_answer(s, late, "POST")).body == first.body
            second, *others = await asyncio.gather(*(ask_next(s, flow(first)) for _ in range(6)))
            assert is_held(second) and second.body != first.body
            assert {other.body for other in others} == {second.body}
            await free(s, s.server, uuids=[busy])
            # There is room, but these have been answered.
            assert (await ask_answer(s, late)).body == first.body
            assert (await ask_next(s, flow(first))).body == second.body
            assert s.server.active_count() == 0
            taken, *others = await asyncio.gather(*(ask_next(s, flow(second)) for _ in range(6)))
            connects(taken)
            assert {other.body for other in others} == {taken.body}
            assert s.server.active_count() == 1
            assert (await ask_answer(s, late)).body == taken.body
            await free(s, s.server, uuids=[late])
            assert (await rows.ended(late))["end_reason"] == "caller_hung_up"

    small.run(scenario())


def test_no_more_are_held_than_could_be_served(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(s, when_busy="hold"):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            replies = await burst(s, [s.server], 10)
            held = [each for each, reply in replies.items() if is_held(reply)]
            assert len(held) == 1
            for each in replies.keys() - set(held):
                apologises(replies[each])
                assert (await rows.ended(each))["end_reason"] == "refused"
            await hang_up(s, *held)
            await free(s, s.server, uuids=[busy])

    small.run(scenario())


def test_questions_that_make_no_sense_are_refused_and_harm_nobody(small: Shared) -> None:
    s = small.stage

    async def scenario() -> None:
        url = f"{s.server.url}/webhooks/vonage/event"
        for hold in (
            {"call_uuid": "u-1"},
            {"call_uuid": "u-1", "round": 0},
            {"call_uuid": "u-1", "round": "1"},
            {"call_uuid": "u-1", "round": 10**6},
            {"call_uuid": "a b", "round": 1},
            {"round": 1},
        ):
            reply = await s.vonage.forge(url, {"payload": {"hold": hold}}, "POST")
            assert reply.status == 400, (hold, reply.status)
        # Of a call that nobody knows; and in the other form in which a payload may come back.
        for payload in ({"payload": {"hold": (of := {"call_uuid": "nobody", "round": 1})}},
                        {"hold": of}):  # fmt: skip
            apologises(await s.vonage.forge(url, payload, "POST"))
        for odd in ({"payload": "x"}, {"payload": {"hold": 7}}, {"hold": None}):
            assert (await s.vonage.forge(url, odd, "POST")).status == 204

    small.run(scenario())


def test_an_agent_may_put_its_callers_straight_through(small: Shared) -> None:
    s, rows = small.stage, Rows.of(small.stage.server)

    async def scenario() -> None:
        with set_to(
            s, when_busy="person", apology="I am so sorry.", fallback_number="+44 7700 900999"
        ):
            busy = new_uuid()
            connects(await ask_answer(s, busy))
            async with s.call() as phone:
                await eventually("the person", lambda: phone.connected_to == ["447700900999"])
                assert not any("sorry." in text for text in phone.talked)
                again = flow(await phone.ask_again())
                assert again == phone.nccos[0]
                phone.person_hangs_up()
                await phone.wait_ended()
            assert (await rows.ended(phone.uuid))["end_reason"] == "refused"
            await free(s, s.server, uuids=[busy])
        assert s.violations() == []

    small.run(scenario())


def test_persons_of_many_refused_callers_are_rung_at_the_pace_too() -> None:
    async def scenario() -> None:
        async with stage(env={**PACED, "MAX_CONCURRENT_CALLS": "1"}) as s:
            rows = Rows.of(s.server)
            done = await s.server.amanage(
                "agent", "Receptionist", "--fallback-number", "+44 7700 900999"
            )
            assert done.returncode == 0, done.stderr
            replies = await burst(s, [s.server], 13)
            flows = {each: flow(reply) for each, reply in replies.items()}
            (taken,) = [each for each, ncco in flows.items() if is_websocket(ncco[-1])]
            for each, ncco in flows.items():
                if each == taken:
                    continue
                assert [action["action"] for action in ncco] == ["talk", "connect"]
                delay_s = (await rows.ended(each))["connect_delay_ms"] / 1000
                assert len(ncco[0]["text"]) / CHARS_PER_S >= delay_s > 0
                assert (await ask_answer(s, each)).body == replies[each].body
            assert busiest_second(places_s(rows)) <= 3
            await free(s, s.server, uuids=[taken])

    asyncio.run(scenario())


@pytest.mark.parametrize("all_lose", ["the model", "the media"])
def test_many_callers_who_are_led_on_at_once_are_connected_at_the_pace_too(all_lose: str) -> None:
    """The model's service ends all their sessions in one moment, and their persons are rung; or all
    their lines break, and they are connected again.
    """
    callers = 7

    async def scenario() -> None:
        async with stage(env={"VONAGE_CONNECTS_PER_SECOND": "3"}) as s, AsyncExitStack() as calls:
            done = await s.server.amanage(
                "agent", "Receptionist", "--fallback-number", "+44 7700 900999"
            )
            assert done.returncode == 0, done.stderr
            phones = [await calls.enter_async_context(s.call()) for _ in range(callers)]
            for phone in phones:
                await phone.wait_for_voice(timeout_s=20)
            failed_s = time.monotonic()
            if all_lose == "the model":
                for conn in list(s.openai.connections):
                    await conn.error("insufficient_quota")
            else:
                for phone in phones:
                    phone.cut_media()
            for phone in phones:
                await eventually("the transfer", lambda p=phone: len(p.nccos) == 2, 20)
            to = "phone" if all_lose == "the model" else "websocket"
            assert all(phone.nccos[1][-1]["endpoint"][0]["type"] == to for phone in phones)
            if all_lose == "the model":
                orders = {r.path: r.at_s for r in s.vonage.rest if r.body["action"] == "transfer"}
                ordered_s = [
                    next(at_s for path, at_s in orders.items() if path.endswith(phone.uuid))
                    for phone in phones
                ]
            else:
                asked = [phone.events("disconnected")[0] for phone in phones]
                ordered_s = [each.at_s + each.elapsed_ms / 1000 for each in asked]
            said = ["".join(talk["text"] for talk in phone.nccos[1][:-1]) for phone in phones]
            said_s = [len(text) / CHARS_PER_S for text in said]
            rung_s = sorted(map(sum, zip(ordered_s, said_s, strict=True)))
            # No place was taken before the failure, and three of them are within a second.
            first_s = failed_s + min(said_s)
            assert rung_s[3] >= first_s + 1.0, "the carrier refuses a fourth connect in a second"
            assert rung_s[6] >= first_s + 2.0

    asyncio.run(scenario())


# ---------------------------------------------------------------------- the model is away


@pytest.mark.parametrize(
    "down",
    [
        Script(refuse=Refusal(401, "invalid_api_key")),
        Script(otherwise=Reply(status="failed", code="insufficient_quota")),
        Script(otherwise=Reply(status="failed", code="server_error")),
    ],
    ids=["refuses", "answers nobody", "fails each time as if it would pass"],
)
def test_while_the_model_is_down_nobody_is_picked_up_to_hear_it(down: Script) -> None:
    async def scenario() -> None:
        async with stage() as s:
            rows = Rows.of(s.server)
            s.openai.script = down
            lost = [new_uuid() for _ in range(5)]
            for each in lost:
                connects(await ask_answer(s, each))
            await s.server.wait_for_log("service is down")
            async with s.call() as phone:
                await phone.wait_for_talk()
                await phone.wait_ended()
                assert phone.media_legs == []
            assert (await rows.ended(phone.uuid))["end_reason"] == "refused"
            assert any("service is down" in event for event in rows.events(phone.uuid))
            health = await s.server.ahealth()
            assert health["status"] == "degraded" and "provider away" in health["reasons"]

            # It is looked after without any caller.
            def looks() -> int:
                return s.openai.refused + len(s.openai.connections)

            before = looks()
            await eventually("two looks", lambda: looks() >= before + 2, timeout_s=20)
            apologises(await ask_answer(s, new_uuid()))
            s.openai.script = Script()
            await s.server.wait_for_log("service is back", timeout_s=30)
            assert s.openai.open_sockets == 0
            async with s.call() as again:
                await again.wait_for_voice()
            assert (await s.server.ahealth())["status"] == "ok"
            told = [line.text for line in s.server.log]
            for once in ("is down, callers are led elsewhere", "is back, calls are taken again"):
                assert len([text for text in told if once in text]) == 1

    asyncio.run(scenario())
