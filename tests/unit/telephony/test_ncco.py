"""The NCCO builders, held against rules written separately from Vonage's reference."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.telephony.vonage import ncco

from .ncco_rules import validate

MEDIA: dict[str, Any] = {
    "uri": "wss://calls.example/media/9f8e7d",
    "rate_hz": 16000,
    "event_url": "https://calls.example/webhooks/vonage/event",
    "headers": {"call_uuid": "0779a56d002f1c7f47f82ef5fe84ab79"},
    "caller_id": "442079460000",
    "limit_s": 3300,
}
# Few and short enough to stay below 512 bytes whatever their spelling in JSON.
HEADER_NAMES = st.text(min_size=1, max_size=5).filter(lambda name: name != "event")


def test_the_media_connect_is_exactly_this() -> None:
    assert ncco.connect_media(**MEDIA) == [
        {
            "action": "connect",
            "eventType": "synchronous",
            "eventUrl": ["https://calls.example/webhooks/vonage/event"],
            "eventMethod": "POST",
            "limit": 3300,
            "from": "442079460000",
            "endpoint": [
                {
                    "type": "websocket",
                    "uri": "wss://calls.example/media/9f8e7d",
                    "content-type": "audio/l16;rate=16000",
                    "headers": {"call_uuid": "0779a56d002f1c7f47f82ef5fe84ab79"},
                    "authorization": {"type": "vonage"},
                }
            ],
        }
    ]


@settings(deadline=None)
@given(
    rate_hz=st.sampled_from([8000, 16000, 24000]),
    limit_s=st.integers(),
    caller_id=st.none() | st.text() | st.from_regex(r"\A\+?[0-9]{1,20}\Z"),
    headers=st.dictionaries(HEADER_NAMES, st.text(max_size=5), max_size=3),
)
def test_whatever_goes_in_the_media_connect_is_valid_and_the_last_action(
    rate_hz: int, limit_s: int, caller_id: str | None, headers: dict[str, str]
) -> None:
    flow = ncco.connect_media(
        **MEDIA
        | {"rate_hz": rate_hz, "limit_s": limit_s, "caller_id": caller_id, "headers": headers}
    )
    assert validate(flow) == []
    assert len(flow) == 1


@pytest.mark.parametrize(("asked_s", "sent_s"), [(0, 1), (-5, 1), (7200, 7200), (86400, 7200)])
def test_the_limit_is_kept_within_vonages_bounds(asked_s: int, sent_s: int) -> None:
    assert ncco.connect_media(**MEDIA | {"limit_s": asked_s})[0]["limit"] == sent_s


@pytest.mark.parametrize(
    "caller_id",
    [None, "", "anonymous", "Unknown", "0207", "123456", "1" * 16, "44 207946", "٤٤٢٠٧٩٤٦"],
)
def test_a_caller_id_that_is_no_number_is_left_out(caller_id: str | None) -> None:
    assert "from" not in ncco.connect_media(**MEDIA | {"caller_id": caller_id})[0]


def test_numbers_lose_their_plus() -> None:
    assert ncco.e164("+442079460000") == "442079460000"
    assert ncco.e164("442079460000\n") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"uri": "https://calls.example/media"},
        {"uri": "wss:///media"},
        {"uri": "wss://calls.example/" + "x" * 2048},
        {"event_url": "wss://calls.example/event"},
        {"event_url": ""},
        {"rate_hz": 44100},
        {"headers": {"k": "v" * 505}},
        {"headers": {"k": "é" * 90}},
        {"headers": {"event": "mine"}},
        {"headers": {"content-type": "audio/mine"}},
    ],
)
def test_what_the_program_got_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"wanted|uses itself"):
        ncco.connect_media(**MEDIA | wrong)


def test_headers_may_fill_512_bytes_but_no_more() -> None:
    filler = 512 - len(json.dumps({"k": ""}))
    assert ncco.connect_media(**MEDIA | {"headers": {"k": "v" * filler}})
    with pytest.raises(ValueError, match="513"):
        ncco.connect_media(**MEDIA | {"headers": {"k": "v" * (filler + 1)}})


def test_a_refused_address_is_not_repeated_since_it_may_be_a_ticket() -> None:
    with pytest.raises(ValueError, match="scheme") as caught:
        ncco.connect_media(**MEDIA | {"uri": "https://calls.example/media/secret-ticket"})
    assert "secret-ticket" not in str(caught.value)


def test_an_apology_is_spoken() -> None:
    assert ncco.apology("Sorry.", "en-GB", None) == [
        {"action": "talk", "text": "Sorry.", "language": "en-GB"}
    ]


PERSON = ncco.Person("+447700900123", "442079460000", "https://calls.example/event")


def test_an_apology_may_end_at_a_person_who_is_rung_for_thirty_seconds() -> None:
    assert ncco.apology("One moment.", "en-GB", PERSON) == [
        {"action": "talk", "text": "One moment.", "language": "en-GB"},
        {
            "action": "connect",
            "from": "442079460000",
            "eventType": "synchronous",
            "eventUrl": ["https://calls.example/event"],
            "eventMethod": "POST",
            "timeout": 30,
            "endpoint": [{"type": "phone", "number": "447700900123"}],
        },
    ]


@settings(deadline=None)
@given(
    text=st.text(max_size=4000) | st.text(alphabet="ab ", min_size=1490, max_size=1600),
    language=st.text(max_size=12)
    | st.sampled_from(["en-GB", "cmn-CN", "ar", "en-GB-WLS", "es-419"]),
    number=st.text() | st.from_regex(r"\A\+?[0-9]{5,17}\Z"),
    caller_id=st.text(),
)
def test_whatever_an_operator_wrote_something_valid_is_said(
    text: str, language: str, number: str, caller_id: str
) -> None:
    flow = ncco.apology(text, language, replace(PERSON, number=number, caller_id=caller_id))
    assert validate(flow) == []
    assert flow[0]["action"] == "talk"
    assert validate(ncco.goodbye(text, language)) == []


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_text_becomes_the_english_default(empty: str) -> None:
    assert ncco.apology(empty, "en-US", None)[0]["text"] == ncco.APOLOGY
    with_person = ncco.apology(empty, "en-US", PERSON)
    assert with_person[0]["text"] == ncco.APOLOGY_WITH_PERSON
    assert ncco.goodbye(empty, "en-US")[0]["text"] == ncco.GOODBYE


@pytest.mark.parametrize("language", ["", "english please", "en_GB", "e", "-GB"])
def test_a_language_that_is_no_tag_becomes_the_default(language: str) -> None:
    assert ncco.goodbye("Bye.", language)[0]["language"] == "en-US"


def test_a_long_text_is_cut_at_1500_characters() -> None:
    assert ncco.goodbye("a" * 1501, "en-US")[0]["text"] == "a" * 1500


def test_goodbye_says_its_words_and_nothing_follows() -> None:
    assert ncco.goodbye("Bye.", "en-GB") == [
        {"action": "talk", "text": "Bye.", "language": "en-GB"}
    ]
