"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """Progress, beside the result on standard output."""
    print(text, file=sys.stderr, flush=True)


def parser(doc: str | None, systems: Collection[str]) -> argparse.ArgumentParser:
    """From a module's words of itself; with `--systems`, `--database`, `--redis` and `--json`."""
    about, _, more = (doc or "").partition("\n\n")
    it = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument(
        "--systems", type=some_of(systems), default=list(systems), help=f"of {', '.join(systems)}"
    )
    it.add_argument("--database", default="", help="a PostgreSQL to make a database on")
    it.add_argument("--redis", default="", help="the URL of a Redis for the channel layer")
    it.add_argument("--json", type=Path, help="write the figures there, too")
    return it


def some_of(names: Collection[str]) -> Callable[[str], list[str]]:
    """Reads a list such as `a,b`."""

    def read(text: str) -> list[str]:
        asked = text.split(",")
        if unknown := set(asked) - set(names):
            raise argparse.ArgumentTypeError(
                f"read {', '.join(sorted(unknown))}, wanted {', '.join(names)}"
            )
        return asked

    return read


def up_to(most: int) -> Callable[[str], int]:
    """Reads a whole number from 1."""

    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"read {text}, wanted 1 to {most}")
        return int(text)

    return read


def write_json(path: Path | None, figures: Sequence[Any]) -> None:
    """Dataclasses, as a list of objects; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")
