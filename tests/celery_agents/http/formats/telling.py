"""Streams as agents write them, and what formats make of them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from agent_statestore import AgentState, ExecutionSummary
from agent_statestore.streams import StreamEvent
from celery_agents.http.formats.front_end import FrontEndFormat

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = "0197f3c5-0000-7000-8000-00000000000a"


def summary(**fields: Any) -> ExecutionSummary:
    known: dict[str, Any] = {
        "execution_id": ID,
        "agent_id": "writer",
        "session_id": "thread",
        "user_id": "ada",
        "state": AgentState.THINKING,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return ExecutionSummary(**(known | fields))


class Script:
    """A stream that is written event by event, numbered as a store does."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self.attempt = 1

    def __call__(self, kind: str, step: str = "", tried: int = 0, **data: Any) -> StreamEvent:
        number = 1_000 + 7 * len(self.events)
        tried = tried or (1 if step else 0)
        self.events.append(
            StreamEvent(
                kind=kind, data=data, at=NOW, attempt=self.attempt, seq=1, step=step, tried=tried, number=number
            )
        )
        return self.events[-1]

    def claim(self, kind: str) -> StreamEvent:
        self.attempt += 1
        return self(kind, worker="w")

    @property
    def last(self) -> int:
        return self.events[-1].number or 0


def told(format: FrontEndFormat, events: Iterable[StreamEvent], after: int = 0) -> str:
    """The whole response to a viewer who has seen all up to `after`."""
    pieces = [format.begin(after)]
    for event in events:
        piece = format.tell(event)
        assert not piece or (event.number or 0) > after
        pieces.append(piece)
        if format.is_done and (event.number or 0) > after:
            break
    else:
        pieces.append(format.end())
    return b"".join(pieces).decode()


def objects(text: str) -> list[Any]:
    """The JSON objects in a response."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def ids(text: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]


def parts_of(message: dict[str, Any], *kinds: str) -> Sequence[Any]:
    """The parts of a message of `useChat` that are of these types."""
    return [part for part in message["parts"] if part["type"] in kinds]
