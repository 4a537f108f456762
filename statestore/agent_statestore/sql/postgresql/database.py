"""How statements run on PostgreSQL: each is a round trip and a transaction."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from agent_statestore.sql.boundary import READ_ONLY, is_of_wrong_server, reraise, sqlstate_of
from agent_statestore.sql.database import DuplicateKey, Params
from agent_statestore.sql.postgresql.connections import PostgreSQLPool
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row

Result = TypeVar("Result")

# Deadlock detected, serialization failure: the statement was undone as a whole.
_TRANSIENT: Final = {"40P01", "40001"}


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

    def _execute(self, statement: str, params: Params, taken: Callable[[Any], Result]) -> Result:
        """Run one statement, and return what `taken` takes from its cursor."""
        # psycopg prepares a statement on a connection that has run the same text five times.
        query = self._converted.get(statement)
        if query is None:
            query = self._converted[statement] = to_pyformat(statement).encode()
        tries, knows_better_server = 3, True
        while True:
            tries -= 1
            try:
                with self._pool.take() as connection:
                    return taken(connection.execute(query, params, binary=True))
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
