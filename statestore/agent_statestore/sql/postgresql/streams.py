"""The events of executions on PostgreSQL; see `StreamPrimitives` for each primitive."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from agent_statestore.clock import Clock
from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.records import Lease
from agent_statestore.sql.database import Database
from agent_statestore.sql.postgresql.repeating import Repeating
from agent_statestore.sql.postgresql.streaming import bounds_of, lines
from agent_statestore.sql.tables import Tables
from agent_statestore.states import AgentState
from agent_statestore.streams.records import Appended

# A notification carries less than 8000 bytes.
_MOST_BYTES: Final = 7_900


class PostgreSQLStreams(Repeating):
    """The primitives on streams, each one statement."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        self._append_parts = append_statement(self._tables, database.now)
        self._read_streams = read_statement(self._tables)
        self._trim_stream = trim_statement(self._tables)
        channel = channel_of(self._tables)
        self._tell_readers = f"SELECT pg_notify({channel}, note) FROM unnest(CAST(:notes AS text[])) AS told(note)"

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        bounds = [bounds_of(part) for _, part in parts]
        params = {
            "ids": [lease.execution_id for lease, _ in parts],
            "tokens": [lease.token for lease, _ in parts],
            "firsts": [first for first, _ in bounds],
            "lasts": [last for _, last in bounds],
            "texts": ["\n".join(part.texts) for _, part in parts],
            "now": self.now_us(),
        }
        watched: dict[str, bool] = dict(self._database.run(self._append_parts, params))
        return [
            Appended(accepted=lease.execution_id in watched, is_watched=watched.get(lease.execution_id, False))
            for lease, _ in parts
        ]

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        params = {"ids": list(cursors), "cursors": list(cursors.values()), "rows": limit}
        return {
            execution_id: StoredStream(
                tuple(zip(numbers or (), texts or (), strict=True)), last, trimmed_to, AgentState(state).is_over
            )
            for execution_id, state, last, trimmed_to, numbers, texts in self._database.run(self._read_streams, params)
        }

    def trim_stream(self, execution_id: str, keep: int) -> int:
        rows = self._database.run(self._trim_stream, {"execution_id": execution_id, "keep": keep})
        return int(rows[0][0])

    def tell_readers(self, execution_ids: Iterable[str]) -> None:
        """See `StreamPrimitives.tell_readers`; one round trip, and one commit."""
        notes = list(_notes(execution_ids))
        if notes:
            self._database.change(self._tell_readers, {"notes": notes})


def channel_of(tables: Tables) -> str:
    """Return the name, in SQL, of the channel on which the readers of a store are told.

    It is that of the table itself, whichever way each process finds it. A channel belongs to one database.
    """
    return f"'agent_streams_' || CAST(CAST('{tables.contexts}' AS regclass) AS oid)"


def _notes(execution_ids: Iterable[str]) -> Iterator[str]:
    """Yield texts that name all of these executions, each as large as a notification may be."""
    names: list[str] = []
    size = 0
    for execution_id in execution_ids:
        added = len(json.dumps(execution_id)) + 2
        if size + added > _MOST_BYTES:
            yield json.dumps(names)
            names, size = [], 0
        names.append(execution_id)
        size += added
    if names:
        yield json.dumps(names)


def append_statement(tables: Tables, now: str) -> str:
    """Return the statement that appends a part to each of several streams.

    It gives the id of each execution whose lease lives, and whether readers wait to be told.
    """
    return (
        # Rows are locked in the order of their ids, so that two statements that take many never wait for each other.
        # What a locked row says is what the last writer has left, also after a wait for him.
        "WITH held AS MATERIALIZED (SELECT c.execution_id, part.last, "
        f"{lines('part.texts')} AS texts, GREATEST(c.stream_place + 1 - part.first, 0) AS skipped "
        f"FROM {tables.contexts} AS c, unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[]), "
        "CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]), CAST(:texts AS text[])) "
        "AS part(id, token, first, last, texts) "
        f"WHERE c.execution_id = part.id AND c.token = part.token AND c.lease_until_us > {now} "
        "ORDER BY c.execution_id FOR NO KEY UPDATE OF c), "
        f"head AS (UPDATE {tables.contexts} AS c SET stream_last = CASE WHEN held.skipped < cardinality(held.texts) "
        f"THEN GREATEST(c.stream_last + 1, {now}) + cardinality(held.texts) - 1 - held.skipped ELSE c.stream_last END, "
        "stream_place = GREATEST(c.stream_place, held.last) FROM held WHERE c.execution_id = held.execution_id "
        "RETURNING c.execution_id, c.stream_last, held.skipped, held.texts, "
        f"c.watched_until_us > {now} AS is_watched), "
        f"events AS (INSERT INTO {tables.events} (execution_id, number, data) SELECT head.execution_id, "
        "head.stream_last - cardinality(head.texts) + event.place, event.data "
        "FROM head, unnest(head.texts) WITH ORDINALITY AS event(data, place) WHERE event.place > head.skipped) "
        "SELECT execution_id, is_watched FROM head"
    )


def read_statement(tables: Tables) -> str:
    """Return the statement that reads several streams, each on from its cursor.

    It gives the id, the state, the last number, the number up to which the stream was trimmed, and the numbers and
    texts of events, or null, of each execution that is there.
    """
    return (
        "SELECT c.execution_id, c.state, c.stream_last, c.stream_trimmed, found.numbers, found.texts "
        "FROM unnest(CAST(:ids AS text[]), CAST(:cursors AS bigint[])) AS asked(id, cursor) "
        f"JOIN {tables.contexts} AS c ON c.execution_id = asked.id AND c.deleted_us IS NULL CROSS JOIN LATERAL ("
        "SELECT array_agg(e.number ORDER BY e.number) AS numbers, array_agg(e.data ORDER BY e.number) AS texts "
        f"FROM (SELECT p.number, p.data FROM {tables.events} AS p WHERE p.execution_id = c.execution_id "
        # Where there is nothing to find the index need not be asked, nor be led past what was removed.
        "AND c.stream_last > asked.cursor AND p.number > GREATEST(asked.cursor, c.stream_trimmed) "
        "ORDER BY p.number LIMIT :rows) AS e) AS found"
    )


def trim_statement(tables: Tables) -> str:
    """Return the statement that removes the oldest events of a stream; it gives their number."""
    return (
        f"WITH newest AS MATERIALIZED (SELECT p.number FROM {tables.events} AS p "
        f"JOIN {tables.contexts} AS c ON c.execution_id = p.execution_id AND c.deleted_us IS NULL "
        "WHERE p.execution_id = :execution_id ORDER BY p.number DESC LIMIT 1 OFFSET :keep), "
        f"head AS (UPDATE {tables.contexts} AS c SET stream_trimmed = GREATEST(c.stream_trimmed, newest.number) "
        "FROM newest WHERE c.execution_id = :execution_id RETURNING c.execution_id, newest.number), "
        # Whoever trims has locked the row before he removes anything.
        f"gone AS (DELETE FROM {tables.events} AS p USING head WHERE p.execution_id = head.execution_id "
        "AND p.number <= head.number RETURNING 1) SELECT count(*) FROM gone"
    )
