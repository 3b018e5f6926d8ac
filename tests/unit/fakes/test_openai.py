from __future__ import annotations

import asyncio
import base64
import json
from collections import deque

import pytest
from websockets.exceptions import ConnectionClosed

from tests.fakes.openai import FakeOpenAI, RealtimeConnection, Reply, Script
from tests.fakes.pattern import caller_frame, decode
from tests.unit.fakes.realtime_client import Client, play

SILENCE = base64.b64encode(b"\0\0" * 2400).decode()


def test_a_greeting_is_said_exactly_and_in_the_documented_order() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.until("session.created")
        await client.configure(instructions="Be kind.")
        await client.send(
            "response.create", response={"instructions": "Be kind. Say exactly: Good morning."}
        )
        done = await client.until("response.done")
        (item,) = done["response"]["output"]
        assert item["content"][0]["transcript"] == "Good morning."
        # Words and audio are interleaved: which of the two comes first means nothing.
        order = list(dict.fromkeys(client.types()))
        order.remove("response.output_audio_transcript.delta")
        assert order == [
            "session.created",
            "session.updated",
            "response.created",
            "rate_limits.updated",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]

    assert play(scene).violations == []


def test_ten_seconds_of_a_voice_come_in_a_burst_and_name_every_moment() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.done")
        pcm = b"".join(
            base64.b64decode(event["delta"])
            for event in client.events
            if event["type"] == "response.output_audio.delta"
        )
        assert len(pcm) == 480_000
        heard = decode(pcm[240_000:240_960], 24_000)
        assert heard is not None
        assert (heard.voice, round(heard.position_ms, -1)) == (conn.spoken[0].voice, 5010)
        assert conn.spoken[0].audio_ms == 10_000

    openai = play(scene, Script(otherwise=Reply(audio_ms=10_000)))
    sent = [s for s in openai.connections[0].sent if s.type == "response.output_audio.delta"]
    assert sent[-1].at_s - sent[0].at_s < 10  # faster than it is played, on any machine


def test_in_text_mode_the_words_come_one_by_one() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure(output_modalities=["text"])
        await client.send("response.create")
        await client.until("response.done")
        deltas = [e["delta"] for e in client.events if e["type"] == "response.output_text.delta"]
        assert deltas == ["One", " two", " three."]

    assert play(scene, Script(otherwise=Reply(text="One two three."))).violations == []


def test_audio_or_a_greeting_before_the_session_is_ready_is_a_violation() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.send("input_audio_buffer.append", audio=SILENCE)
        await client.send("response.create")
        await client.until("response.done")

    assert play(scene).violations == [
        "connection 0: input_audio_buffer.append before session.updated",
        "connection 0: response.create before session.updated",
    ]


