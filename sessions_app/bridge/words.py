"""What callers hear from the carrier when no agent can speak to them (yet, or any more)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import combinations, product
from typing import Any

from sessions_app.bridge.plan import Ended
from sessions_app.core.agent import AgentProfile, WhenBusy, main_language
from sessions_app.core.events import EndReason
from sessions_app.core.phrases import Phrase
from sessions_app.prepared import wording
from sessions_app.telephony.vonage import ncco

#: Ends after which the caller was bid goodbye; after all others he is owed an apology.
_GOOD_ENDS = frozenset(
    {
        EndReason.AGENT_ENDED,
        EndReason.CALLER_HUNG_UP,
        EndReason.CALLER_SILENT,
        EndReason.MAX_DURATION,
        EndReason.OPERATOR,
    }
)

#: A voice in a hurry: none of the carrier's reads faster, most read about two thirds of it.
_FASTEST_CHARS_PER_S = 20
#: How much longer than by the fastest voice a text may take by the slowest one.
SLOWEST_VOICE = 2.0

_LEAD_IN = (
    "One moment, please.",
    "Thank you for calling.",
    "I am putting you through now.",
    "A lot of people are ringing us in this very moment, so this takes a few seconds longer.",
    "Please stay on the line.",
    "You do not need to press anything.",
    "It is your turn in just a moment.",
)
#: Each takes eight seconds or more, so that a held call asks no more often.
_ON_HOLD = (
    "Thank you for calling. All of our lines are busy at the moment. Please stay on the line, and "
    "we will answer your call as soon as one of them is free.",
    "You are still on hold, and your call has not been forgotten. As soon as a line is free, we "
    "will be with you. There is nothing that you need to do meanwhile.",
    "Thank you for your patience. All of our lines are still busy, but other calls are coming to "
    "their end all the time. Please stay on the line a little longer.",
)
#: So many sentences are about two minutes.
HOLD_ROUNDS = 14


def spoken_ms(text: str) -> int:
    """How long a text takes at least."""
    return len(text) * 1000 // _FASTEST_CHARS_PER_S


def lead_in(delay_ms: int) -> str:
    """Sentences that take at least so long, and hardly longer; empty for no delay. Callers whose
    connects have different places must not come to their ends together.
    """
    if delay_ms <= 0:
        return ""
    texts = _texts()
    longest = texts[-1]
    said: list[str] = []
    while spoken_ms(" ".join([*said, longest])) < delay_ms:
        said.append(longest)
    return next(
        text for text in (" ".join([*said, more]) for more in texts) if spoken_ms(text) >= delay_ms
    )


@cache
def _texts() -> list[str]:
    """Two rounds of the sentences, each with some left out: one text of each length, by length."""
    rounds = [some for n in range(len(_LEAD_IN) + 1) for some in combinations(_LEAD_IN, n)]
    texts = {len(text): text for two in product(rounds, rounds) if (text := " ".join(sum(two, ())))}
    return [texts[length] for length in sorted(texts)]


def _english(language: str) -> str:
    """Our own sentences are English, whatever the agent speaks."""
    return language if main_language(language) == wording.ENGLISH else ncco.DEFAULT_LANGUAGE


def _one_moment(language: str) -> ncco.Ncco:
    house = wording.HOUSE.get(main_language(language))
    if house is None:
        house, language = wording.HOUSE[wording.ENGLISH], ncco.DEFAULT_LANGUAGE
    return ncco.say(house[Phrase.ONE_MOMENT], language)


def again_ms(agent: AgentProfile) -> int:
    """How long a caller who is connected again is spoken to, at least."""
    return spoken_ms(_one_moment(agent.language)[0]["text"])


def connect_media(
    agent: AgentProfile,
    *,
    uri: str,
    rate_hz: int,
    event_url: str,
    headers: Mapping[str, str],
    caller_id: str,
    limit_s: int,
    delay_ms: int,
    again: bool = False,
) -> ncco.Ncco:
    """The caller is connected to our socket, and spoken to until then; at once, in the language of
    the conversation, if he was connected before and it broke off.
    """
    first = _one_moment(agent.language) if again else []
    connect = ncco.connect_media(
        uri=uri,
        rate_hz=rate_hz,
        event_url=event_url,
        headers=headers,
        caller_id=caller_id,
        limit_s=limit_s,
    )
    words = lead_in(delay_ms - sum(spoken_ms(talk["text"]) for talk in first))
    return [*first, *(ncco.say(words, _english(agent.language)) if words else []), *connect]


def nothing(event_url: str) -> ncco.Ncco:
    """For a leg that the caller has left: whoever runs this for him leaves him where he is, for a
    flow that has run out ends no call whose legs are up.
    """
    return [ncco.notify(event_url, {"left_behind": True})]


def sorry() -> ncco.Ncco:
    """Words for a caller of whom, or for whom, nobody is known."""
    return ncco.apology(ncco.APOLOGY, ncco.DEFAULT_LANGUAGE, None)


def apology(agent: AgentProfile | None, called: str, event_url: str) -> ncco.Ncco:
    """Words for a caller who cannot be served, and the agent's person if it has one."""
    if agent is None:
        return sorry()
    person = ncco.Person(agent.fallback_number, called, event_url)
    return ncco.apology(agent.apology, agent.language, person)


