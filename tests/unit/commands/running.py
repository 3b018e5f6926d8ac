"""Running a management command and reading what it printed."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from django.core.management import call_command


def output_of(*command: str) -> str:
    """What the command printed; raises CommandError as the command does."""
    out = StringIO()
    call_command(*command, stdout=out, no_color=True)
    return out.getvalue()


def rows_of(*command: str) -> Any:
    """What the command printed as JSON."""
    return json.loads(output_of(*command, "--json"))
