"""A JSON value that conforms to a JSON schema: tool arguments and structured answers of a scripted
model.
"""

from __future__ import annotations

from typing import Any


def value_for(schema: Any, name: str = "", text: str = "") -> Any:
    """The simplest value of ``schema``; strings become ``text`` (or a word about ``name``),
    nullable ones null.

    Understands what strict structured output allows: the basic types, ``enum``, ``const``,
    ``anyOf``, arrays and objects. An unknown schema gives ``None``.
    """
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return _chosen(schema["enum"])
    if schema.get("anyOf"):
        options = schema["anyOf"]
        null = [o for o in options if isinstance(o, dict) and o.get("type") == "null"]
        return None if null else value_for(options[0], name, text)
    kind = schema.get("type")
    if isinstance(kind, list):
        return None if "null" in kind else value_for({**schema, "type": kind[0]}, name, text)
    return _of_type(kind, schema, name, text)


def _chosen(values: list[Any]) -> Any:
    """The middle of the road: ``neutral`` or ``other`` where there is one, else the first."""
    for harmless in ("neutral", "other", "unknown", "none"):
        if harmless in values:
            return harmless
    return values[0]


def _of_type(kind: Any, schema: dict[str, Any], name: str, text: str) -> Any:
    match kind:
        case "string":
            shown = text or f"sample {name}".strip()
            return shown[: schema.get("maxLength", len(shown))].ljust(schema.get("minLength", 0))
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "array":
            return [value_for(schema.get("items"), name, text)] * int(schema.get("minItems", 0))
        case "object":
            return {
                key: value_for(property_schema, key, text)
                for key, property_schema in schema.get("properties", {}).items()
            }
        case _:
            return None
