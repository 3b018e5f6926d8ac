"""What OpenAI Realtime sends us, as the house's events."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessions_app.core.agent import AgentProfile
from sessions_app.core.events import (
    AgentAudio,
    AgentItemDone,
    AgentText,
    CallerTranscript,
    CallerTranscriptFailed,
    CreateResponse,
    CutItem,
    Event,
    ProviderLost,
    ProviderNotice,
    Purpose,
    RequestRefused,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCalled,
    TranscriptionUsage,
)
from sessions_app.providers.base import ProviderSetup
from sessions_app.providers.openai.conversation import Conversation
from sessions_app.providers.openai.decoder import HANDLERS, Decoder
from sessions_app.providers.openai.wire import Encoder
from tests.unit.providers.oracle import check_server

PCM = b"\x01\x02" * 480


class Server:
    """A decoder fed with events that OpenAI's own types have let pass."""

    def __init__(self, *, text_only: bool = False) -> None:
        self.conversation = Conversation(text_only=text_only)
        self.decoder = Decoder(self.conversation)
        setup = ProviderSetup("uuid-1", AgentProfile(), text_only)
        self.encoder = Encoder(setup, self.conversation)

    def __call__(self, type_: str, **fields: Any) -> list[Event]:
        event = check_server({"type": type_, "event_id": "e", **fields})
        return self.decoder.decode(json.dumps(event))

    def says(self, item: str, *, audio: bytes = b"", text: str = "") -> list[Event]:
        ids = {"response_id": "r", "item_id": item, "output_index": 0, "content_index": 0}
        if audio:
            return self("response.output_audio.delta", delta=b64encode(audio).decode(), **ids)
        return self("response.output_text.delta", delta=text, **ids)

    def message_done(self, item: str, status: str = "completed") -> list[Event]:
        message = {
            "id": item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [],
        }
        return self("response.output_item.done", response_id="r", output_index=0, item=message)

    def tool_done(self, call_id: str, status: str = "completed") -> list[Event]:
        call = {
            "id": "fc",
            "type": "function_call",
            "status": status,
            "name": "end_call",
            "call_id": call_id,
            "arguments": '{"reason": "done"}',
        }
        return self("response.output_item.done", response_id="r", output_index=0, item=call)

    def response_done(self, status: str = "completed", **fields: Any) -> list[Event]:
        return self("response.done", response={"id": "r", "status": status, **fields})

    def error(self, **fields: Any) -> list[Event]:
        base = {"type": "invalid_request_error", "code": None, "message": "", "param": None}
        return self("error", error={**base, "event_id": None, **fields})

    def ask(self, request_id: str) -> None:
        self.encoder.encode(CreateResponse(request_id, Purpose.ANSWER))


# --------------------------------------------------------------------------- the caller


def test_speech_of_the_caller_begins_and_ends() -> None:
    server = Server()

    began = server("input_audio_buffer.speech_started", item_id="u", audio_start_ms=10)
    ended = server("input_audio_buffer.speech_stopped", item_id="u", audio_end_ms=90)

    assert began + ended == [SpeechStarted("u"), SpeechStopped("u")]


def test_a_transcript_comes_in_pieces_and_then_whole_with_its_cost() -> None:
    server = Server()
    usage = {"type": "duration", "seconds": 1.5}
    kind = "conversation.item.input_audio_transcription"

    piece = server(f"{kind}.delta", item_id="u", content_index=0, delta="Hel")
    nothing = server(f"{kind}.delta", item_id="u", content_index=0, delta="")
    whole = server(
        f"{kind}.completed", item_id="u", content_index=0, transcript="Hello", usage=usage
    )

    assert piece == [CallerTranscript("u", "Hel", final=False)]
    assert nothing == []
    assert whole == [CallerTranscript("u", "Hello", final=True), TranscriptionUsage(usage)]


def test_a_failed_transcript_settles_its_turn() -> None:
    [event] = Server()(
        "conversation.item.input_audio_transcription.failed",
        item_id="u",
        content_index=0,
        error={"type": "server_error", "code": "audio_unintelligible", "message": "No."},
    )

    assert isinstance(event, CallerTranscriptFailed)
    assert event.item_id == "u"
    assert "audio_unintelligible" in event.reason


