"""Has an agent's phrases said in its own voice, and takes only what can be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from sessions_app.core.errors import CallError
from sessions_app.core.phrases import Clip
from sessions_app.prepared import sound
from sessions_app.prepared.mouths import Say, Spoken
from sessions_app.prepared.sound import Unfit
from sessions_app.prepared.wording import Wanted, letters

logger = logging.getLogger(__name__)

#: A voice that says something else is asked once more, then it does without the phrase.
TAKES = 2
#: Words of a translation, against those of the original.
_LONGER_AT_MOST = 4


@dataclass(slots=True)
class Batch:
    """What came of one opening of a voice."""

    clips: list[tuple[Wanted, Clip]] = field(default_factory=list)
    #: Phrases that this voice does not say as wanted.
    left: list[Wanted] = field(default_factory=list)
    #: What kept the rest from being made; None: nothing.
    trouble: CallError | None = None


async def make(
    mouth: Callable[[], AbstractAsyncContextManager[Say]], phrases: Iterable[Wanted]
) -> Batch:
    """Say these one after the other. Never raises for what a supplier does."""
    batch = Batch()
    try:
        async with mouth() as say:
            for wanted in phrases:
                clip = await _made(say, wanted)
                if clip is None:
                    batch.left.append(wanted)
                else:
                    batch.clips.append((wanted, clip))
    except CallError as trouble:
        batch.trouble = trouble
    return batch


async def _made(say: Say, wanted: Wanted) -> Clip | None:
    for take in range(1, TAKES + 1):
        try:
            return checked(wanted, await say(wanted))
        except Unfit as why:
            logger.info(
                "take %d of %r by %s:%s cannot be used: %s",
                take, wanted.phrase.value, wanted.voice_kind, wanted.voice, why,
            )  # fmt: skip
    logger.warning(
        "%s:%s does not say %r as wanted; it is done without",
        wanted.voice_kind, wanted.voice, wanted.phrase.value,
    )  # fmt: skip
    return None


def checked(wanted: Wanted, spoken: Spoken) -> Clip:
    """The clip, if it is one. Raises Unfit."""
    text = wanted.text
    if spoken.words is not None:
        if wanted.exact:
            if not sound.same_words(spoken.words, wanted.text):
                raise Unfit(f"{letters(spoken.words)} letters of other words")
        elif not 0 < letters(spoken.words) <= _LONGER_AT_MOST * letters(wanted.text):
            raise Unfit(f"{letters(spoken.words)} letters for a translation")
        else:
            text = spoken.words
    pcm = sound.fit(spoken.pcm, spoken.rate_hz, text)
    return Clip(wanted.phrase, text, spoken.rate_hz, pcm)
