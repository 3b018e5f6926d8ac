"""Rows: who answers (`agents`), what happened in calls (`calls`), the processes (`nodes`),
and when they connect calls (`pacing`)."""

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
from sessions_app.models.pacing import ConnectPace

__all__ = [
    "Agent",
    "CallCommand",
    "CallEvent",
    "CallRecord",
    "CallState",
    "CommandKind",
    "CommandState",
    "ConnectPace",
    "Node",
    "PhoneNumber",
    "SummaryState",
    "TranscriptTurn",
]
