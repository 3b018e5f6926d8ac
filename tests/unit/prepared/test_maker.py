"""An agent's voice is opened, asked phrase by phrase, and believed only when it has said them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from sessions_app.core import events as ev
from sessions_app.core.errors import CallError, ProviderError, SpeechError
from sessions_app.core.phrases import Phrase
from sessions_app.prepared import maker, mouths
from sessions_app.prepared.maker import Batch
from sessions_app.prepared.mouths import Spoken
from sessions_app.prepared.wording import Wanted, wanted
from tests.unit.bridge import clockwork
from tests.unit.bridge.fakes import FakeProvider, hangs, log_lines
from tests.unit.prepared.speech import ANN, RATE_HZ, SARAH, Mouths, silence, speech

FRENCH_POLE = replace(ANN, language="pl", greeting="")


def made(mouth: Mouths, phrases: Iterable[Wanted] = wanted(ANN)) -> Batch:
    return asyncio.run(maker.make(lambda: mouth.of(ANN), phrases))


def phrases_of(batch: Batch) -> list[Phrase]:
    return [clip.phrase for _, clip in batch.clips]


# ---------------------------------------------------------------------- what is taken


def test_every_phrase_is_made_in_one_opening() -> None:
    mouth = Mouths()

    batch = made(mouth)

    assert [clip.text for _, clip in batch.clips] == [each.text for each in wanted(ANN)]
    assert (len(mouth.opened), mouth.open_now) == (1, 0)
    assert (batch.left, batch.trouble) == ([], None)


def test_a_voice_that_says_something_else_once_is_asked_once_more() -> None:
    mouth, greeting = Mouths(), wanted(ANN)[0]
    words = iter(["Sure! Good morning, this is Ann.", greeting.text.lower()])
    mouth.answer = lambda each: Spoken(RATE_HZ, speech(each.text), next(words))

    batch = made(mouth, [greeting])

    assert [clip.text for _, clip in batch.clips] == [greeting.text]
    assert len(mouth.asked) == 2


def test_a_voice_that_never_says_it_is_left_alone_with_it_and_says_the_rest() -> None:
    mouth, greeting = Mouths(), wanted(ANN)[0]

    def stubborn(each: Wanted) -> Spoken:
        words = "I cannot say that." if each.phrase is Phrase.GREETING else each.text
        return Spoken(RATE_HZ, speech(each.text), words)

    mouth.answer = stubborn
    with log_lines() as lines:
        batch = made(mouth)

    assert batch.left == [greeting] and batch.trouble is None
    assert set(phrases_of(batch)) == set(Phrase) - {Phrase.GREETING}
    assert mouth.asked.count(greeting) == 2
    assert any("does not say 'greeting'" in line for line in lines.lines)
    assert not any(ANN.greeting in line or "cannot say that" in line for line in lines.lines)


@pytest.mark.parametrize("pcm", [silence(1500), speech("Hi"), speech("Hello. " * 60)])
def test_silence_and_wrong_lengths_are_not_kept(pcm: bytes) -> None:
    mouth = Mouths()
    mouth.answer = lambda each: Spoken(RATE_HZ, pcm, each.text)

    batch = made(mouth, [wanted(ANN)[0]])

    assert (batch.clips, batch.left) == ([], [wanted(ANN)[0]])


def test_a_translation_is_what_the_model_says_it_said() -> None:
    mouth = Mouths()
    mouth.answer = lambda _: Spoken(RATE_HZ, speech("Chwileczkę, proszę."), "Chwileczkę, proszę.")

    batch = made(mouth, [wanted(FRENCH_POLE)[0]])

    ((_, clip),) = batch.clips
    assert (clip.phrase, clip.text) == (Phrase.ONE_MOMENT, "Chwileczkę, proszę.")


@pytest.mark.parametrize("words", ["", "…", "I am sorry, but " * 20])
def test_a_translation_without_words_or_with_far_too_many_is_none(words: str) -> None:
    mouth = Mouths()
    mouth.answer = lambda each: Spoken(RATE_HZ, speech(words or each.text), words)

    assert made(mouth, [wanted(FRENCH_POLE)[0]]).clips == []


def test_what_was_made_before_a_supplier_failed_is_kept() -> None:
    mouth = Mouths()
    gone = ProviderError("connection closed: 1006", retryable=True)

    def breaks(each: Wanted) -> Spoken:
        if each.phrase is Phrase.STILL_HERE:
            raise gone
        return Mouths.well(each)

    mouth.answer = breaks
    batch = made(mouth)

    assert phrases_of(batch) == [Phrase.GREETING, Phrase.ONE_MOMENT]
    assert (batch.left, batch.trouble, mouth.open_now) == ([], gone, 0)


def test_a_voice_that_cannot_be_opened_is_a_trouble_and_no_crash() -> None:
    mouth = Mouths()
    mouth.away = ProviderError("HTTP 401", retryable=False)

    batch = made(mouth)

    assert (batch.clips, batch.trouble, mouth.asked) == ([], mouth.away, [])


# ---------------------------------------------------------------------- a model that speaks

Reply = Callable[[ev.CreateResponse], Iterable[ev.Event]]


def says(command: ev.CreateResponse, **changes: Any) -> list[ev.Event]:
    """A whole response in the shape of Realtime: words and audio in pieces, then its end."""
    text = command.instructions.partition(": ")[2]
    pcm, half = speech(text, 24_000), len(text) // 2
    cut = len(pcm) // 4 * 2
    rid = f"resp_{command.request_id}"
    return [
        ev.ResponseStarted(rid, command.request_id),
        ev.AgentText(rid, "item", text[:half]),
        ev.AgentAudio("resp_of_nobody", "item", speech("Somebody else", 24_000)),
        ev.AgentAudio(rid, "item", pcm[:cut]),
        ev.AgentText(rid, "item", text[half:]),
        ev.AgentAudio(rid, "item", pcm[cut:]),
        replace(ev.ResponseDone(rid, "completed"), **changes),
    ]


class Model(FakeProvider):
    """Answers each request as it is told; None: the connection breaks instead."""

    def __init__(self, reply: Callable[[ev.CreateResponse], Iterable[ev.Event] | None]) -> None:
        super().__init__()
        self.reply = reply

    def send(self, command: object) -> None:
        super().send(command)
        assert isinstance(command, ev.CreateResponse)
        assert not command.tools, "nobody hangs up a call that there is not"
        asyncio.get_running_loop().call_soon(self._answer, command)

    def _answer(self, command: ev.CreateResponse) -> None:
        events = self.reply(command)
        if events is None:
            self.lost.set()
            return
        assert self.emit is not None
        for event in events:
            self.emit(event)


def by_model(model: FakeProvider, phrases: Iterable[Wanted] = wanted(ANN)) -> Batch:
    """On a clock of its own, so that waiting costs nothing."""
    return clockwork.run(
        maker.make(lambda: mouths.of_model(lambda: model), phrases)  # type: ignore[arg-type]
    )


def failure(batch: Batch) -> CallError:
    assert batch.trouble is not None
    return batch.trouble


def test_a_model_says_one_phrase_after_the_other_and_is_closed() -> None:
    model = Model(says)

    batch = by_model(model)

    assert [clip.text for _, clip in batch.clips] == [each.text for each in wanted(ANN)]
    assert all(clip.pcm == speech(clip.text, clip.rate_hz) for _, clip in batch.clips)
    assert {clip.rate_hz for _, clip in batch.clips} == {24_000}
    assert (model.opened, model.closed, batch.trouble) == (1, 1, None)
    requests = [command.request_id for command in model.of(ev.CreateResponse)]  # type: ignore[attr-defined]
    assert len(set(requests)) == 5


def test_words_of_several_items_are_apart() -> None:
    def in_two(command: ev.CreateResponse) -> Iterable[ev.Event]:
        for event in says(command):
            if isinstance(event, ev.AgentText):
                item_id = "item_2" if event.text.startswith("this") else "item_1"
                event = replace(event, item_id=item_id, text=event.text.strip())
            yield event

    greeting = replace(wanted(FRENCH_POLE)[0], text="Hi there this is it", exact=False)
    model = Model(in_two)

    ((_, clip),) = by_model(model, [greeting]).clips

    assert clip.text == "Hi there this is it"


@pytest.mark.parametrize(
    ("changes", "left"),
    [({"status": "incomplete", "reason": "content_filter"}, 1), ({"status": "cancelled"}, 1)],
)
def test_a_response_that_ends_early_is_asked_for_once_more(
    changes: dict[str, Any], left: int
) -> None:
    model = Model(lambda command: says(command, **changes))

    batch = by_model(model, wanted(ANN)[:1])

    assert (len(batch.left), batch.trouble, len(model.commands)) == (left, None, 2)


@pytest.mark.parametrize("retryable", [True, False])
def test_a_response_that_fails_is_the_suppliers_trouble(retryable: bool) -> None:
    failed = {"status": "failed", "reason": "rate_limit_exceeded", "retryable": retryable}
    model = Model(lambda command: says(command, **failed))

    batch = by_model(model)

    assert failure(batch).retryable is retryable
    assert "rate_limit_exceeded" in str(batch.trouble)
    assert (len(model.commands), model.closed) == (1, 1)


def test_a_request_that_is_refused_is_the_suppliers_trouble() -> None:
    model = Model(lambda command: [ev.RequestRefused(command.request_id, True, "busy")])

    assert failure(by_model(model)).retryable and model.closed == 1


def test_a_connection_that_breaks_is_the_suppliers_trouble() -> None:
    model = Model(lambda command: None if "waiting" in command.instructions else says(command))

    batch = by_model(model)

    assert phrases_of(batch) == [Phrase.GREETING, Phrase.ONE_MOMENT]
    assert failure(batch).retryable and model.closed == 1


def test_a_model_that_says_nothing_is_not_waited_for_without_end() -> None:
    model = Model(lambda _: [])

    assert failure(by_model(model)).code == "timeout"
    assert model.closed == 1


def test_a_model_that_never_opens_is_not_waited_for_without_end() -> None:
    model = FakeProvider(opening=hangs)

    assert failure(by_model(model)).code == "timeout"
    assert model.closed == 1


def test_a_model_that_talks_without_end_is_stopped() -> None:
    def endless(command: ev.CreateResponse) -> Iterable[ev.Event]:
        yield ev.ResponseStarted("resp", command.request_id)
        for _ in range(1000):
            yield ev.AgentAudio("resp", "item", speech("a second or so of it", 24_000))

    batch = by_model(Model(endless), wanted(ANN)[:1])

    assert len(batch.left) == 1


# ---------------------------------------------------------------------- a voice


class Synthesis:
    """Speaks in pieces, or fails after the first."""

    rate_hz = RATE_HZ

    def __init__(self, failing: Exception | None = None, hanging: bool = False) -> None:
        self.failing, self.hanging = failing, hanging
        self.closed = self.ended = 0

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        pcm = speech(text)
        try:
            for at in range(0, len(pcm), 3200):
                yield pcm[at : at + 3200]
                if self.failing:
                    raise self.failing
                if self.hanging:
                    await asyncio.Event().wait()
        finally:
            self.ended += 1

    async def close(self) -> None:
        self.closed += 1


def by_voice(voice: Synthesis) -> Batch:
    return clockwork.run(
        maker.make(lambda: mouths.of_voice(lambda: voice), wanted(SARAH))  # type: ignore[arg-type]
    )


def test_a_voice_says_one_phrase_after_the_other_and_is_closed() -> None:
    voice = Synthesis()

    batch = by_voice(voice)

    assert [clip.text for _, clip in batch.clips] == [each.text for each in wanted(SARAH)]
    assert [clip.pcm for _, clip in batch.clips] == [speech(each.text) for each in wanted(SARAH)]
    assert (voice.closed, voice.ended) == (1, 5)


@pytest.mark.parametrize(
    "voice", [Synthesis(SpeechError("cut", retryable=True)), Synthesis(None, True)]
)
def test_a_voice_that_breaks_off_or_stalls_leaves_nothing(voice: Synthesis) -> None:
    batch = by_voice(voice)

    assert batch.clips == [] and failure(batch).retryable
    assert (voice.closed, voice.ended) == (1, 1)
