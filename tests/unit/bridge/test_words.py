"""What callers hear from the carrier: long enough, never empty, and always a flow that it reads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_app.bridge import words
from sessions_app.bridge.plan import Ended
from sessions_app.core.agent import AgentProfile, WhenBusy
from sessions_app.core.events import EndReason
from sessions_app.core.pacing import LONGEST_DELAY_MS
from tests.unit.telephony.ncco_rules import validate

PERSON = "447700900999"
EVENT_URL = "https://calls.example/webhooks/vonage/event"
MEDIA: dict[str, Any] = {
    "uri": "wss://calls.example/media/9f8e7d6c5b",
    "rate_hz": 16000,
    "event_url": EVENT_URL,
    "headers": {"call_uuid": "u-1"},
    "caller_id": "442079460000",
    "limit_s": 3300,
}


def agent(**fields: Any) -> AgentProfile:
    return AgentProfile(**{"fallback_number": PERSON, **fields})


def kinds(flow: list[dict[str, Any]]) -> list[str]:
    return [action["action"] for action in flow]


@given(st.integers(1, LONGEST_DELAY_MS))
def test_the_words_before_a_connect_last_until_its_place_and_not_much_longer(delay_ms: int) -> None:
    said = words.lead_in(delay_ms)
    assert said == words.lead_in(delay_ms)
    # By a voice of 20 characters a second, which is faster than any of the carrier's.
    assert len(said) / 20 * 1000 >= delay_ms
    # So callers whose places are a second apart do not connect together.
    assert len(said) / 20 * 1000 < max(delay_ms + 250, 1200)


def test_without_a_delay_the_connect_stands_alone() -> None:
    flow = words.connect_media(agent(), **MEDIA, delay_ms=0)
    assert kinds(flow) == ["connect"]
    delayed = words.connect_media(agent(), **MEDIA, delay_ms=2500)
    assert kinds(delayed) == ["talk", "connect"]
    assert delayed[1] == flow[0]


@pytest.mark.parametrize(("language", "spoken"), [("en-AU", "en-AU"), ("fr-FR", "en-US")])
def test_our_own_sentences_are_read_by_an_english_voice(language: str, spoken: str) -> None:
    speaks = agent(language=language)
    for flow in (
        words.connect_media(speaks, **MEDIA, delay_ms=900),
        words.on_hold(speaks, "442079460000", 1, event_url=EVENT_URL, payload={"a": 1}),
    ):
        assert flow[0]["language"] == spoken


@settings(deadline=None)
@given(
    when=st.sampled_from(WhenBusy),
    number=st.sampled_from(["", PERSON, "not a number"]),
    apology=st.text(max_size=500),
    language=st.sampled_from(["en-GB", "fr", "de-DE"]),
    delay_ms=st.integers(0, 60_000),
    round_=st.integers(1, words.HOLD_ROUNDS),
)
def test_whatever_an_agent_is_set_to_every_flow_is_valid_and_speaks_first(
    when: WhenBusy, number: str, apology: str, language: str, delay_ms: int, round_: int
) -> None:
    set_to = agent(when_busy=when, fallback_number=number, apology=apology, language=language)
    ended = Ended(EndReason.REFUSED, set_to, "442079460000", delay_ms)
    hold = words.on_hold(set_to, "442079460000", round_, event_url=EVENT_URL, payload={"hold": {}})
    for flow in (
        words.refusal(ended, EVENT_URL),
        words.last_words(ended, EVENT_URL),
        words.answer_after(ended, EVENT_URL),
        hold,
        words.connect_media(set_to, **MEDIA, delay_ms=max(1, delay_ms)),
    ):
        assert validate(flow) == []
        assert flow[0]["action"] == "talk"
    assert kinds(hold)[:3] == ["talk", "notify", "talk"]
    assert (
        words.refusal(ended, EVENT_URL)
        == words.last_words(ended, EVENT_URL)
        == words.answer_after(ended, EVENT_URL)
    )


def test_a_refused_caller_hears_the_apology_then_the_person() -> None:
    set_to = agent(apology="All are busy.")
    lead_ms = words.person_lead_ms(set_to, refused=True)
    assert lead_ms == words.spoken_ms("All are busy.") > 0
    flow = words.refusal(Ended(EndReason.REFUSED, set_to, "442079460000", lead_ms), EVENT_URL)
    assert flow[0]["text"] == "All are busy."
    assert flow[1]["endpoint"] == [{"type": "phone", "number": PERSON}]
    # A person whose place comes later is waited for with more words.
    later = words.refusal(
        Ended(EndReason.REFUSED, set_to, "442079460000", lead_ms + 3000), EVENT_URL
    )
    assert later[0]["text"].startswith("All are busy. ")
    assert words.spoken_ms(later[0]["text"]) >= lead_ms + 3000
    assert later[1] == flow[1]
    # One who has no place is not rung.
    assert kinds(words.refusal(Ended(EndReason.REFUSED, set_to, "", 0), EVENT_URL)) == ["talk"]


def test_a_caller_who_is_led_away_hears_the_apology_until_the_persons_place() -> None:
    set_to = agent(apology="We are cut off.", when_busy=WhenBusy.PERSON)
    for delay_ms in (words.person_lead_ms(set_to, refused=False), 9000):
        flow = words.led_away(
            Ended(EndReason.PROVIDER_FAILED, set_to, "442079460000", delay_ms), EVENT_URL
        )
        assert kinds(flow) == ["talk", "connect"] and validate(flow) == []
        assert flow[0]["text"].startswith("We are cut off.")
        assert words.spoken_ms(flow[0]["text"]) >= min(delay_ms, 9000)
    no_place = Ended(EndReason.PROVIDER_FAILED, set_to, "442079460000", 0)
    assert kinds(words.led_away(no_place, EVENT_URL)) == ["talk"]
    assert kinds(words.led_away(Ended(EndReason.LOST, None, "", 0), EVENT_URL)) == ["talk"]


@pytest.mark.parametrize("when_busy", WhenBusy)
def test_the_place_of_a_person_is_measured_by_what_is_said_before(when_busy: WhenBusy) -> None:
    set_to = agent(apology="This is a long apology of the agent's own. " * 4, when_busy=when_busy)
    for refused, speak in ((True, words.refusal), (False, words.led_away)):
        lead_ms = words.person_lead_ms(set_to, refused=refused)
        talk, _ = speak(Ended(EndReason.REFUSED, set_to, "", lead_ms), EVENT_URL)
        assert words.spoken_ms(talk["text"]) == lead_ms


def test_what_fills_the_time_until_then_is_not_read_in_a_language_that_it_is_not() -> None:
    set_to = agent(apology="Es tut uns leid.", language="de-DE")
    own, more, connect = words.led_away(Ended(EndReason.LOST, set_to, "", 9000), EVENT_URL)
    assert (own["text"], own["language"]) == ("Es tut uns leid.", "de-DE")
    assert more["language"] == "en-US"
    assert words.spoken_ms(own["text"] + more["text"]) >= 9000
    assert connect["action"] == "connect"


def test_straight_to_the_person_needs_no_apology() -> None:
    set_to = agent(apology="All are busy.", when_busy=WhenBusy.PERSON)
    flow = words.refusal(
        Ended(
            EndReason.REFUSED, set_to, "442079460000", words.person_lead_ms(set_to, refused=True)
        ),
        EVENT_URL,
    )
    assert kinds(flow) == ["talk", "connect"]
    assert "busy" not in flow[0]["text"] and "putting you through" in flow[0]["text"]
    nobody = agent(apology="All are busy.", when_busy=WhenBusy.PERSON, fallback_number="")
    assert words.person_lead_ms(nobody, refused=True) == 0
    assert (
        words.refusal(Ended(EndReason.REFUSED, nobody, "", 0), EVENT_URL)[0]["text"]
        == "All are busy."
    )


def test_a_hold_lasts_about_two_minutes_and_asks_seldom() -> None:
    asked = {"event_url": EVENT_URL, "payload": {"hold": {}}}
    flows = [words.on_hold(agent(), "44", n, **asked) for n in range(1, words.HOLD_ROUNDS + 1)]
    lasts_ms = [words.spoken_ms(flow[0]["text"]) for flow in flows]
    assert min(lasts_ms) >= 6000
    assert 90_000 <= sum(lasts_ms) <= 150_000
    texts = [flow[0]["text"] for flow in flows]
    assert all(first != then for first, then in pairwise(texts))
