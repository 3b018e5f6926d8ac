"""Sees to it that a caller who waits for the agent does not listen to silence.

It goes by what the caller hears, on the playback clock, and by what our own ear hears of him, never
by what a supplier said it would send: a model that has gone mute reports nothing.
"""

from __future__ import annotations

import math

from sessions_app.core.agent import AgentProfile, TurnDetection
from sessions_app.core.ear import PAUSE_S
from sessions_app.core.limits import Limits
from sessions_app.core.phrases import Clip, Clips, Phrase
from sessions_app.core.playback import Playback

#: A model that detects turns by their meaning may wait so long for more.
SEMANTIC_WAIT_S = 4.0
#: The model's word that the caller speaks may come so much later, or earlier, than our ear's.
AGREE_S = 1.5
#: What is shorter may be a cough.
SPOKEN_MS = 200.0
#: So much of it that is loud is no cough, no paper and no chair: a word or two.
WORDS_MS = 500.0
#: So much is a sentence.
LONG_MS = 1000.0
#: Nobody speaks for so long, without a pause that a model would notice, too softly for our ear;
#: and after so long, he may hear one word from us if he does.
SOFTLY_S = 20.0
SOFTLY_TOLD_S = 8.0
#: Nobody speaks for so long without a pause that our ear would notice: it hears a radio.
SPEECH_MOST_S = 45.0
#: A model that owes him an answer and hears well has noticed by then that he speaks again; what it
#: does not notice is a noise at his side. With `Limits.silence_s` it makes less than three seconds.
CONFIRMED_S = 0.7
#: So long after the agent's last sound its echo may still come from the phone.
ECHO_S = 0.5