# --------------------------------------------------------------------------- the agent


def test_an_answer_we_asked_for_is_recognised() -> None:
    server = Server()
    created = {"id": "r", "metadata": {"request_id": "q1"}, "status": "in_progress"}

    assert server("response.created", response=created) == [ResponseStarted("r", "q1")]


@pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}])
def test_an_answer_by_itself_has_no_request(metadata: Any) -> None:
    response = {"id": "r", "metadata": metadata}

    assert Server()("response.created", response=response) == [ResponseStarted("r", "")]


def test_audio_and_its_words_and_its_end_belong_to_an_item() -> None:
    server = Server()
    ids = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}

    audio = server.says("a", audio=PCM)
    words = server("response.output_audio_transcript.delta", delta="Hi", **ids)
    part = server("response.output_audio.done", **ids)
    done = server.message_done("a")

    assert audio == [AgentAudio("r", "a", PCM)]
    assert words == [AgentText("r", "a", "Hi")]
    assert part == []
    assert done == [AgentItemDone("r", "a")]
    assert server.message_done("a") == []


def test_the_item_ends_with_its_response_if_nobody_said_so_before() -> None:
    server = Server()
    server.says("a", audio=PCM)
    server.says("b", audio=PCM)
    server.message_done("a")

    events = server.response_done("cancelled")

    assert events[0] == AgentItemDone("r", "b")
    assert [type(event) for event in events] == [AgentItemDone, ResponseDone]


def test_text_in_an_audio_session_is_passed_on_and_noted() -> None:
    server = Server()

    assert server.says("a", text="Hi") == [AgentText("r", "a", "Hi")]
    assert server.message_done("a") == [
        AgentItemDone("r", "a"),
        ProviderNotice("provider_text_without_audio", "a"),
    ]


def test_audio_in_a_text_session_is_dropped_and_its_words_are_kept() -> None:
    server = Server(text_only=True)
    ids = {"response_id": "r", "item_id": "a", "output_index": 0, "content_index": 0}

    assert server.says("a", audio=PCM) == []
    words = server("response.output_audio_transcript.delta", delta="Hi", **ids)

    assert words == [AgentText("r", "a", "Hi")]
    assert server.message_done("a") == [AgentItemDone("r", "a")]
    assert server.decoder.counters["unwanted_audio"] == 1


@given(st.lists(st.binary(max_size=9), max_size=12))
def test_audio_is_always_even_and_nothing_but_half_a_sample_is_lost(pieces: list[bytes]) -> None:
    server = Server()
    heard = [event.pcm for p in pieces for event in server.says("a", audio=p) if p]  # type: ignore[union-attr]

    sent = b"".join(pieces)
    assert all(pcm and len(pcm) % 2 == 0 for pcm in heard)
    assert b"".join(heard) == sent[: len(sent) & ~1]


def test_the_received_length_bounds_a_cut() -> None:
    server = Server()
    for _ in range(3):
        server.says("a", audio=PCM)  # 20 ms each

    [event] = server.encoder.encode(CutItem("a", 500, ""))

    assert event["audio_end_ms"] == 60


@pytest.mark.parametrize("type_", ["added", "done"])
@pytest.mark.parametrize(("previous", "wanted"), [("u", "u"), (None, "root")])
def test_the_place_of_an_item_is_learned(type_: str, previous: str | None, wanted: str) -> None:
    server = Server(text_only=True)
    message = {"id": "t", "type": "message", "role": "assistant", "content": []}

    server(f"conversation.item.{type_}", item=message, previous_item_id=previous)
    server.says("t", text="Hello there.")
    created = server.encoder.encode(CutItem("t", 300, "Hello"))[1]

    assert created["previous_item_id"] == wanted


def test_an_item_whose_predecessor_is_not_told_keeps_the_one_it_had() -> None:
    server = Server(text_only=True)
    message = {"id": "t", "type": "message", "role": "assistant", "content": []}
    server("conversation.item.added", item=message, previous_item_id="u")
    server("conversation.item.done", item=message)

    assert server.encoder.encode(CutItem("t", 300, "Hello"))[1]["previous_item_id"] == "u"


# --------------------------------------------------------------------------- tools


