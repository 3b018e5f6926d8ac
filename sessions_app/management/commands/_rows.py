"""How commands print rows: a table for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def as_json(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps(list(rows), indent=2, ensure_ascii=False, default=str)


def as_table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """Columns under their names, each as wide as it must be; no line ends in spaces."""
    lines = [list(columns), *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
