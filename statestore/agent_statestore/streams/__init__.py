"""The streams of executions: what happened in each, in one order, to follow live and to read again from any place."""

from agent_statestore.streams.records import (
    MOST_EVENTS,
    MOST_READ,
    StreamEvent,
    StreamKind,
    StreamPage,
    StreamPart,
)

__all__ = ["MOST_EVENTS", "MOST_READ", "StreamEvent", "StreamKind", "StreamPage", "StreamPart"]