class Guard:
    """Since when there has been silence, and what is said into it."""

    def __init__(
        self, agent: AgentProfile, limits: Limits, playback: Playback, clips: Clips
    ) -> None:
        self._limits = limits
        self._playback = playback
        self._clips = clips
        semantic = agent.turn_detection is TurnDetection.SEMANTIC_VAD
        #: So long after the caller's last word a healthy model may take to say that he is done.
        self._turn_end_s = SEMANTIC_WAIT_S if semantic else agent.vad_silence_ms / 1000
        self._fillers = 0
        self._filled_s = -math.inf
        #: The last moment at which the caller himself was to be heard.
        self._caller_s = -math.inf
        self._ear_began_s = self._model_began_s = -math.inf
        self._ear_stopped_s: float | None = None
        #: Since when our ear has been alone with what it hears, beside a model that hears well.
        self._alone_s: float | None = None
        self._rehears_until_s = -math.inf
        self._rehears = False
        self.audible = False
        #: Since when something has been said that only our ear has heard.
        self.unheard_s: float | None = None
        self._unheard_in_a_row = 0
        self._spoken_ms = 0.0

    # ------------------------------------------------------------------ the caller

    def ear(
        self, speaking: bool, spoken_ms: float, now: float, *, model_ready: bool, awaited: bool
    ) -> None:
        """Our ear heard him begin, or stop; `spoken_ms` of it were loud. `awaited`: he is waiting
        for the agent. Then a model that is there has to hear him too, else it is not him.
        """
        self.audible = speaking
        believed = not (model_ready and awaited)
        self._alone_s = now if speaking and not believed else None
        if believed:
            self._caller_s = now if speaking else now - PAUSE_S
        if speaking:
            self._ear_began_s = now
            self._ear_stopped_s = None
            return
        self._ear_stopped_s = now - PAUSE_S
        heard_by_model = self._model_began_s >= self._ear_began_s - AGREE_S
        agent_s = self._playback.sounds_until_s()
        # A model may well know the agent's own voice when it comes back.
        echo = agent_s is not None and self._ear_stopped_s <= agent_s + ECHO_S
        self._spoken_ms = spoken_ms
        if model_ready and spoken_ms >= SPOKEN_MS and not heard_by_model and not echo:
            self.unheard_s = now

    def model_hears(self, now: float) -> None:
        """The model, too, heard him begin."""
        self._model_began_s = now
        self._rehears = now < self._rehears_until_s
        self.unheard_s, self._unheard_in_a_row = None, 0
        self._alone_s = None
        if not self._rehears:
            self._caller_s = now

    def model_hears_end(self, now: float) -> None:
        """The model heard him stop. If our ear heard him stop too, it knows better when."""
        if self.audible:
            self._alone_s = now
        ear_missed_him = self._ear_began_s < self._model_began_s - AGREE_S
        if self.audible or (ear_missed_him and now >= self._rehears_until_s):
            self._caller_s = now - min(self._turn_end_s, 1.0)

    def tell_unheard(self) -> int:
        """It is being dealt with; gives which step that is, 0 for none. After the first, noise at
        the caller's side must not cost a good model anything: it takes words to come to the second,
        and a sentence to come to the third, without which the first is done again.
        """
        self.unheard_s = None
        if self._unheard_in_a_row >= 1 and self._spoken_ms < WORDS_MS:
            return 0
        if self._unheard_in_a_row >= 2 and self._spoken_ms < LONG_MS:
            return 1
        self._unheard_in_a_row += 1
        return self._unheard_in_a_row

    def rehears(self, until_s: float) -> None:
        """What a new session hears until then, it hears a second time: the caller has long been
        silent. If it hears nothing, he is unheard, or it is not him that our ear still hears.
        """
        self._rehears_until_s = until_s
        self._model_began_s = -math.inf
        if self.audible:
            self._alone_s = until_s
        else:
            self.unheard_s = until_s

    def silent_since(self, now: float) -> None:
        """From here on silence is counted anew."""
        self._caller_s = now

    def heard_again(self, now: float) -> None:
        """The caller's audio is forwarded again: what he did before, the model learns only now."""
        if self._ear_stopped_s is not None and self._ear_stopped_s >= self._model_began_s:
            self._ear_stopped_s = now
        else:
            self._model_began_s = max(self._model_began_s, now)

    def done_speaking_s(self, softly_s: float = SOFTLY_S) -> float:
        """When our ear heard the end of what the model still takes for speech, plus the time that
        a healthy one may take to notice. What it did not hear at all, and what does not end for
        it, ends some time, too.
        """
        stopped, began = self._ear_stopped_s, self._model_began_s
        if self.audible:
            return max(self._ear_began_s, began) + SPEECH_MOST_S
        if stopped is None or (stopped < began and not self._rehears):
            return began + softly_s
        return max(stopped, began) + self._turn_end_s

    def stuck_at_s(self) -> float:
        """When a model that still hears the caller speak has to be given up."""
        done = self.done_speaking_s()
        return max(done + 1.0, done - self._turn_end_s + self._limits.stuck_s)

    # ------------------------------------------------------------------ silence

    def break_silence_at_s(
        self, opened_s: float, frame_s: float, *, caller_speaks: bool
    ) -> float | None:
        """When something has to be said, should nothing be heard until then; None: nothing can.

        `frame_s`: when the phone last sent anything. `caller_speaks`: as the model hears it.
        """
        if self._clips.get(Phrase.ONE_MOMENT) is None:
            return None
        sounds_until_s = self._playback.sounds_until_s() or opened_s
        heard_s = max(opened_s, self._caller_s, sounds_until_s)
        at_s = heard_s + self._limits.silence_s
        if self.audible and self._alone_s is not None:
            at_s = max(at_s, self._alone_s + CONFIRMED_S)
        elif self.audible:
            # He speaks for as long as his phone sends, unless it is something else that we hear.
            speaks_s = min(frame_s, self._ear_began_s + SPEECH_MOST_S)
            at_s = max(at_s, speaks_s + self._limits.silence_s)
        if not caller_speaks or self.audible:
            return at_s
        told = self._filled_s >= self._model_began_s
        return max(at_s, self.done_speaking_s(SOFTLY_S if told else SOFTLY_TOLD_S))

    def filler(self, now: float) -> tuple[str, Clip]:
        """What is said into the silence this time: a name for it, and the words."""
        self._fillers += 1
        self._filled_s = now
        phrase = Phrase.ONE_MOMENT if self._fillers % 3 == 1 else Phrase.STILL_HERE
        clip = self._clips.get(phrase) or self._clips.get(Phrase.ONE_MOMENT)
        assert clip is not None
        return f"filler_{self._fillers}", clip