def nobody() -> ncco.Ncco:
    """For a caller whom the agent's person did not answer."""
    return ncco.say(ncco.NOBODY, ncco.DEFAULT_LANGUAGE)


def owes_apology(ended: Ended) -> bool:
    """A call that was begun, and came to no good end."""
    return ended.reason not in _GOOD_ENDS | {EndReason.REFUSED, EndReason.TRANSFERRED}


def last_words(ended: Ended, event_url: str) -> ncco.Ncco | None:
    """For a caller whose call here is over, while his leg is still up; None: he is elsewhere."""
    if ended.reason is EndReason.TRANSFERRED:
        return None
    if ended.reason is EndReason.REFUSED:
        return refusal(ended, event_url)
    if ended.reason in _GOOD_ENDS and ended.agent is not None:
        return ncco.goodbye(ncco.GOODBYE, ended.agent.language)
    return led_away(ended, event_url)


def answer_after(ended: Ended, event_url: str) -> ncco.Ncco:
    """The answer webhook again, after the end: a refusal in the same words, else an apology."""
    if ended.reason is EndReason.REFUSED:
        return refusal(ended, event_url)
    return apology(ended.agent, ended.called, event_url)


def person_lead_ms(agent: AgentProfile | None, *, refused: bool) -> int:
    """How long a caller who is refused, or led away, is spoken to before the agent's person is
    rung; 0: there is no person.
    """
    if agent is None or not ncco.e164(agent.fallback_number):
        return 0
    return spoken_ms(_to_person(agent, refused=refused))


def refusal(ended: Ended, event_url: str) -> ncco.Ncco:
    """For a caller who was not taken in: words, and the agent's person, once his time has come."""
    agent = ended.agent
    if agent is None:
        return sorry()
    if not ended.person_delay_ms or not ncco.e164(agent.fallback_number):
        return ncco.apology(agent.apology, agent.language, None)
    return _put_through(agent, _to_person(agent, refused=True), ended, event_url)


def led_away(ended: Ended, event_url: str) -> ncco.Ncco:
    """For a caller who was being served, and cannot be any more: likewise."""
    agent = ended.agent
    if agent is None:
        return sorry()
    if not ended.person_delay_ms or not ncco.e164(agent.fallback_number):
        return ncco.apology(agent.apology, agent.language, None)
    return _put_through(agent, _to_person(agent, refused=False), ended, event_url)


def _put_through(agent: AgentProfile, words: str, ended: Ended, event_url: str) -> ncco.Ncco:
    """As many words as it takes until the person's place in time has come."""
    more = lead_in(ended.person_delay_ms - spoken_ms(words))
    person = ncco.Person(agent.fallback_number, ended.called, event_url)
    if more and (english := _english(agent.language)) != agent.language:
        talk, connect = ncco.apology(words, agent.language, person)
        return [talk, *ncco.say(more, english), connect]
    return ncco.apology(f"{words} {more}".strip(), agent.language, person)


def _to_person(agent: AgentProfile, *, refused: bool) -> str:
    """Who is put through because all are busy needs no apology, if his agent says so."""
    own = "" if refused and agent.when_busy is WhenBusy.PERSON else agent.apology.strip()
    return own or ncco.APOLOGY_WITH_PERSON


def on_hold(
    agent: AgentProfile, called: str, round_: int, *, event_url: str, payload: Mapping[str, Any]
) -> ncco.Ncco:
    """A sentence, then the question whether there is room now, whose reply goes on from there.

    Should nobody reply, the flow goes on by itself: the apology stands behind the question.
    """
    sentence = _ON_HOLD[(round_ - 1) % len(_ON_HOLD)]
    return [
        *ncco.say(sentence, _english(agent.language)),
        ncco.notify(event_url, payload),
        *apology(agent, called, event_url),
    ]
