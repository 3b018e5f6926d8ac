"""What we send to OpenAI Realtime, judged by OpenAI's own types."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_app.core.agent import AgentProfile, TurnDetection, VoiceKind
from sessions_app.core.events import (
    AddAgentWords,
    AddCallerWords,
    AddToolCall,
    AddWhisper,
    AnswerTool,
    CancelResponse,
    ChangeVoice,
    CreateResponse,
    CutItem,
    ProviderCommand,
    Purpose,
)
from sessions_app.providers.base import ProviderSetup
from sessions_app.providers.openai.conversation import HEAD, Conversation
from sessions_app.providers.openai.wire import (
    VOICES,
    Encoder,
    audio_append,
    session_instructions,
    session_update,
)
from tests.unit.providers.oracle import check_client

MODELS = ["gpt-realtime-2.1", "gpt-realtime-2.1-mini", "gpt-realtime-2", "gpt-realtime"]
AGENT = AgentProfile(instructions="You sell flowers.")


def setup(*, text_only: bool = False, **agent: Any) -> ProviderSetup:
    return ProviderSetup("uuid-1", replace(AGENT, **agent), text_only)


def session(
    it: ProviderSetup, model: str = "gpt-realtime-2.1", transcription: str = "gpt-transcribe"
) -> dict[str, Any]:
    event = session_update(it, model=model, transcription_model=transcription, event_id="u")
    assert check_client(event)["event_id"] == "u"
    return dict(event["session"])


class Sender:
    """An encoder whose every event has passed the judge."""

    def __init__(self, *, text_only: bool = False) -> None:
        self.conversation = Conversation(text_only=text_only)
        self.encoder = Encoder(setup(text_only=text_only), self.conversation)

    def __call__(self, command: ProviderCommand) -> list[dict[str, Any]]:
        return [check_client(event) for event in self.encoder.encode(command)]

    def got_audio(self, item_id: str, audio_ms: int, *, done: bool = True) -> None:
        item = self.conversation.see(item_id, "resp")
        item.audio_bytes += audio_ms * 48
        item.done = done

    def got_text(self, item_id: str, *, after: str | None = HEAD) -> None:
        item = self.conversation.see(item_id, "resp")
        item.has_text = item.done = True
        item.previous = after


# --------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize("turn_detection", list(TurnDetection))
@pytest.mark.parametrize("transcription", ["gpt-transcribe", "whisper-1", "gpt-realtime-whisper"])
def test_every_configuration_is_one_that_openai_knows(
    model: str, text_only: bool, turn_detection: TurnDetection, transcription: str
) -> None:
    it = session(setup(text_only=text_only, turn_detection=turn_detection), model, transcription)

    assert it["type"] == "realtime"
    assert it["output_modalities"] == (["text"] if text_only else ["audio"])
    assert ("output" in it["audio"]) is not text_only


def test_every_field_of_the_voice_activity_detection_is_said() -> None:
    it = session(setup(vad_threshold=0.7, vad_prefix_ms=200, vad_silence_ms=600))

    assert it["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.7,
        "prefix_padding_ms": 200,
        "silence_duration_ms": 600,
        "create_response": True,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }


def test_the_other_settings_are_the_ones_decided() -> None:
    it = session(setup(voice="cedar"))

    pcm = {"type": "audio/pcm", "rate": 24000}
    assert it["audio"]["output"] == {"format": pcm, "voice": "cedar", "speed": 1.0}
    assert it["audio"]["input"]["format"] == pcm
    assert it["audio"]["input"]["noise_reduction"] == {"type": "near_field"}
    assert it["max_output_tokens"] == 2048
    assert it["truncation"] == {"type": "retention_ratio", "retention_ratio": 0.8}
    assert it["tracing"] is None
    assert it["tool_choice"] == "auto"
    assert [tool["name"] for tool in it["tools"]] == ["end_call"]
    assert it["tools"][0]["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-realtime-2", True),
        ("gpt-realtime-2.1", True),
        ("gpt-realtime-2.1-mini", True),
        ("gpt-realtime-2-2026-05-07", True),
        ("gpt-realtime", False),
        ("gpt-realtime-1.5", False),
        # It begins with the same letters, and would refuse the whole update.
        ("gpt-realtime-2025-08-28", False),
    ],
)
def test_only_reasoning_models_are_sent_what_others_refuse(model: str, reasons: bool) -> None:
    it = session(setup(), model)

    assert ("reasoning" in it) is reasons
    assert ("parallel_tool_calls" in it) is reasons


@pytest.mark.parametrize(
    ("model", "language", "wanted"),
    [
        ("gpt-transcribe", "en-GB", {"languages": ["en"]}),
        ("gpt-live-transcribe", "FR", {"languages": ["fr"]}),
        ("whisper-1", "de-CH", {"language": "de"}),
        # No two-letter code: one unknown value would cost the whole configuration.
        ("gpt-transcribe", "fil-PH", {}),
        ("whisper-1", "", {}),
    ],
)
def test_the_language_is_told_to_the_transcription_in_its_own_way(
    model: str, language: str, wanted: dict[str, Any]
) -> None:
    it = session(setup(language=language), transcription=model)

    assert it["audio"]["input"]["transcription"] == {"model": model, **wanted}


def test_an_agent_of_another_voice_service_speaks_with_a_voice_openai_has() -> None:
    it = session(setup(voice_kind=VoiceKind.SPEECHMATICS, voice="sarah"))

    assert it["audio"]["output"]["voice"] in VOICES


def test_the_instructions_are_the_agents_own_and_the_house_rules() -> None:
    text = session_instructions(replace(AGENT, language="fr-FR"))

    assert text.startswith("You sell flowers.\n\n")
    assert "fr-FR" in text
    assert "end_call" in text


def test_a_response_is_not_limited_to_text_or_audio_by_one_agents_braces() -> None:
    assert session_instructions(replace(AGENT, instructions="{x}")).startswith("{x}\n")


# --------------------------------------------------------------------------- commands


def test_instructions_of_a_response_come_behind_those_of_the_session() -> None:
    send = Sender()

    [event] = send(CreateResponse("r1", Purpose.GREETING, "Say hello.", tools=False))

    assert event == {
        "type": "response.create",
        "event_id": "r1",
        "response": {
            "metadata": {"request_id": "r1", "purpose": "greeting"},
            "instructions": f"{session_instructions(AGENT)}\n\nSay hello.",
            "tool_choice": "none",
        },
    }


def test_a_plain_response_leaves_the_session_as_it_is() -> None:
    [event] = Sender()(CreateResponse("r2", Purpose.ANSWER))

    assert event["response"] == {"metadata": {"request_id": "r2", "purpose": "answer"}}


def test_the_small_commands_become_one_event_each() -> None:
    send = Sender()

    [cancel] = send(CancelResponse("resp_1"))
    [words] = send(AddCallerWords("[key 4]"))
    [whisper] = send(AddWhisper("Offer a refund."))
    [answer] = send(AnswerTool("call_1", '{"ok": true}'))
    [greeting] = send(AddAgentWords("greeting", "Hello."))

    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "resp_1")
    assert whisper["type"] == "conversation.item.create"
    assert whisper["item"] == {
        "type": "message",
        "role": "system",
        "content": [{"type": "input_text", "text": "Offer a refund."}],
    }
    assert words["item"] == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "[key 4]"}],
    }
    assert answer["item"] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"ok": true}',
    }
    assert greeting["item"] == {
        "id": "greeting",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello."}],
    }
    ids = [event["event_id"] for event in (cancel, words, answer, greeting)]
    assert len(set(ids)) == 4


def test_words_of_the_agent_keep_an_id_that_the_server_takes_and_can_be_cut_by_ours() -> None:
    send = Sender()
    long_id = "g" * 40

    [added] = send(AddAgentWords(long_id, "Hello there."))
    [deleted, again] = send(CutItem(long_id, 300, "Hello"))

    assert len(added["item"]["id"]) <= 32
    assert deleted["item_id"] == added["item"]["id"]
    assert again["item"]["content"][0]["text"] == "Hello"


# --------------------------------------------------------------------------- cutting audio


def test_audio_is_cut_at_what_was_heard() -> None:
    send = Sender()
    send.got_audio("a", 5000)

    [event] = send(CutItem("a", 1480, "Well, I"))

    assert event["type"] == "conversation.item.truncate"
    assert (event["item_id"], event["content_index"], event["audio_end_ms"]) == ("a", 0, 1480)


def test_audio_that_nobody_heard_is_deleted_once() -> None:
    send = Sender()
    send.got_audio("a", 5000)

    [event] = send(CutItem("a", 0, ""))

    assert (event["type"], event["item_id"]) == ("conversation.item.delete", "a")
    assert send(CutItem("a", 0, "")) == []


def test_a_finished_item_that_was_heard_whole_is_left_alone() -> None:
    send = Sender()
    send.got_audio("a", 1000)

    assert send(CutItem("a", 1000, "all")) == []


def test_an_unfinished_item_is_cut_at_no_more_than_has_come() -> None:
    send = Sender()
    send.got_audio("a", 1000, done=False)

    [event] = send(CutItem("a", 1200, "so far"))

    assert event["audio_end_ms"] == 1000


def test_an_item_cannot_be_cut_longer_again() -> None:
    send = Sender()
    send.got_audio("a", 5000)

    send(CutItem("a", 2000, ""))

    assert send(CutItem("a", 3000, "")) == []
    [event] = send(CutItem("a", 1000, ""))
    assert event["audio_end_ms"] == 1000


def test_an_item_never_seen_is_cut_where_it_is_said() -> None:
    [event] = Sender()(CutItem("lost", 700, "so"))

    assert event["audio_end_ms"] == 700


@given(
    received=st.lists(st.integers(0, 20_000), max_size=5),
    heard=st.lists(st.integers(0, 40_000), min_size=1, max_size=5),
    done=st.booleans(),
)
def test_no_cut_is_longer_than_the_audio_or_than_the_cut_before(
    received: list[int], heard: list[int], done: bool
) -> None:
    send = Sender()
    item = send.conversation.see("a", "r")
    item.audio_bytes, item.done = sum(received) * 2, done
    left_ms = item.audio_ms

    for heard_ms in heard:
        for event in send(CutItem("a", heard_ms, "x")):
            if event["type"] == "conversation.item.truncate":
                assert 0 < event["audio_end_ms"] <= min(left_ms, heard_ms)
                left_ms = event["audio_end_ms"]
            else:
                left_ms = 0


# --------------------------------------------------------------------------- cutting text


def test_text_is_replaced_in_its_place_by_what_was_heard() -> None:
    send = Sender(text_only=True)
    send.got_text("t", after="user_1")

    [deleted, created] = send(CutItem("t", 900, "We are open"))

    assert (deleted["type"], deleted["item_id"]) == ("conversation.item.delete", "t")
    assert created["type"] == "conversation.item.create"
    assert created["previous_item_id"] == "user_1"
    assert created["item"]["role"] == "assistant"
    assert created["item"]["content"] == [{"type": "output_text", "text": "We are open"}]
    assert created["item"]["id"] not in ("", "t")


@pytest.mark.parametrize(("heard_ms", "heard_text"), [(0, ""), (0, "We"), (200, ""), (200, "  ")])
def test_text_of_which_no_word_was_heard_is_only_deleted(heard_ms: int, heard_text: str) -> None:
    send = Sender(text_only=True)
    send.got_text("t")

    [event] = send(CutItem("t", heard_ms, heard_text))

    assert event["type"] == "conversation.item.delete"


def test_the_first_item_is_replaced_at_the_head() -> None:
    send = Sender(text_only=True)
    send.got_text("t", after=HEAD)

    assert send(CutItem("t", 900, "We"))[1]["previous_item_id"] == "root"


def test_where_the_place_is_not_known_the_words_are_put_last() -> None:
    send = Sender(text_only=True)
    send.got_text("t", after=None)

    assert "previous_item_id" not in send(CutItem("t", 900, "We"))[1]


def test_a_second_cut_follows_the_replacement() -> None:
    send = Sender(text_only=True)
    send.got_text("t", after="u")

    first = send(CutItem("t", 900, "We are open"))[1]["item"]["id"]
    [deleted, created] = send(CutItem("t", 400, "We are"))

    assert deleted["item_id"] == first
    assert created["item"]["id"] != first
    assert created["previous_item_id"] == "u"


def test_what_follows_a_replaced_item_is_put_behind_its_replacement() -> None:
    send = Sender(text_only=True)
    send.got_text("t1", after="u")
    send.got_text("t2", after="t1")

    new = send(CutItem("t1", 900, "We"))[1]["item"]["id"]

    assert send(CutItem("t2", 900, "are"))[1]["previous_item_id"] == new


def test_what_follows_a_deleted_item_is_put_behind_what_came_before_that() -> None:
    send = Sender(text_only=True)
    send.got_text("t1", after="u")
    send.got_text("t2", after="t1")

    send(CutItem("t1", 0, ""))

    assert send(CutItem("t2", 900, "are"))[1]["previous_item_id"] == "u"


def test_a_text_part_in_an_audio_session_is_cut_as_text() -> None:
    send = Sender()
    send.got_text("t", after="u")

    assert [event["type"] for event in send(CutItem("t", 900, "We"))] == [
        "conversation.item.delete",
        "conversation.item.create",
    ]


def test_what_follows_a_replacement_is_put_behind_the_one_that_replaced_that() -> None:
    send = Sender(text_only=True)
    send.got_text("t1", after="u")
    first = send(CutItem("t1", 900, "We are"))[1]["item"]["id"]
    send.got_text("t2", after=first)
    second = send(CutItem("t1", 400, "We"))[1]["item"]["id"]

    assert send(CutItem("t2", 900, "open"))[1]["previous_item_id"] == second


def test_a_circle_of_predecessors_ends() -> None:
    send = Sender(text_only=True)
    send.got_text("a", after="b")
    send.got_text("b", after="a")
    send.got_text("c", after="a")
    send(CutItem("a", 0, ""))
    send(CutItem("b", 0, ""))

    assert "previous_item_id" not in send(CutItem("c", 100, "x"))[1]


def test_the_memory_of_items_is_bounded() -> None:
    conversation = Conversation()
    for number in range(1000):
        conversation.see(f"i{number}")
        conversation.asked(f"r{number}")

    assert len(conversation._items) <= 64
    assert len(conversation._requests) <= 32
    assert conversation.item("i999") is not None


# --------------------------------------------------------------------------- audio


@given(st.binary(max_size=5000))
def test_audio_comes_through_as_the_event_it_stands_for(pcm: bytes) -> None:
    event = check_client(json.loads(audio_append(pcm)))

    assert event["type"] == "input_audio_buffer.append"
    assert b64decode(event["audio"]) == pcm


# --------------------------------------------------------------------------- begun anew


def test_a_model_that_is_to_speak_itself_is_told_so_in_one_update() -> None:
    send = Sender(text_only=True)
    (update,) = send(ChangeVoice(own=True))
    assert update["session"] == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": "marin",
                "speed": 1.0,
            }
        },
    }


def test_a_model_that_is_not_heard_is_told_to_write_and_its_words_are_cut_as_words() -> None:
    send = Sender()
    (update,) = send(ChangeVoice(own=False))
    assert update["session"] == {"type": "realtime", "output_modalities": ["text"]}
    send.got_text("item_a")
    events = send(CutItem("item_a", 700, "Well"))
    assert [e["type"] for e in events] == ["conversation.item.delete", "conversation.item.create"]


def test_what_it_says_then_is_cut_as_sound() -> None:
    send = Sender(text_only=True)
    send(ChangeVoice(own=True))
    send.got_audio("item_a", 2000)
    (event,) = send(CutItem("item_a", 700, "Well"))
    assert (event["type"], event["audio_end_ms"]) == ("conversation.item.truncate", 700)


def test_what_another_voice_said_before_is_replaced_as_before() -> None:
    send = Sender(text_only=True)
    send.got_text("item_a")
    send(ChangeVoice(own=True))
    events = send(CutItem("item_a", 700, "Well"))
    assert [e["type"] for e in events] == ["conversation.item.delete", "conversation.item.create"]


def test_a_function_called_in_a_former_session_is_told_with_its_result() -> None:
    send = Sender()
    (call,) = send(AddToolCall("call_1", "lookup", '{"number": "12"}'))
    (answer,) = send(AnswerTool("call_1", '{"ok": true}'))
    assert call["item"] == {
        "type": "function_call",
        "call_id": "call_1",
        "name": "lookup",
        "arguments": '{"number": "12"}',
    }
    assert answer["item"]["call_id"] == "call_1"
