"""Documents on PostgreSQL: one round trip that locks a root, and decides by one statement as `rules.decide` does.

The lock is an advisory one, which ends with the transaction. The statement behind it sees what was committed before the
lock was got, because in READ COMMITTED each statement has a snapshot of its own.

Lists of texts and bytes are sent in the binary form, `%(name)b`: in the other one psycopg takes a second to escape a
megabyte of JSON.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy.engine import Connection

from agent_statestore.clock import Clock, left_to_the_server
from agent_statestore.documents.codec import EXPECT, LOWEST, PUT, REMOVE, EncodedOperation
from agent_statestore.documents.places import Range
from agent_statestore.documents.records import Written
from agent_statestore.documents.rules import conflict
from agent_statestore.sql.beside.documents import Speech, SQLDocuments, number_of_root
from agent_statestore.sql.database import Params
from agent_statestore.sql.postgresql.database import LOCK, PostgreSQLDatabase, rows_of, to_pyformat
from agent_statestore.sql.tables import Tables
from agent_statestore.sql.transaction import Row

_SPEECH: Final = Speech(
    among="= ANY(CAST(%(places)b AS text[]))",
    listed=list,
    contains="position(CAST({part} AS text) IN {text}) > 0",
    # Evaluated once: an index cannot be asked for a clock's time, which changes.
    time=f"(SELECT {PostgreSQLDatabase.now})",
)


class PostgreSQLDocumentWriting:
    """See `DocumentWriting`."""

    def __init__(self, database: PostgreSQLDatabase, now_us: Callable[[], int | None]) -> None:
        self._database = database
        self._now_us = now_us
        self._tables = tables = database.settings.tables
        self._apply = apply_statement(tables, database.now)
        self._remove = (
            f"WITH gone AS (DELETE FROM {tables.documents} WHERE place >= :first AND place < :last "
            "RETURNING expires_us) "
            f"SELECT count(*) FROM gone WHERE expires_us IS NULL OR expires_us > {_SPEECH.time}"
        )

        # What somebody is writing is left to the next time.
        expired = f"expires_us <= {_SPEECH.time} ORDER BY expires_us LIMIT :rows FOR UPDATE SKIP LOCKED"
        self._tidy = (
            f"DELETE FROM {tables.documents} "
            f"WHERE place = ANY(ARRAY(SELECT place FROM {tables.documents} WHERE {expired}))"
        )

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        key = number_of_root(self._tables, operations[0].place)
        rows = self._database.run_locked(key, self._apply, self._params(operations, write_id))
        return _written(operations, rows)

    def apply_in(self, connection: Connection, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        driver: Any = connection.connection.driver_connection
        driver.execute(LOCK, {"key": number_of_root(self._tables, operations[0].place)})
        params = self._params(operations, write_id)
        return _written(operations, rows_of(driver.execute(to_pyformat(self._apply).encode(), params, binary=True)))

    def remove(self, places: Range) -> int:
        params = places._asdict() | {"now": self._now_us()}
        ((count,),) = self._database.run_locked(number_of_root(self._tables, places.first), self._remove, params)
        return int(count)

    def tidy(self, limit: int) -> int:
        return self._database.change(self._tidy, {"rows": limit, "now": self._now_us()})

    def _params(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Params:
        return {
            "places": [operation.place for operation in operations],
            "kinds": [operation.kind for operation in operations],
            "expected": [operation.if_version for operation in operations],
            "keeps": [operation.keep for operation in operations],
            "versions": [operation.version for operation in operations],
            "ttls": [operation.ttl_us for operation in operations],
            "texts": [operation.text for operation in operations],
            "contents": [operation.content for operation in operations],
            "lines": [operation.metadata for operation in operations],
            "write_id": write_id,
            "now": self._now_us(),
        }


def documents_of(database: PostgreSQLDatabase, clock: Clock | None) -> SQLDocuments:
    """Return the documents of a store on PostgreSQL."""
    now_us: Callable[[], int | None] = left_to_the_server if clock is None else clock.now_us
    return SQLDocuments(database, now_us, _SPEECH, PostgreSQLDocumentWriting(database, now_us))


def apply_statement(tables: Tables, now: str) -> str:
    """Return the statement that executes the operations of a write.

    It gives a row for each: whether the write was applied before, the number of the first operation that is refused
    (else null), the version that stood there, and the one that then does.
    """
    there = "(d.expires_us IS NULL OR d.expires_us > clock.now_us)"
    return (
        f"WITH clock AS MATERIALIZED (SELECT {now} AS now_us), "
        "standing AS MATERIALIZED (SELECT a.*, COALESCE(d.version, 0) AS found, d.write_id AS written_by, d.created_us "
        "FROM clock CROSS JOIN unnest(CAST(%(places)b AS text[]), CAST(%(kinds)b AS text[]), "
        "CAST(:expected AS bigint[]), CAST(:keeps AS boolean[]), CAST(:versions AS bigint[]), CAST(:ttls AS bigint[])) "
        "WITH ORDINALITY AS a(place, kind, expected, keeps, version, ttl_us, n) "
        f"LEFT JOIN {tables.documents} AS d ON d.place = a.place AND {there}), "
        "verdict AS MATERIALIZED (SELECT "
        f"COALESCE(bool_or(kind = '{PUT}' AND written_by = CAST(:write_id AS text)), FALSE) AS was_applied, "
        f"min(n) FILTER (WHERE expected <> found AND NOT (kind = '{REMOVE}' AND found = 0)) AS refused "
        "FROM standing), "
        "decided AS MATERIALIZED (SELECT s.*, clock.now_us, "
        f"CASE WHEN kind = '{EXPECT}' THEN found WHEN kind = '{REMOVE}' THEN 0 "
        "WHEN keeps AND found > 0 THEN found WHEN version IS NULL THEN GREATEST(found + 1, now_us) "
        "WHEN expected IS NULL AND found >= version THEN found ELSE version END AS afterwards "
        "FROM standing AS s, verdict, clock WHERE NOT was_applied AND refused IS NULL), "
        f"removed AS (DELETE FROM {tables.documents} AS d USING decided AS x "
        f"WHERE d.place = x.place AND x.kind = '{REMOVE}' AND x.found > 0), "
        # A put that leaves what stands there is the only one that does not change the version.
        f"stored AS (INSERT INTO {tables.documents} AS d "
        "(place, version, write_id, format, text, content, metadata, created_us, updated_us, expires_us) "
        f"SELECT x.place, x.afterwards, :write_id, {LOWEST}, v.text, v.content, v.metadata, "
        "COALESCE(x.created_us, x.now_us), x.now_us, x.now_us + x.ttl_us FROM decided AS x "
        "JOIN unnest(CAST(%(texts)b AS text[]), CAST(%(contents)b AS bytea[]), CAST(%(lines)b AS text[])) "
        "WITH ORDINALITY AS v(text, content, metadata, n) ON v.n = x.n "
        f"WHERE x.kind = '{PUT}' AND x.afterwards <> x.found "
        # The row may be there although no document is: one that has expired.
        "ON CONFLICT (place) DO UPDATE SET version = EXCLUDED.version, write_id = EXCLUDED.write_id, "
        "format = EXCLUDED.format, text = EXCLUDED.text, content = EXCLUDED.content, metadata = EXCLUDED.metadata, "
        "created_us = EXCLUDED.created_us, updated_us = EXCLUDED.updated_us, expires_us = EXCLUDED.expires_us) "
        "SELECT was_applied, refused, s.found, COALESCE(x.afterwards, s.found) "
        "FROM verdict CROSS JOIN standing AS s LEFT JOIN decided AS x ON x.n = s.n ORDER BY s.n"
    )


def _written(operations: Sequence[EncodedOperation], rows: Sequence[Row]) -> Written:
    was_applied, refused, *_ = rows[0]
    if refused is not None and not was_applied:
        number = int(refused) - 1
        raise conflict(operations[number], rows[number][2])
    return Written(versions=tuple(version for *_, version in rows), was_applied=was_applied)