def test_a_tool_is_called_once() -> None:
    server = Server()
    arguments = '{"reason": "done"}'

    early = server(
        "response.function_call_arguments.done",
        response_id="r",
        item_id="fc",
        output_index=0,
        call_id="c1",
        name="end_call",
        arguments=arguments,
    )

    assert early == []
    assert server.tool_done("c1") == [ToolCalled("r", "c1", "end_call", arguments)]
    assert server.tool_done("c1") == []
    assert len(server.tool_done("c2")) == 1


def test_a_tool_call_that_broke_off_is_not_executed() -> None:
    server = Server()

    assert server.tool_done("c1", "incomplete") == []
    assert server.decoder.counters["incomplete_tool_calls"] == 1


# --------------------------------------------------------------------------- ends


def test_a_finished_response_brings_its_usage() -> None:
    usage = {"total_tokens": 3, "input_tokens": 1, "output_tokens": 2}

    [event] = Server().response_done("completed", usage=usage, status_details=None)

    assert event == ResponseDone("r", "completed", "", True, usage)


@pytest.mark.parametrize(
    ("status", "details", "reason", "retryable"),
    [
        ("cancelled", {"reason": "turn_detected"}, "turn_detected", True),
        ("incomplete", {"reason": "max_output_tokens"}, "max_output_tokens", True),
        ("failed", {"error": {"code": "rate_limit_exceeded"}}, "rate_limit_exceeded", True),
        ("failed", {"error": {"type": "server_error"}}, "server_error", True),
        ("failed", {"error": {"code": "insufficient_quota"}}, "insufficient_quota", False),
        ("failed", {"error": {"type": "insufficient_quota"}}, "insufficient_quota", False),
        (
            "failed",
            {"error": {"code": "project_spend_limit_exceeded"}},
            "project_spend_limit_exceeded",
            False,
        ),
        ("failed", None, "", True),
    ],
)
def test_a_response_that_did_not_succeed_says_why_and_whether_to_try_again(
    status: str, details: Any, reason: str, retryable: bool
) -> None:
    [event] = Server().response_done(status, status_details=details, usage=None)

    assert event == ResponseDone("r", status, reason, retryable, {})


@pytest.mark.parametrize("status", [None, 7, [], "in_progress", "new_word"])
def test_a_response_is_over_whatever_its_status_is_called(status: Any) -> None:
    raw = {"type": "response.done", "response": {"id": "r", "status": status}}

    assert Server().decoder.decode(json.dumps(raw)) == [ResponseDone("r", "failed")]


# --------------------------------------------------------------------------- errors


def test_a_busy_server_refuses_our_request() -> None:
    server = Server()
    server.ask("q1")

    [event] = server.error(code="conversation_already_has_active_response", event_id="q1")

    assert isinstance(event, RequestRefused)
    assert (event.request_id, event.busy) == ("q1", True)


def test_a_busy_answer_without_an_id_is_for_the_oldest_request() -> None:
    server = Server()
    server.ask("q1")
    server.ask("q2")

    [event] = server.error(code="conversation_already_has_active_response")

    assert isinstance(event, RequestRefused)
    assert event.request_id == "q1"


def test_another_error_refuses_our_request_without_being_busy() -> None:
    server = Server()
    server.ask("q1")

    [event] = server.error(code="invalid_value", param="response.metadata", event_id="q1")

    assert isinstance(event, RequestRefused)
    assert not event.busy
    assert "response.metadata" in event.reason


def test_a_request_is_refused_once_and_not_after_it_began() -> None:
    server = Server()
    server.ask("q1")
    server("response.created", response={"id": "r", "metadata": {"request_id": "q1"}})

    assert server.error(code="conversation_already_has_active_response", event_id="q1") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "response_cancel_not_active"},
        {"code": "input_audio_buffer_commit_empty"},
        {"code": "item_truncate_invalid_item_id"},
        {"code": "item_delete_invalid_item_id"},
        {"code": "conversation_already_has_active_response"},
        {"message": "Audio content of 900ms is already shorter than 1200ms"},
    ],
)
def test_races_are_only_counted(fields: dict[str, str]) -> None:
    server = Server()

    assert server.error(**fields) == []
    assert server.decoder.counters["benign_errors"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "insufficient_quota"},
        {"type": "insufficient_quota"},
        {"code": "invalid_api_key"},
        {"code": "model_not_found"},
        {"code": "beta_api_shape_disabled"},
        {"code": "organization_spend_limit_exceeded"},
    ],
)
def test_what_nobody_can_wait_out_ends_the_conversation_for_good(fields: dict[str, str]) -> None:
    server = Server()
    server.ask("q1")

    [event] = server.error(**fields, event_id="q1")

    assert isinstance(event, ProviderLost)
    assert not event.retryable


