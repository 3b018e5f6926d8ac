"""What the model is told in words, besides the agent's own instructions."""

from __future__ import annotations

GREET_FREELY = "Greet the caller in one short sentence and ask how you can help."
NUDGE = (
    "The caller has said nothing for a while. Ask in one short sentence, in the language of the "
    "conversation, whether they are still there."
)
GOODBYE = "Say one short, friendly goodbye now, in the language of the conversation."
GOODBYE_NOBODY_SPEAKS = (
    "The caller still says nothing. Say in one sentence, in the language of the conversation, "
    "that you end the call now and that they are welcome to ring again, and say goodbye."
)
GOODBYE_TOO_LONG = (
    "This call has reached the longest time it may last. Say so kindly in one sentence, in the "
    "language of the conversation, and say goodbye."
)


CUT_OFF = (
    "A fault cut off what you were saying; the caller has heard what stands in the conversation. "
    "Go on from there. Do not repeat what was heard, and do not mention the fault."
)
RESUMED = (
    "The line was interrupted for a moment and is back. If what the caller said last has no answer "
    "yet, answer it now; else say in one short sentence, in the language of the conversation, that "
    "you are back, and go on."
)
UNHEARD = (
    "The caller has said something that you could not hear. Say so in one short sentence, in the "
    "language of the conversation, and ask them to say it again."
)


WHISPERED = (
    "Your supervisor has just told you something. Take it up now, in one or two short sentences, "
    "in the language of the conversation."
)


def whispered(text: str) -> str:
    """What a supervisor says; the caller must not even notice that somebody did."""
    return (
        "Your supervisor, whom the caller cannot hear, tells you what follows. Take it up when you "
        f"speak next, in your own words, and do not mention that you were told.\n{text}"
    )


def say_exactly(text: str) -> str:
    """A sentence to be spoken as it stands."""
    return f"Say exactly: {text}"


def keys_pressed(keys: str) -> str:
    return f"[The caller pressed keys of the phone] {keys}"
