"""What goes wrong on a realtime connection and when, and what a client that came back may do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sessions_app.sandbox.faults import Fault, Phase, Wish
from sessions_app.sandbox.samples import AFTER_TOOL, BY_KEY
from sessions_app.sandbox.server import Sandbox, serve
from sessions_app.sandbox.voice import CALLER, synthesise
from tests.unit.sandbox.conftest import QUICK
from tests.unit.sandbox.realtime_client import PATIENCE_S, RealtimeClient, session

END_CALL = {"type": "function", "name": "end_call", "parameters": {"type": "object"}}
LISTENING = {
    "audio": {
        "input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 500}},
        "output": {"voice": "marin"},
    },
    "tools": [END_CALL],
}
LONG = "This is a sentence of middling length. " * 4
USER = {"type": "message", "role": "user"}
ASSISTANT = {"type": "message", "role": "assistant"}


def user_said(text: str) -> dict[str, Any]:
    return USER | {"content": [{"type": "input_text", "text": text}]}


def agent_said(text: str, **more: Any) -> dict[str, Any]:
    return ASSISTANT | {"content": [{"type": "output_text", "text": text}]} | more


async def converse(client: RealtimeClient, text: str = BY_KEY["parking"].text) -> None:
    """The whole of a call with one question in typed words, as far as the connection lives."""
    await client.configure(**LISTENING)
    await client.greet()
    await client.say(BY_KEY["yes"].text)
    await client.until("response.done")
    await client.send("conversation.item.create", item=user_said(BY_KEY["goodbye"].text))
    await client.send("response.create")
    done = await client.until("response.done")
    call = next(i for i in done["response"]["output"] if i["type"] == "function_call")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    await client.send("conversation.item.create", item=output)
    # Whatever was to happen at the end has happened once this is answered.
    await client.configure()


def lost(client: RealtimeClient, caught: pytest.ExceptionInfo[ConnectionClosed]) -> int | None:
    return caught.value.rcvd.code if caught.value.rcvd else None


#: The last event of its kind that must, or must not, have come before the end.
_REACHED = {
    Phase.DURING_GREETING: ("response.output_audio.delta", "response.done"),
    Phase.CALLER_SPEAKING: ("input_audio_buffer.speech_started", "response.function_call"),
    Phase.AGENT_SPEAKING: ("input_audio_buffer.committed", "response.function_call"),
    Phase.TOOL_RUNNING: ("response.function_call_arguments.done", "nothing"),
    Phase.AT_HANG_UP: ("response.function_call_arguments.done", "nothing"),
}


@pytest.mark.parametrize("phase", _REACHED)
@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault.OPENAI_CLOSES, 1011), (Fault.OPENAI_DROPS, None), (Fault.OPENAI_EXPIRES, 1001)],
)
def test_a_connection_is_lost_in_the_phase_that_was_asked_for(
    sandbox: Sandbox, fault: Fault, code: int | None, phase: Phase
) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Wish(fault, phase)) as client:
            with pytest.raises((ConnectionClosed, AssertionError)) as caught:
                await converse(client)
            if isinstance(caught.value, AssertionError):  # session_expired, told before the close
                with pytest.raises(ConnectionClosed) as caught:
                    await client.next()
            assert lost(client, caught) == code
            kinds = {event["type"] for event in client.events}
            before, after = _REACHED[phase]
            # A connection that is dropped may take with it what was sent just before.
            assert before in kinds or fault is Fault.OPENAI_DROPS
            assert not any(kind.startswith(after) for kind in kinds)

    asyncio.run(scenario())


def test_before_the_greeting_not_even_session_created_comes(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        wish = Wish.parse("openai-drops@before-greeting")
        async with session(sandbox, fault=wish, created=False) as client:
            with pytest.raises(ConnectionClosed):
                await client.next()

    asyncio.run(scenario())


def test_what_strikes_once_leaves_the_next_connection_of_the_call_alone(sandbox: Sandbox) -> None:
    async def scenario(call: str, text: str) -> int:
        met = 0
        for _ in range(2):
            async with session(sandbox, fault=Wish.parse(text), call=call) as client:
                try:
                    await client.greet()
                    await client.greet()
                except ConnectionClosed:
                    met += 1
        return met

    assert asyncio.run(scenario("call-once", "openai-closes")) == 1
    assert asyncio.run(scenario("call-always", "openai-closes!")) == 2
    url = f"{sandbox.url}/sandbox/strikes"
    told = httpx.get(url, params={"call": "call-always"}, trust_env=False).json()
    assert told == {"struck": {"openai-closes!": 2}, "cut": True}
    assert httpx.get(url, params={"call": "nobody"}, trust_env=False).json() is None


def test_a_model_that_goes_away_in_mid_call_stays_away(sandbox: Sandbox) -> None:
    wish = Wish.parse("openai-quota@agent-speaking")

    async def scenario() -> None:
        async with session(sandbox, fault=wish, call="call-away") as client:
            await client.greet()
            with pytest.raises(ConnectionClosed):
                await client.greet()
        for _ in range(2):
            with pytest.raises(InvalidStatus) as refused:
                async with session(sandbox, fault=wish, call="call-away"):
                    pass
            assert refused.value.response.status_code == 429
        async with session(sandbox, fault=wish, call="another-call") as client:
            await client.greet()

    asyncio.run(scenario())


def test_a_frozen_connection_takes_everything_and_answers_pings(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_FREEZES) as client:
            await client.greet()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await client.greet()
            await client.send("session.update", session={"type": "realtime"})
            async with asyncio.timeout(PATIENCE_S):
                await (await client._socket.ping())
            assert client.events[-1]["type"] == "response.output_audio.delta"

    asyncio.run(scenario())


def test_a_deaf_model_answers_what_it_is_asked_but_tells_of_no_speech(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Wish.parse("openai-deaf@before-greeting")) as client:
            await client.configure(**LISTENING)
            await client.say(BY_KEY["yes"].text)
            await client.greet()
            assert not [e for e in client.events if e["type"].startswith("input_audio_buffer")]

    asyncio.run(scenario())


def test_deaf_from_the_callers_first_words_on_it_never_tells_of_their_end(
    sandbox: Sandbox,
) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_DEAF) as client:
            await client.configure(**LISTENING)
            speech = await asyncio.to_thread(_speech)
            await client.append(speech + bytes(96_000))
            await client.greet()
            assert client.of("input_audio_buffer.speech_started")
            assert not client.of("input_audio_buffer.speech_stopped")

    asyncio.run(scenario())


def _speech() -> bytes:
    return synthesise(BY_KEY["yes"].text, 24000, voice=CALLER)


def test_a_slow_answer_comes_whole_and_in_order(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Wish.parse("openai-slow@agent-speaking")) as client:
            await client.greet()
            done = await client.greet("One sentence. And another one.")
            spoken = "".join(
                event["delta"]
                for event in client.of("response.output_audio_transcript.delta")
                if event["response_id"] == done["id"]
            )
            assert spoken == "One sentence. And another one."
            assert done["status"] == "completed"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault.OPENAI_SERVER_ERROR, "server_error", None),
        (Fault.OPENAI_RATE_LIMIT, "rate_limit_error", "rate_limit_exceeded"),
        (Fault.OPENAI_INVALID, "invalid_request_error", "invalid_value"),
        (Fault.OPENAI_UNKNOWN_ERROR, "strange_error", "flux_capacitor"),
    ],
)
def test_an_error_event_comes_instead_of_one_response(
    sandbox: Sandbox, fault: Fault, kind: str, code: str | None
) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=fault) as client:
            await client.greet()
            await client.send("response.create", event_id="rc_2")
            error = (await client.until("error"))["error"]
            assert (error["type"], error["code"], error["event_id"]) == (kind, code, "rc_2")
            assert len(client.of("response.created")) == 1
            assert (await client.greet())["status"] == "completed"

    asyncio.run(scenario())


def test_digital_silence_is_sent_where_speech_was_wanted_once(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_SILENT) as client:
            loud = []
            for _ in range(3):
                done = await client.greet()
                deltas = [
                    base64.b64decode(event["delta"])
                    for event in client.of("response.output_audio.delta")
                    if event["response_id"] == done["id"]
                ]
                assert len(deltas) > 2
                loud.append(any(any(delta) for delta in deltas))
            assert loud == [True, False, True]

    asyncio.run(scenario())


def test_text_is_sent_where_speech_was_wanted_once(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_TEXT) as client:
            kinds = [(await client.greet())["output"][0]["content"][0]["type"] for _ in range(3)]
            assert kinds == ["output_audio", "output_text", "output_audio"]

    asyncio.run(scenario())


def test_an_incomplete_response_ends_in_mid_sentence(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_INCOMPLETE) as client:
            await client.greet()
            done = await client.greet("This is a sentence that is never said to its end.")
            assert done["status"] == "incomplete"
            assert done["status_details"]["reason"] == "max_output_tokens"
            said = done["output"][0]["content"][0]["transcript"]
            assert said.startswith("This is a")
            assert not said.endswith("end.")

    asyncio.run(scenario())


def test_a_tool_call_that_is_begun_and_never_completed_can_be_cancelled(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_TOOL_HANGS) as client:
            await client.configure(**LISTENING)
            choice = {"type": "function", "name": "end_call"}
            await client.send("response.create", response={"tool_choice": choice})
            await client.until("conversation.item.added")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.next()
            assert not client.of("response.function_call_arguments.done")
            await client.send("response.cancel")
            done = (await client.until("response.done"))["response"]
            assert done["status"] == "cancelled"
            assert done["output"][0]["status"] == "incomplete"

    asyncio.run(scenario())


def test_garbage_begins_in_its_phase(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        wish = Wish.parse("openai-garbage@agent-speaking")
        async with session(sandbox, fault=wish, judged=False) as client:
            await client.greet()
            assert "response.hologram.delta" not in client.order()
            await client.send("response.create", response={"instructions": f"Say exactly: {LONG}"})
            seen: list[str] = []
            while "response.done" not in seen:
                async with asyncio.timeout(PATIENCE_S):
                    message = await client._socket.recv()
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    seen.append(json.loads(message)["type"])
            assert "response.hologram.delta" in seen

    asyncio.run(scenario())


# --- what a client does that came back ---


def test_a_conversation_is_replayed_in_words_and_goes_on(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(**LISTENING)
            call = {"type": "function_call", "name": "end_call", "arguments": "{}", "call_id": "c1"}
            replayed = [
                agent_said("Hello, how can I help you?", id="r_1"),
                user_said("Is there somewhere to park?"),
                agent_said("Yes, there", status="incomplete"),
                call,
                {"type": "function_call_output", "call_id": "c1", "output": "{}"},
            ]
            for item in replayed:
                await client.send("conversation.item.create", item=item)
                await client.until("conversation.item.done")
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["transcript"] == AFTER_TOOL

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (ASSISTANT | {"content": [{"type": "output_audio", "audio": ""}]}, "item.content[0].type"),
        (ASSISTANT | {"content": [{"type": "input_text", "text": "x"}]}, "item.content[0].type"),
        (USER | {"content": [{"type": "output_text", "text": "x"}]}, "item.content[0].type"),
        ({"type": "function_call", "name": "f", "call_id": "c"}, "item.arguments"),
        ({"type": "function_call_output", "call_id": "c", "output": "x"}, "item.call_id"),
        (agent_said("x", id="i" * 33), "item.id"),
        (agent_said("x", phase="final"), "item.phase"),
    ],
)
def test_a_replay_is_read_strictly(sandbox: Sandbox, item: dict[str, Any], param: str) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.send("conversation.item.create", item=item, event_id="ic_1")
            error = (await client.until("error"))["error"]
            assert (error["param"], error["event_id"]) == (param, "ic_1")
            assert not client.of("conversation.item.added")

    asyncio.run(scenario())


def test_a_greeting_told_as_an_item_may_be_replaced_by_what_was_heard_of_it(
    sandbox: Sandbox,
) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.send("conversation.item.create", item=agent_said("Hello you.", id="g_1"))
            await client.until("conversation.item.done")
            # What another voice spoke has no audio that could be cut.
            cut = {"item_id": "g_1", "content_index": 0, "audio_end_ms": 10}
            await client.send("conversation.item.truncate", **cut)
            assert (await client.until("error"))["error"]["param"] == "content_index"
            await client.send("conversation.item.delete", item_id="g_1")
            await client.until("conversation.item.deleted")
            heard = agent_said("Hello", id="g_2")
            await client.send("conversation.item.create", item=heard, previous_item_id="root")
            added = await client.until("conversation.item.added")
            assert (added["item"]["id"], added["previous_item_id"]) == ("g_2", None)

    asyncio.run(scenario())


def test_a_greeting_in_another_voice_is_a_greeting_to_strike_into(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        wish = Wish.parse("openai-drops@during-greeting")
        async with session(sandbox, fault=wish) as client:
            await client.send("conversation.item.create", item=agent_said("Hello you."))
            with pytest.raises(ConnectionClosed):
                while True:
                    await client.next()
            assert client.of("conversation.item.done")

    asyncio.run(scenario())


def test_a_session_of_words_takes_a_voice_in_mid_call_but_no_other_one_later(
    sandbox: Sandbox,
) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(output_modalities=["text"])
            await client.greet()
            output = {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "cedar"}
            conf = await client.configure(
                output_modalities=["audio"], audio={"output": output | {"speed": 1.1}}
            )
            assert conf["output_modalities"] == ["audio"]
            assert conf["audio"]["output"] == output | {"speed": 1.1}
            spoken = await client.greet()
            assert spoken["output"][0]["content"][0]["type"] == "output_audio"
            update = {"type": "realtime", "audio": {"output": {"voice": "marin"}}}
            await client.send("session.update", session=update)
            assert (await client.until("error"))["error"]["code"] == "cannot_update_voice"

    asyncio.run(scenario())


# --- the other suppliers, by the phase that the call is in ---


def test_speech_synthesis_fails_once_the_caller_has_been_heard() -> None:
    wish = "tts-refused@agent-speaking"

    async def scenario() -> list[int]:
        with serve(tempo=QUICK) as own:
            headers = {
                "Authorization": "Bearer k",
                "X-Sandbox-Fault": wish,
                "X-Sandbox-Call": "call-tts",
            }

            async def speak() -> int:
                async with httpx.AsyncClient(trust_env=False) as http:
                    url = f"{own.speechmatics_tts_url}/sarah"
                    return (await http.post(url, headers=headers, json={"text": "Hi"})).status_code

            statuses = [await speak()]
            async with session(own, fault=Wish.parse(wish), call="call-tts") as client:
                await client.configure(**LISTENING)
                await client.say(BY_KEY["yes"].text)
                await client.until("response.done")
            return [*statuses, await speak()]

    assert asyncio.run(scenario()) == [200, 503]
