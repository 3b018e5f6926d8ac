"""The `openai` package's own types as a judge of what we send.

Its models let unknown fields pass, so those are looked for, all the way down. Ranges it does not
know: tests must state them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import BaseModel, ConfigDict, TypeAdapter


def _by_type(alias: Any) -> dict[str, type[BaseModel]]:
    union = get_args(alias)[0] if get_origin(alias) is Annotated else alias
    return {
        name: model
        for model in get_args(union)
        for name in get_args(model.model_fields["type"].annotation)
    }


_CLIENT = _by_type(RealtimeClientEvent)
_SERVER = _by_type(RealtimeServerEvent)
_RESPONSES = TypeAdapter(
    ResponseCreateParamsNonStreaming | None, config=ConfigDict(extra="forbid", strict=True)
)


def _unknown_fields(value: Any, path: str = "$") -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _unknown_fields(getattr(value, name, None), f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _unknown_fields(each, f"{path}[{index}]")


def check_client(event: dict[str, Any]) -> dict[str, Any]:
    """The event itself, if it is one that a Realtime client may send; raises otherwise."""
    model = _CLIENT[event["type"]].model_validate(event, strict=True)
    unknown = list(_unknown_fields(model))
    assert not unknown, f"unknown fields: {unknown}"
    return event


def check_server(event: dict[str, Any]) -> dict[str, Any]:
    """The event itself, if a Realtime server could have sent it; more fields than known pass."""
    _SERVER[event["type"]].model_validate(event, strict=True)
    return event


def check_responses_request(body: dict[str, Any]) -> dict[str, Any]:
    """The body itself, if the Responses API takes it; raises otherwise."""
    _RESPONSES.validate_python(body)
    return body
