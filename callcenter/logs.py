"""How log lines look: the call's uuid first, nothing secret, no number in full."""

from __future__ import annotations

import json
import logging
import re
import time

from sessions_app.logcontext import current_call, masked

_SECRETS = (
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+"), r"\1 …"),
    (re.compile(r"\bsk-[\w-]{6,}"), "sk-…"),
    (re.compile(r"(/media/|/browser-call/)[\w:.%~-]+"), r"\1…"),
)
# A phone number stands alone; the digits of a uuid have letters or hyphens beside them.
_NUMBER = re.compile(r"(?<![\w.:-])\+?(\d{9,15})(?![\w:-])")


def redacted(text: str) -> str:
    """The text without bearer tokens, keys, socket tickets and full phone numbers."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return _NUMBER.sub(lambda found: masked(found.group(1)), text)


def _message(record: logging.LogRecord) -> str:
    text = redacted(record.getMessage())
    call = current_call.get()
    return f"[{call}] {text}" if call and not text.startswith("[") else text


class TextFormatter(logging.Formatter):
    """`2026-11-23T10:00:00.123Z INFO [uuid] message`, with the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {_message(record)}"
        if record.exc_info:
            line = f"{line}\n{redacted(self.formatException(record.exc_info))}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, call, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if call := current_call.get():
            entry["call"] = call
        if record.exc_info:
            entry["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def silence_access_log() -> None:
    """Daphne prints a line for each request unless told not to; queries hold numbers, paths hold
    tickets. `callcenter.server` does not ask for it, but whoever starts plain `daphne` might.
    """
    from daphne.access import AccessLogGenerator

    AccessLogGenerator.write_entry = lambda self, *args, **kwargs: None
