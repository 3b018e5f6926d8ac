"""Strict reading of what a client sends to OpenAI's API: one small checker per shape.

A checker takes a value and its path (``session.audio.input``) and returns nothing; what is wrong is
raised as ``WireError`` with the code, message and ``param`` that the API's ``error`` event carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = Callable[[Any, str], None]


class WireError(Exception):
    """An event was refused: becomes an ``error`` event with these fields."""

    def __init__(
        self,
        code: str | None,
        message: str,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind


_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _wrong_type(value: Any, path: str, wanted: str) -> WireError:
    got = _KINDS.get(type(value), "something else")
    return WireError(
        "invalid_type",
        f"Invalid type for '{path}': expected {wanted}, but got {got} instead.",
        path,
    )


def string(min_chars: int = 0, max_chars: int = 1 << 20) -> Check:
    """A string within these lengths."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise _wrong_type(value, path, "a string")
        if len(value) > max_chars:
            raise WireError(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length "
                f"{max_chars}, but got a string with length {len(value)} instead.",
                path,
            )
        if len(value) < min_chars:
            raise WireError("string_below_min_length", f"Invalid '{path}': string too short.", path)

    return check


def boolean(value: Any, path: str) -> None:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise _wrong_type(value, path, "a boolean")


def integer(low: int, high: int) -> Check:
    """A whole number from ``low`` to ``high``."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, path, "an integer")
        _in_range(value, path, low, high, "integer")

    return check


def number(low: float, high: float) -> Check:
    """Any number from ``low`` to ``high``."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong_type(value, path, "a decimal")
        _in_range(value, path, low, high, "decimal")

    return check


def _in_range(value: float, path: str, low: float, high: float, kind: str) -> None:
    if value < low:
        code, side, limit = f"{kind}_below_min_value", "below minimum", low
    elif value > high:
        code, side, limit = f"{kind}_above_max_value", "above maximum", high
    else:
        return
    raise WireError(
        code, f"Invalid '{path}': {kind} {side} value. The limit is {limit}, but got {value}.", path
    )


def one_of(*allowed: Any) -> Check:
    """Exactly one of these values."""

    def check(value: Any, path: str) -> None:
        if not any(value == a and type(value) is type(a) for a in allowed):
            listed = ", ".join(f"'{a}'" for a in allowed)
            raise WireError(
                "invalid_value",
                f"Invalid value: {value!r:.80}. Supported values are: {listed}.",
                path,
            )

    return check


def nullable(check: Check) -> Check:
    """``null``, or what ``check`` wants."""

    def checked(value: Any, path: str) -> None:
        if value is not None:
            check(value, path)

    return checked


def array(check: Check, max_items: int = 1000) -> Check:
    """A list of what ``check`` wants."""

    def checked(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise _wrong_type(value, path, "an array")
        if len(value) > max_items:
            raise WireError("array_above_max_length", f"Invalid '{path}': array too long.", path)
        for index, element in enumerate(value):
            check(element, f"{path}[{index}]")

    return checked


def record(fields: Mapping[str, Check], required: Sequence[str] = ()) -> Check:
    """An object with only these fields, ``required`` among them. With no path, the fields are
    top-level ones.
    """

    def checked(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, "an object")
        dot = f"{path}." if path else ""
        for key in required:
            if key not in value:
                raise WireError(
                    "missing_required_parameter",
                    f"Missing required parameter: '{dot}{key}'.",
                    dot + key,
                )
        for key, field in value.items():
            if key not in fields:
                raise WireError("unknown_parameter", f"Unknown parameter: '{dot}{key}'.", dot + key)
            fields[key](field, dot + key)

    return checked


def tagged(variants: Mapping[str, Check], tag: str = "type") -> Check:
    """An object whose ``tag`` names which of the variants it is."""

    def checked(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, "an object")
        where = f"{path}.{tag}" if path else tag
        if tag not in value:
            raise WireError(
                "missing_required_parameter", f"Missing required parameter: '{where}'.", where
            )
        one_of(*variants)(value[tag], where)
        variants[value[tag]](value, path)

    return checked


def either(*options: tuple[type, Check]) -> Check:
    """Chooses the checker by the value's own type."""

    def checked(value: Any, path: str) -> None:
        for kind, check in options:
            if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
                return check(value, path)
        wanted = " or ".join(_KINDS[kind] for kind, _ in options)
        raise _wrong_type(value, path, wanted)

    return checked


def free_object(value: Any, path: str) -> None:
    """Any object; what is inside is not looked at."""
    if not isinstance(value, dict):
        raise _wrong_type(value, path, "an object")


def string_pairs(max_pairs: int = 16, max_key: int = 64, max_value: int = 512) -> Check:
    """``metadata``: a few short strings by name."""

    def checked(value: Any, path: str) -> None:
        free_object(value, path)
        if len(value) > max_pairs:
            raise WireError(
                "object_above_max_properties", f"Invalid '{path}': too many properties.", path
            )
        for key, content in value.items():
            string(1, max_key)(key, f"{path}.{key}")
            string(0, max_value)(content, f"{path}.{key}")

    return checked
