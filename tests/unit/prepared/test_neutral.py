"""What is shipped with the project."""

from __future__ import annotations

import pytest

from sessions_app.core.audio import pcm_ms
from sessions_app.core.phrases import Phrase
from sessions_app.prepared import neutral, sound
from sessions_app.prepared.wording import HOUSE


@pytest.mark.parametrize("language", list(HOUSE))
def test_every_language_of_the_house_has_every_phrase_but_a_greeting(language: str) -> None:
    found = {clip.phrase: clip for clip in neutral.clips(language)}

    assert {phrase: clip.text for phrase, clip in found.items()} == HOUSE[language]
    assert set(found) == set(Phrase) - {Phrase.GREETING}
    for clip in found.values():
        assert clip.rate_hz == 16_000
        assert sound.fit(clip.pcm, clip.rate_hz, clip.text) == clip.pcm
        assert pcm_ms(len(clip.pcm), clip.rate_hz) < 10_000


def test_a_language_without_recordings_hears_english() -> None:
    assert neutral.clips("pl-PL") == neutral.clips("en-GB") == neutral.clips("")
    assert neutral.clips("FR") == neutral.clips("fr-CA") != neutral.clips("en")
