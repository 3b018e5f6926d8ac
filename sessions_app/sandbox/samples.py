"""What the scripted caller may say and what the scripted agent answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

END_CALL: Final = "end_call"


@dataclass(frozen=True, slots=True)
class Sample:
    """One phrase of the caller, the agent's reply, and the tool the reply calls if the session
    declared it.
    """

    key: str
    text: str
    reply: str
    tool: str = ""


SAMPLES: Final[tuple[Sample, ...]] = (
    Sample(
        "hours",
        "Could you tell me your opening hours for this week?",
        "Of course. We are open from nine in the morning until six in the evening, Monday to "
        "Friday. On Saturdays we open at ten and close at two. On Sundays and on public holidays "
        "we are closed. Is there anything else that you would like to know?",
    ),
    Sample(
        "appointment",
        "I would like to book an appointment for next Tuesday.",
        "With pleasure. Next Tuesday I have half past ten in the morning, or a quarter past three "
        "in the afternoon. An appointment takes about forty minutes, and you can move it free of "
        "charge until the day before. Which of the two times suits you better?",
    ),
    Sample(
        "table",
        "A table for four at eight o'clock tonight.",
        "Let me look. A table for four at eight tonight is free, by the window. "
        "I can hold it for you for fifteen minutes. Under which name may I book it?",
    ),
    Sample(
        "person",
        "Could I speak to a real person about my invoice?",
        "Certainly. I will see who is free to talk about your invoice. "
        "Please stay on the line for a moment, it will not take long.",
        tool="transfer_to_person",
    ),
    Sample(
        "order",
        "Where is my order with the number four seven two nine?",
        "Thank you. I have found order four seven two nine. It left our warehouse yesterday "
        "afternoon, and the carrier has it on the van for delivery today. You will get a message "
        "one hour before it arrives. If nobody is at home, it is left with a neighbour, or taken "
        "to the nearest post office, where it stays for seven days. Would you like me to add a "
        "note for the driver?",
    ),
    Sample(
        "parking",
        "Is there somewhere to park near your office?",
        "Yes, there is. The car park behind our building has twenty places for visitors, and the "
        "first hour is free. When it is full, the garage at the station is five minutes away on "
        "foot.",
    ),
    Sample(
        "yes",
        "Yes, that sounds good to me.",
        "Wonderful, then that is settled. I have made a note of it. Can I do anything else for "
        "you?",
    ),
    Sample(
        "goodbye",
        "Thanks a lot for all your help and goodbye!",
        "Thank you for calling. Have a nice day, goodbye!",
        tool=END_CALL,
    ),
)

BY_KEY: Final[dict[str, Sample]] = {sample.key: sample for sample in SAMPLES}
BY_TEXT: Final[dict[str, Sample]] = {sample.text: sample for sample in SAMPLES}

OPENING: Final = "Hello, and thank you for calling. How can I help you today?"
STILL_THERE: Final = "Are you still there? Please take your time, I am listening."
TAKEN_UP: Final = "Before I forget: {}"
AFTER_TOOL: Final = "All right, that is done. Is there anything else I can do for you?"

COURTESIES: Final[tuple[str, ...]] = (
    "I see. Could you tell me a little more about that? I would like to be sure that I understand "
    "you correctly.",
    "Thank you, I have made a note of it. Somebody who knows all about it will look into the "
    "matter today, and you will hear from us by tomorrow at the latest. Is there anything else on "
    "your mind?",
    "That is a good question. Let me think about it for a moment. As far as I can tell from here, "
    "it should not be a problem at all. Shall I arrange it for you?",
    "I understand. Many of our callers ask for the same thing, and we can usually help within a "
    "day or two.",
)


def sample_for(said: str) -> Sample | None:
    """The sample that ``said`` (recognised speech or typed text) is, if it is one."""
    return BY_TEXT.get(said.strip())


def courtesy(turn: int) -> str:
    """What to answer in turn ``turn`` (counted from 0) when nothing was understood."""
    return COURTESIES[turn % len(COURTESIES)]
