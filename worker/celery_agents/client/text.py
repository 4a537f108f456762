"""The text that an execution's models say, as a reader gets it piece by piece."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from agent_statestore.records import ExecutionSummary, JSONValue
from agent_statestore.streams.records import StreamEvent, StreamKind

# A claim after one that may have said what it did not record.
CLAIMS = frozenset({StreamKind.STARTED, StreamKind.RESUMED, StreamKind.RECOVERED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPiece:
    """The next piece of a text. `str` of it is the piece.

    Attributes:
        delta: the piece.
        step: the step whose text it continues; "" for the agent's own code.
        begins_anew: whether all that was said for this step before is void: the try failed, or its worker died. The
            piece is the first of the new text.
        number: the place in the stream.
    """

    delta: str
    step: str
    begins_anew: bool
    number: int

    def __str__(self) -> str:
        return self.delta


class TextPieces:
    """Makes pieces of events, and knows which steps were left without a record."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._void: set[str] = set()

    def piece_of(self, event: StreamEvent) -> TextPiece | None:
        """Return the piece of text that an event brings, if it does."""
        step = event.step
        if event.kind == StreamKind.TEXT:
            piece = TextPiece(
                delta=str(event.data.get("delta", "")),
                step=step,
                begins_anew=step in self._void,
                number=event.number or 0,
            )
            self._void.discard(step)
            self._open.add(step)
            return piece
        if event.kind == StreamKind.STEP_RECORDED:
            self._open.discard(step)
            self._void.discard(step)
        elif event.kind == StreamKind.TRY_FAILED and step in self._open:
            self._void.add(step)
        elif event.kind in CLAIMS:
            self._void |= self._open - {""}  # what the code says between steps is said once
        return None


def pieces_of(events: Iterable[StreamEvent]) -> Iterator[TextPiece]:
    """Yield the pieces of text in these events."""
    seen = TextPieces()
    for event in events:
        piece = seen.piece_of(event)
        if piece is not None:
            yield piece


async def async_pieces_of(events: AsyncIterable[StreamEvent]) -> AsyncIterator[TextPiece]:
    """Yield the pieces of text in these events."""
    seen = TextPieces()
    async for event in events:
        piece = seen.piece_of(event)
        if piece is not None:
            yield piece


def ended_as(summary: ExecutionSummary) -> StreamEvent:
    """Return the last word on an execution whose stream does not have it: an older version has ended it, say."""
    data: dict[str, JSONValue] = {"state": summary.state.value}
    if summary.error is not None:
        data["error"] = {"type": summary.error.type, "message": summary.error.message}
    return StreamEvent(kind=StreamKind.ENDED, data=data, at=summary.ended_at or summary.updated_at)
