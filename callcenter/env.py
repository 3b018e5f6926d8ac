"""Reads the environment once, checks every value and collects all mistakes instead of raising.

A mistake tells the variable, what was read and what is wanted; secrets are never repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong setting: its name, what was read (never a secret) and what is wanted."""

    name: str
    read: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.name}: read {self.read}, wanted {self.wanted}"


@dataclass
class Env:
    """The variables of a process over those of its `.env`, with readers that remember mistakes."""

    values: Mapping[str, str]
    mistakes: list[Mistake] = field(default_factory=list)

    @classmethod
    def load(cls, dotenv: Path) -> Env:
        """The environment wins over the file; a missing file is no mistake."""
        read = {key: value for key, value in dotenv_values(dotenv).items() if value is not None}
        return cls({**read, **os.environ})

    def wrong(self, name: str, wanted: str, *, secret: bool = False) -> None:
        # A login may stand in any address, right or wrong.
        raw = re.sub(r"//[^/]*@", "//…@", self.values.get(name, ""))
        shown = repr(raw) if not secret else f"a value of {len(raw)} characters"
        self.mistakes.append(Mistake(name, shown if raw else "nothing", wanted))

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, "").strip() or default

    def _parse(self, name: str, default: T, wanted: str, parse: Callable[[str], T]) -> T:
        raw = self.text(name)
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError:
            self.wrong(name, wanted)
            return default

    def flag(self, name: str, default: bool = False) -> bool:
        names = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

        def parse(raw: str) -> bool:
            if raw.lower() not in names:
                raise ValueError(raw)
            return names[raw.lower()]

        return self._parse(name, default, "1 or 0", parse)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        def parse(raw: str) -> int:
            if not least <= int(raw) <= most:
                raise ValueError(raw)
            return int(raw)

        return self._parse(name, default, f"a whole number from {least} to {most}", parse)

    def seconds(self, name: str, default: float, *, least: float, most: float) -> float:
        def parse(raw: str) -> float:
            if not least <= float(raw) <= most:
                raise ValueError(raw)
            return float(raw)

        return self._parse(name, default, f"seconds from {least:g} to {most:g}", parse)

    def choice(self, name: str, default: str, among: tuple[str, ...]) -> str:
        raw = self.text(name, default)
        if raw not in among:
            self.wrong(name, f"one of {', '.join(among)}")
            return default
        return raw

    def names(self, name: str, default: list[str]) -> list[str]:
        raw = self.text(name)
        return [part.strip() for part in raw.split(",") if part.strip()] if raw else default

    def url(self, name: str, default: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
        def parse(raw: str) -> str:
            parts = urlsplit(raw)
            if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(raw)
            if parts.port == 0:
                raise ValueError(raw)
            return raw.rstrip("/")

        wanted = f"an address such as {schemes[-1]}://example.com, without a query"
        return self._parse(name, default, wanted, parse)

    def checked(self, name: str, wanted: str, check: Callable[[str], object]) -> str:
        """A text that somebody else's function knows how to read: it raises ValueError if not."""

        def parse(raw: str) -> str:
            check(raw)
            return raw

        return self._parse(name, "", wanted, parse)