def test_an_unknown_field_refuses_the_whole_update() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.send(
            "session.update", event_id="u1", session={"type": "realtime", "voice": "marin"}
        )
        error = (await client.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("unknown_parameter", "u1")
        assert not conn.configured

    assert "unknown field $.session.voice" in play(scene).violations[0]


def test_the_session_is_merged_and_the_voice_is_locked_once_used() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure(audio={"output": {"voice": "marin"}})
        await client.configure(audio={"input": {"turn_detection": None}})
        assert conn.session["audio"]["output"]["voice"] == "marin"
        assert conn.session["audio"]["input"]["turn_detection"] is None
        await client.send("response.create")
        await client.until("response.done")
        changed = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
        await client.send("session.update", session=changed)
        assert (await client.until("error"))["error"]["code"] == "cannot_update_voice"

    assert play(scene).violations == []


def test_a_second_response_at_once_is_refused_and_counted() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.send("response.create")
        code = (await client.until("error"))["error"]["code"]
        assert code == "conversation_already_has_active_response"
        await client.until("response.done")
        out_of_band = {"conversation": "none", "output_modalities": ["text"]}
        await client.send("response.create", response=out_of_band)
        await client.send("response.create")
        await client.until("response.done")
        await client.until("response.done")
        assert conn.errors == {"conversation_already_has_active_response": 1}

    play(scene)


def test_a_cancel_without_a_response_is_refused_and_counted() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.cancel")
        assert (await client.until("error"))["error"]["code"] == "response_cancel_not_active"
        assert conn.errors["response_cancel_not_active"] == 1

    play(scene)


def test_a_cancel_ends_the_response_after_a_few_late_deltas() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.send("response.cancel", response_id=conn.active.id if conn.active else "")
        done = await client.until("response.done")
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        assert conn.spoken[0].audio_ms < 10_000

    play(scene, Script(otherwise=Reply(audio_ms=10_000, burst_ms=5000)))


def test_truncating_beyond_what_was_sent_is_refused_and_counted() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.done")
        item = {"item_id": conn.spoken[0].id, "content_index": 0}
        await client.send("conversation.item.truncate", **item, audio_end_ms=1001)
        error = (await client.until("error"))["error"]
        assert error["message"] == "Audio content of 1000ms is already shorter than 1001ms"
        await client.send("conversation.item.truncate", **item, audio_end_ms=400)
        await client.until("conversation.item.truncated")
        assert [(t.audio_end_ms, t.sent_ms) for t in conn.truncations] == [(400, 1000)]
        await client.send("conversation.item.delete", item_id=item["item_id"])
        await client.until("conversation.item.deleted")
        await client.send("conversation.item.delete", item_id=item["item_id"])
        assert (await client.until("error"))["error"]["code"] == "item_delete_invalid_item_id"

    play(scene, Script(otherwise=Reply(audio_ms=1000)))


def test_speech_interrupts_a_response_and_a_turn_is_answered() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await conn.speech_started()
        done = await client.until("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        item_id = await conn.caller_said("Stop, please.")
        heard = await client.until("conversation.item.input_audio_transcription.completed")
        assert (heard["item_id"], heard["transcript"]) == (item_id, "Stop, please.")
        await client.until("response.done")

    long, short = Reply(audio_ms=9000, burst_ms=5000), Reply(audio_ms=400)
    play(scene, Script(replies=deque([long]), otherwise=short))


def test_a_late_transcription_comes_after_the_answer() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        await conn.caller_said("First.")
        await client.until("conversation.item.input_audio_transcription.completed")
        assert "response.done" in client.types()

    play(scene, Script(transcription_delay_s=1.0, otherwise=Reply(audio_ms=200, burst_ms=0)))


def test_a_tool_call_must_be_answered_exactly_once() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        call_id = await conn.call_tool("lookup", {"number": "12"})
        done = await client.until("response.done")
        (call,) = done["response"]["output"]
        assert (call["call_id"], json.loads(call["arguments"])) == (call_id, {"number": "12"})
        assert conn.conversation.unanswered == [call_id]
        output = {"type": "function_call_output", "call_id": call_id, "output": "sent"}
        await client.send("conversation.item.create", item=output)
        assert await conn.tool_output(call_id) == "sent"
        await client.send("conversation.item.create", item=output)
        await client.send("conversation.item.create", item={**output, "call_id": "call_x"})
        await client.until("conversation.item.done")
        await client.until("conversation.item.done")
        await client.until("conversation.item.done")

    violations = play(scene).violations
    assert [text.split(": ")[1][:6] for text in violations] == ["second", "functi"]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(status="failed", code="rate_limit_exceeded"), "failed"),
        (Reply(status="incomplete"), "incomplete"),
    ],
)
def test_a_response_can_fail_or_stay_incomplete(reply: Reply, status: str) -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        assert (await client.until("response.done"))["response"]["status"] == status

    play(scene, Script(otherwise=reply))


def test_a_stalled_response_stays_active_until_it_is_cancelled() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.output_item.done")
        assert conn.active is not None
        await client.send("response.cancel")
        await client.until("response.done")

    play(scene, Script(otherwise=Reply(stall=True)))


def test_unknown_events_and_garbage_can_be_sprinkled() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.done")
        assert "response.telepathy.delta" in client.types()
        await conn.send_raw("{not json")
        assert await client.socket.recv() == "{not json"

    play(scene, Script(unknown_events=True))


def test_binary_frames_and_text_that_is_no_json_are_violations() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.socket.send(b"\0\0")
        await client.socket.send("{")
        await client.configure()

    assert len(play(scene).violations) == 2


def test_the_callers_tone_is_recognised_and_its_length_counted() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        for _ in range(10):
            audio = base64.b64encode(caller_frame(9, 24_000)).decode()
            await client.send("input_audio_buffer.append", audio=audio)
        assert await openai.connection_of(9) is conn
        assert conn.audio_in_ms == pytest.approx(200)

    assert play(scene).violations == []


@pytest.mark.parametrize("code", [1001, 1011, 4000])
def test_it_closes_with_any_code(code: int) -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.until("session.created")
        await conn.close(code)
        with pytest.raises(ConnectionClosed) as closed:
            await client.socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code

    play(scene)


def test_an_error_may_follow_the_handshake() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        error = await client.until("error")
        assert error["error"]["code"] == "insufficient_quota"
        with pytest.raises(ConnectionClosed):
            await client.socket.recv()

    play(scene, Script(error_then_close=("insufficient_quota", 1011)))


def test_a_hanging_server_says_nothing_but_answers_pings() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.send("session.update", session={"type": "realtime"})
        await asyncio.wait_for(await client.socket.ping(), 5)
        assert conn.sent == []

    play(scene, Script(hang=True))


def test_an_expired_session_says_so_and_goes_away() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        assert (await client.until("error"))["error"]["code"] == "session_expired"

    play(scene, Script(expires_in_s=0.01))


def test_a_client_that_vanishes_leaves_no_connection_behind() -> None:
    async def scene(openai: FakeOpenAI, conn: RealtimeConnection, client: Client) -> None:
        await client.configure()
        await client.send("response.create")
        await client.until("response.created")
        client.socket.transport.abort()
        await conn.wait_closed()
        assert conn.close_code == 1006

    play(scene, Script(otherwise=Reply(audio_ms=10_000, burst_ms=5000)))
