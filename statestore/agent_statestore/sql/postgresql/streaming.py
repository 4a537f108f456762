"""The parts of statements on PostgreSQL that append events to streams.

The row of an execution says where its stream ends. Who appends has locked that row until the commit, and nobody sees an
event before, so whoever has read up to a number has missed nothing below it.

Several texts travel as one with a line for each, and none has a line break in it: they are JSON. An array of texts
would take the driver longer than the server needs for all of the rest.
"""

from typing import Any, Final

from agent_statestore.codec.streams import EncodedPart
from agent_statestore.sql.postgresql.shapes import StreamShape
from agent_statestore.sql.tables import Tables

# Comes before no event from outside of the attempts, and after all places.
_NO_PLACE: Final = (1 << 63) - 1

# How many of the first events the stream has already; `seen` is the row as it was before.
SKIPPED: Final = "GREATEST(seen.stream_place + 1 - CAST(:stream_from AS bigint), 0)"


def lines(text: str) -> str:
    """Return the array, in SQL, of the lines of a text."""
    return f"string_to_array({text}, chr(10))"


def bounds_of(part: EncodedPart) -> tuple[int, int]:
    """Return the places of the first and the last event as statements compare them with `stream_place`."""
    return (part.place, part.place + len(part.texts) - 1) if part.place else (_NO_PLACE, 0)


def stream_params(part: EncodedPart) -> dict[str, Any]:
    """Return the parameters of the parts below."""
    first, last = bounds_of(part)
    return {
        "stream_from": first,
        "stream_to": last,
        "stream_count": len(part.texts),
        "stream_texts": "\n".join(part.texts),
    }


def stream_changes(shape: StreamShape, now: str) -> dict[str, str]:
    """Return the assignments to the row, `c` before, by which a checkpoint appends events.

    Those of `ONE` and `MANY` must be new: `c.stream_place < :stream_from`. `ONE` is of an attempt.
    """
    if shape is StreamShape.NONE:
        return {}
    last = f"GREATEST(c.stream_last + 1, {now})"
    if shape is StreamShape.ONE:
        return {"stream_last": last, "stream_place": ":stream_from"}
    if shape is StreamShape.MANY:
        last += " + :stream_count - 1"
    elif shape is StreamShape.GENERAL:
        last = f"CASE WHEN {SKIPPED} < :stream_count THEN {last} + :stream_count - 1 - {SKIPPED} ELSE c.stream_last END"
    return {"stream_last": last, "stream_place": "GREATEST(c.stream_place, :stream_to)"}


def events_part(tables: Tables, shape: StreamShape, texts: str = ":stream_texts") -> str:
    """Return the part of a statement that stores the events, the last of them under `head.stream_last`."""
    insert = f"events AS (INSERT INTO {tables.events} (execution_id, number, data) SELECT head.execution_id, "
    if shape is StreamShape.ONE:
        return f"{insert}head.stream_last, {texts} FROM head)"
    condition = " WHERE event.place > head.stream_skipped" if shape is StreamShape.GENERAL else ""
    return (
        f"{insert}head.stream_last - :stream_count + event.place, event.data "
        f"FROM head, unnest({lines(texts)}) WITH ORDINALITY AS event(data, place){condition})"
    )
