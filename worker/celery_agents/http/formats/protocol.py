"""What a format of events is: it turns the events of one execution into server-sent events for one viewer."""

from typing import ClassVar, Protocol

from agent_statestore.records import ExecutionSummary
from agent_statestore.streams import StreamEvent


class EventFormat(Protocol):
    """One object serves one response, and is called by one thread or task at a time, in the order of the stream.

    It is pure: it waits for nothing and reads nothing. Whoever sends the response adds the heartbeats, reads the
    stream, and ends the response. All bytes are whole messages (`celery_agents.http.formats.sse.message`).

    Attributes:
        headers: what the response has in addition to `Content-Type: text/event-stream`.
        needs_past: whether the format has to know what came before the viewer's cursor, such as which texts are open.
            Then `tell` is called with all events from the first on, and what it returns for those up to the cursor is
            not sent.
        needs_outputs: whether the events are to hold what tools have returned; see `outputs.with_outputs`.
    """

    headers: ClassVar[tuple[tuple[str, str], ...]]
    needs_past: ClassVar[bool]
    needs_outputs: ClassVar[bool]

    def __init__(self, summary: ExecutionSummary) -> None:
        """`summary` is the execution as it was when the request came."""
        ...

    def begin(self, after: int) -> bytes:
        """Return what comes before the first event. `after` is the viewer's cursor: 0 if it has seen nothing."""
        ...

    def tell(self, event: StreamEvent) -> bytes:
        """Return the messages that this event becomes: any number of them, b"" for none.

        Only the last of them has an `id`, and that is the number of the event: a viewer that was cut off between two of
        them has then seen none of the event, and gets all of it again. Unknown kinds are left out.
        """
        ...

    def end(self) -> bytes:
        """Return what comes after the last event of an execution that is over.

        It is not called for a response that ends earlier, such as after its longest time: the viewer asks for the rest.
        """
        ...
