"""`python -m sessions_app.prepared.neutral`: speaks the house's phrases by espeak-ng, anew."""

from __future__ import annotations

from sessions_app.prepared import sound, wav
from sessions_app.prepared.neutral import path_of
from sessions_app.prepared.wording import HOUSE
from sessions_app.sandbox.voice import synthesise

_RATE_HZ = 16_000
_TIMBRE = "+f3"


def main() -> None:
    for language, texts in HOUSE.items():
        for phrase, text in texts.items():
            pcm = synthesise(text, _RATE_HZ, voice=language + _TIMBRE)
            clip = wav.write(text, _RATE_HZ, sound.fit(pcm, _RATE_HZ, text))
            path_of(language, phrase).write_bytes(clip)
            print(f"{path_of(language, phrase).name}: {text}")


if __name__ == "__main__":
    main()
