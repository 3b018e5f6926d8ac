"""OpenAI's own types as the judge of the events that the sandbox sends."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel


def _members(alias: Any) -> tuple[type[BaseModel], ...]:
    return get_args(get_args(alias)[0] if get_origin(alias) is Annotated else alias)


SERVER_EVENTS = {
    name: model
    for model in _members(RealtimeServerEvent)
    for name in get_args(model.model_fields["type"].annotation)
}


def check_server_event(event: dict[str, Any]) -> None:
    """Raises when a field is missing or mistyped (extra fields pass, as on the real wire)."""
    SERVER_EVENTS[event["type"]].model_validate(event, strict=True)
