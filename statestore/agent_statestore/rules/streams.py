"""Which events of a part are appended to a stream, and under which numbers."""

from typing import NamedTuple

from agent_statestore.codec.streams import EncodedPart


class StreamEnd(NamedTuple):
    """Where a stream ends: the number of its last event, and the highest place of an attempt's event in it."""

    last: int = 0
    place: int = 0


def appended(end: StreamEnd, part: EncodedPart, now_us: int) -> tuple[StreamEnd, list[tuple[int, str]]]:
    """Return where the stream then ends, and the new events by number; those that it has are left out."""
    place, texts = part
    texts = texts[max(end.place + 1 - place, 0) :] if place else texts
    if not texts:
        return end, []
    first = max(end.last + 1, now_us)
    rows = list(enumerate(texts, first))
    return StreamEnd(rows[-1][0], max(end.place, place + len(part.texts) - 1) if place else end.place), rows
