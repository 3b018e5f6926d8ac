"""Conversations over the real socket; the oracle judges every event on the way."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from sessions_app.sandbox.conf import Tempo
from sessions_app.sandbox.faults import Fault
from sessions_app.sandbox.samples import BY_KEY, OPENING, STILL_THERE, TAKEN_UP
from sessions_app.sandbox.server import Sandbox, serve
from tests.unit.sandbox.realtime_client import RealtimeClient, session

END_CALL = {
    "type": "function",
    "name": "end_call",
    "description": "Ends the call.",
    "parameters": {"type": "object", "properties": {"reason": {"type": "string"}}},
}
VAD = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 500}


def listening(**turn_detection: Any) -> dict[str, Any]:
    transcription = {"model": "gpt-transcribe", "languages": ["en"]}
    return {
        "audio": {
            "input": {"turn_detection": VAD | turn_detection, "transcription": transcription},
            "output": {"voice": "marin"},
        }
    }


def audio_ms(client: RealtimeClient, item_id: str) -> int:
    deltas = [e for e in client.of("response.output_audio.delta") if e["item_id"] == item_id]
    return sum(len(base64.b64decode(e["delta"])) for e in deltas) * 1000 // 48000


def test_a_greeting_is_spoken_word_for_word_in_the_documented_order(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(**listening())
            done = await client.greet("Bonjour and welcome. How may I help you?")
            item = done["output"][0]
            spoken_ms = audio_ms(client, item["id"])
            assert item["content"][0]["transcript"] == "Bonjour and welcome. How may I help you?"
            assert spoken_ms > 2000
            transcript = client.of("response.output_audio_transcript.delta")
            assert "".join(e["delta"] for e in transcript) == item["content"][0]["transcript"]
            assert client.order()[2:9] == [
                "response.created",
                "rate_limits.updated",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_audio_transcript.delta",
                "response.output_audio.delta",
            ]
            assert [e["type"] for e in client.events[-6:]] == [
                "response.output_audio.done",
                "response.output_audio_transcript.done",
                "response.content_part.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]

    asyncio.run(scenario())


def test_a_long_answer_arrives_long_before_it_could_be_heard(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            began = time.monotonic()
            done = await client.greet(LONG)
            assert audio_ms(client, done["output"][0]["id"]) > 15_000
            assert time.monotonic() - began < 10

    asyncio.run(scenario())


def test_a_response_echoes_metadata_and_counts_tokens(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            metadata = {"purpose": "greeting", "client_event_id": "rc_1"}
            await client.send("response.create", response={"metadata": metadata})
            response = (await client.until("response.done"))["response"]
            assert response["metadata"] == metadata
            assert response["output"][0]["content"][0]["transcript"] == OPENING
            usage = response["usage"]
            spoken = audio_ms(client, response["output"][0]["id"])
            details = usage["output_token_details"]
            assert details["audio_tokens"] == pytest.approx(spoken / 50, abs=2)
            assert usage["output_tokens"] == details["audio_tokens"] + details["text_tokens"]
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    asyncio.run(scenario())


def test_a_spoken_turn_is_heard_answered_and_transcribed(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(**listening())
            greeting = (await client.greet())["output"][0]["id"]
            await client.say(BY_KEY["hours"].text)
            started = await client.until("input_audio_buffer.speech_started")
            stopped = await client.until("input_audio_buffer.speech_stopped")
            committed = await client.until("input_audio_buffer.committed")
            assert started["item_id"] == stopped["item_id"] == committed["item_id"]
            assert committed["previous_item_id"] == greeting
            assert started["audio_start_ms"] < stopped["audio_end_ms"]
            added = await client.until("conversation.item.added")
            assert added["item"]["content"][0]["type"] == "input_audio"
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["transcript"] == BY_KEY["hours"].reply
            answers = [e for e in client.of("conversation.item.added") if e is not added]
            assert answers[-1]["previous_item_id"] == committed["item_id"]
            completed = client.of("conversation.item.input_audio_transcription.completed")
            assert [e["transcript"] for e in completed] == [BY_KEY["hours"].text]
            assert completed[0]["usage"]["input_token_details"]["audio_tokens"] > 20
            cached = done["usage"]["input_token_details"]["cached_tokens"]
            assert 0 < cached < done["usage"]["input_tokens"]

    asyncio.run(scenario())


def test_a_transcript_may_come_after_the_answer_has_begun(sandbox: Sandbox) -> None:
    completed = "conversation.item.input_audio_transcription.completed"

    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(**listening())
            for key in ("yes", "parking"):
                await client.say(BY_KEY[key].text)
                await client.until("response.done")
            while len(client.of(completed)) < 2:
                await client.next()
            kinds = [e["type"] for e in client.events]
            second_answer = len(kinds) - 1 - kinds[::-1].index("response.created")
            assert kinds[second_answer:].count(completed) == 1

    asyncio.run(scenario())


def test_speech_interrupts_the_response_that_is_running() -> None:
    async def scenario(slow: Sandbox) -> None:
        async with session(slow) as client:
            await client.configure(**listening())
            await client.send("response.create", response={"instructions": f"Say exactly: {LONG}"})
            await client.until("response.output_audio.delta")
            await client.append(b"\x00\x10\x00\xf0" * 6000)
            cancelled = (await client.until("response.done"))["response"]
            assert client.of("input_audio_buffer.speech_started")
            assert cancelled["status"] == "cancelled"
            assert cancelled["status_details"]["reason"] == "turn_detected"
            assert cancelled["output"][0]["status"] == "incomplete"
            assert len(cancelled["output"][0]["content"][0]["transcript"]) < len(LONG)
            assert cancelled["usage"]["output_tokens"] > 0

    with serve(tempo=Tempo(thinking_s=0.0, burst=2.0)) as slow:
        asyncio.run(scenario(slow))


LONG = BY_KEY["order"].reply


def test_without_interrupt_response_speech_leaves_the_answer_alone_and_a_second_one_fails() -> None:
    async def scenario(slow: Sandbox) -> None:
        async with session(slow) as client:
            await client.configure(**listening(interrupt_response=False))
            await client.send("response.create", response={"instructions": f"Say exactly: {LONG}"})
            await client.until("response.output_audio.delta")
            await client.say(BY_KEY["yes"].text)
            error = (await client.until("error"))["error"]
            assert error["code"] == "conversation_already_has_active_response"
            done = (await client.until("response.done"))["response"]
            assert done["status"] == "completed"

    with serve(tempo=Tempo(thinking_s=0.0, burst=8.0)) as slow:
        asyncio.run(scenario(slow))


def test_without_create_response_a_turn_is_only_committed(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(**listening(create_response=False))
            await client.say(BY_KEY["yes"].text)
            await client.until("conversation.item.done")
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["transcript"] == BY_KEY["yes"].reply
            assert len(client.of("response.created")) == 1

    asyncio.run(scenario())


def test_goodbye_is_said_and_end_call_called_if_the_session_has_it(sandbox: Sandbox) -> None:
    async def scenario(tools: list[Any]) -> list[dict[str, Any]]:
        async with session(sandbox) as client:
            await client.configure(tools=tools, **listening())
            await client.say(BY_KEY["goodbye"].text)
            output = (await client.until("response.done"))["response"]["output"]
            if tools:
                arguments = client.of("response.function_call_arguments.done")[0]
                deltas = client.of("response.function_call_arguments.delta")
                assert "".join(e["delta"] for e in deltas) == arguments["arguments"]
                assert arguments["name"] == "end_call"
            return output

    said, call = asyncio.run(scenario([END_CALL]))
    assert said["content"][0]["transcript"] == BY_KEY["goodbye"].reply
    assert (call["type"], call["status"]) == ("function_call", "completed")
    assert set(json.loads(call["arguments"])) == {"reason"}
    assert len(asyncio.run(scenario([]))) == 1


def test_a_tool_output_is_taken_once_known_and_answered_in_words(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(tools=[END_CALL], output_modalities=["text"])
            wanted = {"type": "function", "name": "end_call"}
            await client.send("response.create", response={"tool_choice": wanted})
            call = (await client.until("response.done"))["response"]["output"][0]
            output = {"type": "function_call_output", "call_id": "call_other", "output": "{}"}
            await client.send("conversation.item.create", item=output, event_id="wrong")
            error = (await client.until("error"))["error"]
            assert (error["code"], error["event_id"]) == ("invalid_tool_call_id", "wrong")
            output["call_id"] = call["call_id"]
            await client.send("conversation.item.create", item=output)
            await client.until("conversation.item.done")
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["type"] == "output_text"

    asyncio.run(scenario())


def test_what_the_system_says_is_taken_up_once_with_the_next_answer(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(output_modalities=["text"])
            for role, text in (("user", "Hello?"), ("system", "Do this.\nOffer a refund.")):
                content = [{"type": "input_text", "text": text}]
                item = {"type": "message", "role": role, "content": content}
                await client.send("conversation.item.create", item=item)
            said = []
            for _ in range(2):
                await client.send("response.create")
                done = (await client.until("response.done"))["response"]
                said.append(done["output"][0]["content"][0]["text"])
            assert said[0] == TAKEN_UP.format("Offer a refund.")
            assert "refund" not in said[1]

    asyncio.run(scenario())


def test_in_text_the_words_come_one_by_one(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(output_modalities=["text"])
            await client.greet("Good morning to you.")
            deltas = [e["delta"] for e in client.of("response.output_text.delta")]
            assert deltas == ["Good", " morning", " to", " you."]
            assert client.of("response.output_text.done")[0]["text"] == "Good morning to you."
            assert not client.of("response.output_audio.delta")

    asyncio.run(scenario())


def test_there_is_one_response_at_a_time_but_others_out_of_band() -> None:
    async def scenario(slow: Sandbox) -> None:
        async with session(slow) as client:
            await client.send("response.create", response={"instructions": f"Say exactly: {LONG}"})
            await client.until("response.output_audio.delta")
            await client.send("response.create", event_id="second")
            error = (await client.until("error"))["error"]
            assert error["code"] == "conversation_already_has_active_response"
            assert error["event_id"] == "second"
            aside = {"conversation": "none", "output_modalities": ["text"], "input": []}
            await client.send("response.create", response=aside)
            done = (await client.until("response.done"))["response"]
            assert done["conversation_id"] is None
            assert done["status"] == "completed"
            await client.send("response.cancel")
            done = (await client.until("response.done"))["response"]
            assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
            await client.send("response.cancel", event_id="late")
            assert (await client.until("error"))["error"]["code"] == "response_cancel_not_active"

    with serve(tempo=Tempo(thinking_s=0.0, burst=1.0)) as slow:
        asyncio.run(scenario(slow))


def test_an_item_can_be_cut_only_to_what_it_has(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            item_id = (await client.greet())["output"][0]["id"]
            length_ms = audio_ms(client, item_id)

            async def cut(to_ms: int, wanted: str, item: str = item_id) -> dict[str, Any]:
                await client.send(
                    "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=to_ms
                )
                return await client.until(wanted)

            error = (await cut(length_ms + 500, "error"))["error"]
            wanted = f"Audio content of {length_ms}ms is already shorter than {length_ms + 500}ms"
            assert error["message"] == wanted
            assert (await cut(700, "conversation.item.truncated"))["audio_end_ms"] == 700
            assert (await cut(701, "error"))["error"]["message"].startswith("Audio content of 700")
            error = (await cut(1, "error", "item_unknown"))["error"]
            assert error["code"] == "item_truncate_invalid_item_id"
            await client.send("conversation.item.retrieve", item_id=item_id)
            item = (await client.until("conversation.item.retrieved"))["item"]
            assert "transcript" not in item["content"][0]

    asyncio.run(scenario())


def test_items_are_created_in_place_deleted_and_missed(sandbox: Sandbox) -> None:
    def message(item_id: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": "[DTMF] 4"}]
        return {"id": item_id, "type": "message", "role": "user", "content": content}

    async def scenario() -> None:
        async with session(sandbox) as client:
            previous = []
            for item_id, after in (("b", None), ("c", None), ("a", "root"), ("b2", "b")):
                where = {} if after is None else {"previous_item_id": after}
                await client.send("conversation.item.create", item=message(item_id), **where)
                previous.append((await client.until("conversation.item.done"))["previous_item_id"])
            assert previous == [None, "b", None, "b"]
            for kind, fields, code in (
                ("create", {"item": message("b")}, "item_create_duplicate_item_id"),
                (
                    "create",
                    {"item": message("d"), "previous_item_id": "x"},
                    "item_create_invalid_previous_item_id",
                ),
                ("create", {"item": message("x" * 33)}, "string_above_max_length"),
                ("delete", {"item_id": "x"}, "item_delete_invalid_item_id"),
                ("retrieve", {"item_id": "x"}, "item_retrieve_invalid_item_id"),
            ):
                await client.send(f"conversation.item.{kind}", **fields)
                assert (await client.until("error"))["error"]["code"] == code
            await client.send("conversation.item.delete", item_id="b")
            assert (await client.until("conversation.item.deleted"))["item_id"] == "b"

    asyncio.run(scenario())


def test_a_refused_update_changes_nothing_and_names_the_event(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            update = {"type": "realtime", "instructions": "new", "temperature": 1}
            await client.send("session.update", session=update, event_id="su_1")
            error = (await client.until("error"))["error"]
            assert error["event_id"] == "su_1"
            assert error["param"] == "session.temperature"
            assert (await client.configure())["instructions"] != "new"

    asyncio.run(scenario())


def test_without_turn_detection_the_client_commits_and_needs_a_tenth_of_a_second(
    sandbox: Sandbox,
) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(audio={"input": {"turn_detection": None}})
            await client.append(bytes(4000))
            await client.send("input_audio_buffer.commit")
            error = (await client.until("error"))["error"]
            assert error["code"] == "input_audio_buffer_commit_empty"
            assert "buffer only has 83.33ms" in error["message"]
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.say(BY_KEY["yes"].text)
            await client.send("input_audio_buffer.commit")
            committed = await client.until("input_audio_buffer.committed")
            added = await client.until("conversation.item.added")
            assert added["item"]["id"] == committed["item_id"]
            assert not client.of("response.created")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", "invalid_event"),
        ("[]", "invalid_event"),
        ('{"event_id": "e"}', "invalid_event"),
        ('{"type": "session.destroy"}', "invalid_value"),
        ('{"type": "response.cancel", "reason": "x"}', "unknown_parameter"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter"),
        ('{"type": "input_audio_buffer.append", "audio": "***"}', "invalid_value"),
        ('{"type": "output_audio_buffer.clear"}', "invalid_event"),
        (b"\x00\x01", "invalid_event"),
    ],
)
def test_a_wrong_event_is_answered_and_the_session_goes_on(
    sandbox: Sandbox, message: str | bytes, code: str
) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            await client._socket.send(message)
            assert (await client.until("error"))["error"]["code"] == code
            await client.configure()

    asyncio.run(scenario())


def test_too_small_a_budget_ends_a_response_incomplete(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox) as client:
            request = {"instructions": f"Say exactly: {LONG}", "max_output_tokens": 40}
            await client.send("response.create", response=request)
            response = (await client.until("response.done"))["response"]
            assert response["status"] == "incomplete"
            assert response["status_details"]["reason"] == "max_output_tokens"

    asyncio.run(scenario())


def test_after_a_long_silence_the_model_asks_if_somebody_is_there(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def scenario() -> None:
        async with session(sandbox) as client:
            await client.configure(
                output_modalities=["text"],
                audio={"input": {"turn_detection": VAD | {"idle_timeout_ms": 5000}}},
            )
            await client.append(bytes(48000))
            await client.greet("Hi.")
            triggered = await client.until("input_audio_buffer.timeout_triggered")
            assert triggered["audio_end_ms"] == 1000
            await client.until("input_audio_buffer.committed")
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["text"] == STILL_THERE

    real_sleep = asyncio.sleep

    async def sleep(seconds: float, *rest: Any) -> None:
        slept.append(seconds)
        await real_sleep(0.05 if seconds == 5.0 else seconds, *rest)

    monkeypatch.setattr("sessions_app.sandbox.realtime_session.asyncio.sleep", sleep)
    asyncio.run(scenario())
    assert 5.0 in slept


def test_every_client_event_reaches_the_hook_with_the_name_of_its_call() -> None:
    seen: list[tuple[str, str]] = []

    async def scenario(hooked: Sandbox) -> None:
        async with session(hooked, call="call-7") as client:
            await client.configure()
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.configure()

    with serve(on_client_event=lambda call, event: seen.append((call, event["type"]))) as hooked:
        asyncio.run(scenario(hooked))
    assert seen[:2] == [("call-7", "session.update"), ("call-7", "input_audio_buffer.clear")]


# --- faults ---


def closing_code(caught: pytest.ExceptionInfo[ConnectionClosed]) -> int | None:
    return caught.value.rcvd.code if caught.value.rcvd else None


def test_openai_slow_is_late_with_its_first_event(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        began = time.monotonic()
        async with session(sandbox, fault=Fault.OPENAI_SLOW):
            assert time.monotonic() - began >= 0.3

    asyncio.run(scenario())


def test_openai_hangs_takes_everything_and_says_nothing(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_HANGS, created=False) as client:
            await client.send("session.update", session={"type": "realtime"})
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.next()

    asyncio.run(scenario())


def test_openai_closes_in_the_middle_of_the_second_response(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_CLOSES) as client:
            assert (await client.greet())["status"] == "completed"
            with pytest.raises(ConnectionClosed) as caught:
                await client.greet(LONG)
            assert closing_code(caught) == 1011
            assert client.events[-1]["type"] == "response.output_audio.delta"

    asyncio.run(scenario())


def test_openai_mute_answers_the_greeting_and_nothing_else(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_MUTE) as client:
            await client.configure(**listening())
            await client.greet()
            await client.say(BY_KEY["yes"].text)
            await client.until("conversation.item.input_audio_transcription.completed")
            await client.send("response.create")
            await client.configure()
            assert len(client.of("response.created")) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        (Fault.OPENAI_FAILS_ONCE, ["failed", "completed", "completed"]),
        (Fault.OPENAI_FAILS, ["failed", "failed", "failed"]),
    ],
)
def test_failed_responses_are_told_by_response_done(
    sandbox: Sandbox, fault: Fault, statuses: list[str]
) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=fault) as client:
            done = [await client.greet() for _ in statuses]
            assert [response["status"] for response in done] == statuses
            assert done[0]["status_details"]["error"]["code"] == "server_error"
            assert done[0]["usage"]["total_tokens"] == 0

    asyncio.run(scenario())


def test_openai_garbage_comes_among_events_that_are_all_there(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_GARBAGE, judged=False) as client:
            await client.send("response.create", response={"instructions": f"Say exactly: {LONG}"})
            good: list[str] = []
            bad = 0
            while not good or good[-1] != "response.done":
                async with asyncio.timeout(20):
                    message = await client._socket.recv()
                try:
                    event = json.loads(message)
                    good.append(event["type"])
                except (ValueError, TypeError, KeyError):
                    bad += 1
            assert bad >= 4
            assert "response.hologram.delta" in good

    asyncio.run(scenario())


def test_openai_expires_tells_it_and_closes(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.OPENAI_EXPIRES) as client:
            error = (await client.until("error"))["error"]
            assert error["code"] == "session_expired"
            with pytest.raises(ConnectionClosed) as caught:
                await client.next()
            assert closing_code(caught) == 1001

    asyncio.run(scenario())


def test_a_fault_of_another_piece_changes_nothing(sandbox: Sandbox) -> None:
    async def scenario() -> None:
        async with session(sandbox, fault=Fault.TTS_REFUSED) as client:
            assert (await client.greet())["status"] == "completed"

    asyncio.run(scenario())
