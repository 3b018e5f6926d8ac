"""Cuts an agent's words, as they stream in, into clauses to be spoken one after the other."""

from __future__ import annotations

import re

#: A sentence ends here if white space follows: "3.5" and "e.g." inside a word do not.
_SENTENCE = re.compile(r"[.!?…:;][\"')\]»”]*\s+|\n+")
#: The first clause may end earlier, so that the voice can begin.
_PAUSE = re.compile(r"[,–—][\"')\]»”]*\s+")
_ABBREVIATION = re.compile(r"(?:^|\s)(?:Mr|Mrs|Ms|Dr|St|No|e\.g|i\.e|etc|vs|[A-Z])\.\s*$")

FIRST_CLAUSE_LEAST = 20
CLAUSE_MOST = 300


class Clauses:
    """Text in by pieces, clauses out, each as soon as it is complete."""

    def __init__(self) -> None:
        self._text = ""
        self._given = 0

    def feed(self, text: str) -> list[str]:
        self._text += text
        clauses = []
        while (clause := self._next()) is not None:
            clauses.append(clause)
        return clauses

    def flush(self) -> list[str]:
        """What is left when no more words come."""
        rest, self._text = self._text.strip(), ""
        return [rest] if rest else []

    def _next(self) -> str | None:
        while (end := self._end()) is not None:
            clause, self._text = self._text[:end].strip(), self._text[end:]
            if clause:
                self._given += 1
                return clause
        return None

    def _end(self) -> int | None:
        """Where the text at hand is to be cut next; None: wait for more of it."""
        self._text = self._text.lstrip()
        end = self._sentence_end()
        if end is None and self._given == 0:
            end = self._pause_end()
        if (end or len(self._text)) <= CLAUSE_MOST:
            return end
        space = self._text.rfind(" ", 0, CLAUSE_MOST)
        return space + 1 if space > 0 else CLAUSE_MOST

    def _sentence_end(self) -> int | None:
        for found in _SENTENCE.finditer(self._text, 0, CLAUSE_MOST):
            if not _ABBREVIATION.search(self._text[: found.end()]):
                return found.end()
        return None

    def _pause_end(self) -> int | None:
        for found in _PAUSE.finditer(self._text, 0, CLAUSE_MOST):
            if found.start() >= FIRST_CLAUSE_LEAST:
                return found.end()
        return None
