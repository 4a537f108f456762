"""Our own format: each event of the stream as it is, as JSON."""

import json
from typing import ClassVar

from agent_statestore.records import ExecutionSummary
from agent_statestore.streams import StreamEvent
from celery_agents.http.formats.sse import message
from celery_agents.http.views import view_of_event


class Events:
    """Each event as one message: `id` is its number, `event` its kind, `data` what `view_of_event` returns."""

    headers: ClassVar[tuple[tuple[str, str], ...]] = ()
    needs_past: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False

    def __init__(self, summary: ExecutionSummary) -> None:
        """It is told the same whatever the execution is."""
        del summary

    def begin(self, after: int) -> bytes:
        """Return nothing; see `EventFormat`."""
        del after
        return b""

    def tell(self, event: StreamEvent) -> bytes:
        """Return the event as one message; see `EventFormat`."""
        return message(json.dumps(view_of_event(event)), event=event.kind, id=event.number)

    def end(self) -> bytes:
        """Return nothing, as the event `ended` has said it; see `EventFormat`."""
        return b""