def test_an_expired_session_can_be_made_again() -> None:
    assert Server().error(code="session_expired") == [ProviderLost("session_expired", True)]


def test_any_other_error_is_noted_without_secrets() -> None:
    [event] = Server().error(
        code="unknown_parameter", message="Bad key sk-proj-abc*** near 447700900123 in it"
    )

    assert isinstance(event, ProviderNotice)
    assert event.kind == "provider_error"
    assert "unknown_parameter" in event.detail
    assert "sk-" not in event.detail
    assert "447700" not in event.detail


# --------------------------------------------------------------------------- the unexpected


def test_an_unknown_event_is_noted_once_by_its_type() -> None:
    server = Server()
    raw = json.dumps({"type": "response.sung", "event_id": "e"})

    assert server.decoder.decode(raw) == [ProviderNotice("provider_unknown_event", "response.sung")]
    assert server.decoder.decode(raw) == []
    assert server.decoder.counters["unknown"] == 2


def test_known_but_useless_events_are_ignored_quietly() -> None:
    server = Server()

    assert server("rate_limits.updated", rate_limits=[]) == []
    assert server.decoder.counters == {"ignored": 1}


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "nonsense",
        "[]",
        "null",
        "7",
        b"\x00\xff\xfe",
        "{}",
        '{"type": 7}',
        '{"type": "error"}',
        '{"type": "response.created", "response": {"id": 5}}',
        '{"type": "response.done", "response": []}',
        '{"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": "?"}',
        '{"type": "input_audio_buffer.speech_started"}',
        "[" * 100_000,
    ],
)
def test_garbage_is_counted_and_noted_once(raw: str | bytes) -> None:
    decoder = Server().decoder

    first = decoder.decode(raw)

    assert [type(event) for event in first] == [ProviderNotice]
    assert decoder.decode(raw) == []
    assert decoder.counters["garbage"] == 2


def test_words_that_a_database_would_refuse_are_mended() -> None:
    server = Server()
    delta = {"response_id": "r", "item_id": "i", "delta": "a\0b\ud83d"}
    raw = json.dumps({"type": "response.output_text.delta", **delta})

    assert server.decoder.decode(raw) == [AgentText("r", "i", "ab?")]


TYPES = st.sampled_from(sorted(HANDLERS))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELD_NAMES = st.sampled_from(
    [
        "id",
        "type",
        "role",
        "item",
        "delta",
        "usage",
        "metadata",
        "status",
        "status_details",
        "error",
        "code",
        "event_id",
        "message",
        "call_id",
        "name",
        "arguments",
        "request_id",
    ]
)
IDS = st.sampled_from(["a", "b", "message", "function_call", "assistant", "completed", "AAAA"])
NESTED = st.dictionaries(FIELD_NAMES, IDS | JSON, max_size=6)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES | st.text(max_size=12)},
    optional={
        **dict.fromkeys(["item", "response", "error"], NESTED | JSON),
        **dict.fromkeys(
            ["item_id", "response_id", "delta", "transcript", "previous_item_id"], IDS | JSON
        ),
        "usage": JSON,
    },
)


@given(st.lists(EVENTS.map(json.dumps) | st.text() | st.binary(), max_size=12), st.booleans())
@example(['{"type":"conversation.item.added","item":{"type":"message","role":"assistant"}}'], True)
def test_nothing_that_is_sent_can_make_it_raise(raws: list[str | bytes], text_only: bool) -> None:
    server = Server(text_only=text_only)

    for raw in raws:
        for event in server.decoder.decode(raw):
            assert isinstance(event, Event)
            if isinstance(event, AgentAudio):
                assert event.pcm
                assert len(event.pcm) % 2 == 0
    for item_id in ("a", "b"):
        server.encoder.encode(CutItem(item_id, 100, "words"))
