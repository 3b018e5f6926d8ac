"""Rows: who answers (`agents`), what happened in calls (`calls`), and the processes (`nodes`)."""

from __future__ import annotations

from sessions_app.models.agents import Agent, PhoneNumber
from sessions_app.models.calls import (
    CallCommand,
    CallEvent,
    CallRecord,
    CallState,
    CommandKind,
    CommandState,
    SummaryState,
    TranscriptTurn,
)
from sessions_app.models.nodes import Node

__all__ = [
    "Agent",
    "CallCommand",
    "CallEvent",
    "CallRecord",
    "CallState",
    "CommandKind",
    "CommandState",
    "Node",
    "PhoneNumber",
    "SummaryState",
    "TranscriptTurn",
]
