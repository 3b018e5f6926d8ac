"""What `make run` fills in where nobody set anything, so that it runs at a desk without a setting.

Only `make run` does this, and `manage.py` where it has been: the commands then mean the same
installation. A server that is started by itself wants its settings told.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from callcenter.env import Env

BASE_DIR: Final = Path(__file__).resolve().parent.parent


def fill_in(directory: Path = BASE_DIR) -> None:
    """Sets, for this process and its children, what neither the environment nor `.env` has."""
    env = Env.load(directory / ".env")
    if not env.text("SECRET_KEY"):
        os.environ["SECRET_KEY"] = kept_secret(_secret_file(directory))
    if not env.text("AI_PROVIDER") and not env.text("OPENAI_API_KEY"):
        os.environ["AI_PROVIDER"] = "sandbox"


def fill_in_as_before(directory: Path = BASE_DIR) -> None:
    """The same, but only where it has been done before."""
    if _secret_file(directory).exists():
        fill_in(directory)


def _secret_file(directory: Path) -> Path:
    return directory / "var" / "secret_key"


def kept_secret(file: Path) -> str:
    """The key in the file, made at the first time: restarts log nobody out."""
    kept = file.read_text().strip() if file.exists() else ""
    if kept:
        return kept
    made = secrets.token_urlsafe(48)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(made)
    return made
