"""The statements of a PostgreSQL store through a connection of the caller's, of whichever driver; see `joining`."""

import sys
from typing import Any

from agent_statestore.checkpoint import NewExecution
from agent_statestore.clock import Clock
from agent_statestore.records import AgentContext
from agent_statestore.sql.database import Params
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase, to_pyformat
from agent_statestore.sql.postgresql.primitives import PostgreSQLPrimitives
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row


class JoinedPostgreSQL:
    """Statements on the caller's connection; see `Database`. Nothing is committed here, and nothing is repeated."""

    now = PostgreSQLDatabase.now

    def __init__(self, settings: SQLSettings, connection: Any) -> None:
        self.settings = settings
        self._connection = connection

    def run(self, statement: str, params: Params) -> list[Row]:
        cursor = self._cursor()
        try:
            cursor.execute(to_pyformat(statement), params)
            return [] if cursor.description is None else list(cursor.fetchall())
        finally:
            cursor.close()

    def change(self, statement: str, params: Params) -> int:
        cursor = self._cursor()
        try:
            cursor.execute(to_pyformat(statement), params)
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def dispose(self) -> None:
        """Do nothing: the connection is the caller's."""

    def _cursor(self) -> Any:
        """Return a cursor whose rows are tuples, whatever the caller has set on the connection."""
        psycopg = sys.modules.get("psycopg")
        if psycopg is not None and isinstance(self._connection, psycopg.Connection):
            return psycopg.Cursor(self._connection, row_factory=psycopg.rows.tuple_row)
        return self._connection.cursor()


def create_joined(
    settings: SQLSettings, clock: Clock | None, connection: Any, new: NewExecution, max_bytes: int
) -> AgentContext:
    """Create an execution through a driver's connection, without a commit."""
    return PostgreSQLPrimitives(JoinedPostgreSQL(settings, connection), clock).create(new, max_bytes)
