"""What each phrase is, for one agent: whose voice, which language, which words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sessions_app.core.agent import AgentProfile, VoiceKind, main_language
from sessions_app.core.phrases import Phrase
from sessions_app.core.prompts import say_exactly

ENGLISH = "en"

#: The house's own words, in the languages whose words we are sure of. There is no greeting among
#: them: that is the agent's own.
HOUSE: Mapping[str, Mapping[Phrase, str]] = {
    ENGLISH: {
        Phrase.ONE_MOMENT: "One moment, please.",
        Phrase.STILL_HERE: "I am still here. Thank you for waiting.",
        Phrase.APOLOGY: "I am sorry, we have a technical problem and I cannot go on. "
        "Please call again in a few minutes. Goodbye.",
        Phrase.GOODBYE: "Thank you for calling. Goodbye.",
    },
    "de": {
        Phrase.ONE_MOMENT: "Einen Moment, bitte.",
        Phrase.STILL_HERE: "Ich bin noch da. Danke für Ihre Geduld.",
        Phrase.APOLOGY: "Es tut mir leid, wir haben ein technisches Problem, und ich kann nicht "
        "weitermachen. Bitte rufen Sie in ein paar Minuten wieder an. Auf Wiederhören.",
        Phrase.GOODBYE: "Vielen Dank für Ihren Anruf. Auf Wiederhören.",
    },
    "fr": {
        Phrase.ONE_MOMENT: "Un instant, s'il vous plaît.",
        Phrase.STILL_HERE: "Je suis toujours là. Merci de patienter.",
        Phrase.APOLOGY: "Toutes nos excuses, nous avons un problème technique et je ne peux pas "
        "continuer. Veuillez rappeler dans quelques minutes. Au revoir.",
        Phrase.GOODBYE: "Merci de votre appel. Au revoir.",
    },
    "es": {
        Phrase.ONE_MOMENT: "Un momento, por favor.",
        Phrase.STILL_HERE: "Sigo aquí. Gracias por esperar.",
        Phrase.APOLOGY: "Lo siento, tenemos un problema técnico y no puedo continuar. "
        "Por favor, vuelva a llamar en unos minutos. Adiós.",
        Phrase.GOODBYE: "Gracias por su llamada. Adiós.",
    },
    "it": {
        Phrase.ONE_MOMENT: "Un momento, per favore.",
        Phrase.STILL_HERE: "Sono ancora qui. Grazie per l'attesa.",
        Phrase.APOLOGY: "Mi dispiace, abbiamo un problema tecnico e non posso continuare. "
        "La preghiamo di richiamare tra qualche minuto. Arrivederci.",
        Phrase.GOODBYE: "Grazie per la chiamata. Arrivederci.",
    },
    "nl": {
        Phrase.ONE_MOMENT: "Een ogenblik, alstublieft.",
        Phrase.STILL_HERE: "Ik ben er nog. Bedankt voor het wachten.",
        Phrase.APOLOGY: "Het spijt me, we hebben een technisch probleem en ik kan niet verdergaan. "
        "Belt u over een paar minuten alstublieft terug. Tot ziens.",
        Phrase.GOODBYE: "Bedankt voor het bellen. Tot ziens.",
    },
    "pt": {
        Phrase.ONE_MOMENT: "Um momento, por favor.",
        Phrase.STILL_HERE: "Ainda estou aqui. Agradeço a sua espera.",
        Phrase.APOLOGY: "Lamento, temos um problema técnico e não posso continuar. "
        "Por favor, volte a ligar dentro de alguns minutos. Até logo.",
        Phrase.GOODBYE: "Agradecemos a sua chamada. Até logo.",
    },
}

#: Part of every name: raised when recordings made so far would no longer do.
_EDITION = 1


@dataclass(frozen=True)
class Wanted:
    """One phrase in one voice. Not `exact`: said in the language, in the model's own words."""

    phrase: Phrase
    text: str
    voice_kind: VoiceKind
    voice: str
    language: str
    exact: bool = True

    @cached_property
    def name(self) -> str:
        """Of its file: another text or another voice is another file, so an old one is never
        wrong.
        """
        parts = [_EDITION, self.voice_kind, self.voice, self.language, self.phrase, self.text]
        digest = hashlib.sha256(json.dumps([*parts, self.exact]).encode()).hexdigest()
        return f"{self.phrase}-{digest[:32]}.wav"

    @property
    def instructions(self) -> str:
        """What a model that speaks itself is asked."""
        if self.exact:
            return say_exactly(self.text)
        return f"Say in the language {self.language}, translated and nothing else: {self.text}"


def letters(text: str) -> int:
    """How much of the text is spoken at all."""
    return sum(character.isalnum() for character in text)


def wanted(agent: AgentProfile) -> tuple[Wanted, ...]:
    """Every phrase of this agent. The operator's own words are spoken as they stand; an agent
    without a greeting greets in its own words, so there is nothing to prepare.
    """
    main = main_language(agent.language)
    # Speechmatics' voices speak English only, whatever the agent's language says.
    english = agent.voice_kind is VoiceKind.SPEECHMATICS
    house = HOUSE[ENGLISH] if english else HOUSE.get(main, HOUSE[ENGLISH])
    translated = not english and main not in HOUSE
    own = {Phrase.GREETING: agent.greeting.strip(), Phrase.APOLOGY: agent.apology.strip()}
    found = []
    for phrase in Phrase:
        text = own.get(phrase, "")
        exact = bool(text) or not translated
        text = text or house.get(phrase, "")
        if letters(text):
            found.append(Wanted(phrase, text, agent.voice_kind, agent.voice, agent.language, exact))
    return tuple(found)
