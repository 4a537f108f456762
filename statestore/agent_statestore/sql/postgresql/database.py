"""How statements run on PostgreSQL: each is a round trip and a transaction."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeVar

import psycopg

from agent_statestore.errors import StoreUnavailable
from agent_statestore.sql.boundary import READ_ONLY, is_of_wrong_server, reraise, sqlstate_of
from agent_statestore.sql.database import DuplicateKey, Params
from agent_statestore.sql.postgresql.connections import LimitedConnection, PostgreSQLPool
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row

Result = TypeVar("Result")

# Deadlock detected, serialization failure: the statement was undone as a whole.
_TRANSIENT: Final = {"40P01", "40001"}
_LOCKED: Final = "55P03"

# Below the second after which PostgreSQL looks for a deadlock, and undoes one of its sides.
LOCK_WAIT_MS: Final = 50
# Held to the end of the transaction.
LOCK: Final = b"SELECT 1 FROM pg_advisory_xact_lock(CAST(%(key)s AS bigint))"
_LOCK_TIMEOUT: Final = f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode()


class PostgreSQLDatabase:
    """Statements on PostgreSQL: each one is a round trip and, in autocommit, a transaction."""

    # The clock and not `now()`: a statement may have waited for a lock since its transaction began.
    now = "COALESCE(CAST(:now AS bigint), CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))"

    def __init__(self, settings: SQLSettings) -> None:
        self.settings = settings
        self._pool = PostgreSQLPool(settings)
        self._converted: dict[str, bytes] = {}

    def run(self, statement: str, params: Params) -> list[Row]:
        """Run one statement; see `Database`. Raise `DuplicateKey` for a unique index's refusal."""
        return self._execute(statement, params, rows_of)

    def change(self, statement: str, params: Params) -> int:
        """Run one writing statement; see `Database`. Raise `DuplicateKey` for a unique index's refusal."""
        return self._execute(statement, params, _count_of)

    def run_locked(self, key: int, statement: str, params: Params) -> list[Row]:
        """Run one statement behind an advisory lock, which it holds to its end, in one round trip.

        It sees what was committed before the lock was got. Without pipelines in the driver's libpq it takes four.
        """
        query = self._query(statement)

        def work(connection: LimitedConnection) -> list[Row]:
            with connection.pipeline() if self.can_run_together else nullcontext():
                connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                connection.execute(LOCK, {"key": key})
                cursor = connection.execute(query, params, binary=True)
                connection.execute("COMMIT")
            return rows_of(cursor)

        return self._attempt(work)

    def _execute(self, statement: str, params: Params, taken: Callable[[Any], Result]) -> Result:
        """Run one statement, and return what `taken` takes from its cursor."""
        query = self._query(statement)
        return self._attempt(lambda connection: taken(connection.execute(query, params, binary=True)))

    def _attempt(self, work: Callable[[LimitedConnection], Result]) -> Result:
        """Run `work` on a connection, and again if the server undid it to resolve a conflict with another."""
        tries, knows_better_server = 3, True
        while True:
            tries -= 1
            try:
                with self._pool.take() as connection:
                    return work(connection)
            except Exception as error:
                state = sqlstate_of(error)
                if state in _TRANSIENT and tries:
                    continue
                if is_of_wrong_server(error):
                    # All that lie idle lead there, too.
                    self._pool.dispose()
                    if state == READ_ONLY and knows_better_server:
                        knows_better_server = False
                        continue
                if state == "23505":
                    raise DuplicateKey from error
                reraise(error, self.settings)

    @property
    def can_run_together(self) -> bool:
        """Whether the driver's libpq can send several statements at once."""
        return psycopg.Pipeline.is_supported()

    def run_together(self, statements: Sequence[tuple[str, Params]]) -> list[list[Row]]:
        """Run several statements in one round trip and one transaction; return the rows of each.

        It waits for a lock no longer than `LOCK_WAIT_MS`: with several rows locked it might wait for whoever waits for
        it. Raise the store's error, with nothing done unless it is `StoreUnavailable`.
        """
        try:
            with self._pool.take() as connection:
                with connection.pipeline():
                    connection.execute("BEGIN")
                    connection.execute(_LOCK_TIMEOUT)
                    cursors = [connection.execute(self._query(one), params, binary=True) for one, params in statements]
                    connection.execute("COMMIT")
                return [rows_of(cursor) for cursor in cursors]
        except Exception as error:
            if is_of_wrong_server(error):
                self._pool.dispose()
            if sqlstate_of(error) in _TRANSIENT | {_LOCKED}:
                raise StoreUnavailable(self.settings.shown_url, f"not written together: {error}") from error
            reraise(error, self.settings)

    def connect(self) -> LimitedConnection:
        """Return a connection beside those of the pool, in autocommit. Raise `StoreUnavailable`."""
        try:
            return self._pool.connect()
        except Exception as error:  # noqa: BLE001 - the boundary tells the driver's errors from others, and raises both
            reraise(error, self.settings)

    def _query(self, statement: str) -> bytes:
        """Return the text for psycopg, which prepares it on a connection that has run the same five times."""
        query = self._converted.get(statement)
        if query is None:
            query = self._converted[statement] = to_pyformat(statement).encode()
        return query

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._pool.dispose()


def rows_of(cursor: Any) -> list[Row]:
    # The cursor's `description` would cost as much as fetching a row.
    return cursor.fetchall() if cursor.pgresult.nfields else []


def _count_of(cursor: Any) -> int:
    return int(cursor.rowcount)


def to_pyformat(statement: str) -> str:
    """Return the statement with psycopg's parameters; a `::type` cast is left alone."""
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement)
