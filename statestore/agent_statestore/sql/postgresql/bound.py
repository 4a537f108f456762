"""The statements of a PostgreSQL store as part of a caller's transaction; see `step_transaction`."""

from typing import Any

from sqlalchemy.engine import Connection

from agent_statestore.clock import Clock
from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.sql.database import Params
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase, rows_of, to_pyformat
from agent_statestore.sql.postgresql.primitives import PostgreSQLPrimitives
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row


class BoundPostgreSQL:
    """The store's statements on one connection; see `agent_statestore.sql.step_transaction.BoundDatabase`."""

    def __init__(self, settings: SQLSettings, clock: Clock | None, connection: Connection) -> None:
        self._database = _OneConnection(settings, connection.connection.driver_connection)
        self._primitives = PostgreSQLPrimitives(self._database, clock)

    def locked_checkpoint_id(self, execution_id: str) -> str | None:
        contexts = self._database.settings.tables.contexts
        rows = self._database.run(
            f"SELECT checkpoint_id FROM {contexts} WHERE execution_id = :execution_id FOR UPDATE",
            {"execution_id": execution_id},
        )
        return rows[0][0] if rows else None

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease) -> Checkpointed:
        return self._primitives.checkpoint(execution_id, change, lease)


class _OneConnection:
    """Statements on one connection; see `Database`. Nothing is committed here, and nothing is repeated."""

    now = PostgreSQLDatabase.now

    def __init__(self, settings: SQLSettings, connection: Any) -> None:
        self.settings = settings
        self._connection = connection

    def run(self, statement: str, params: Params) -> list[Row]:
        return rows_of(self._connection.execute(to_pyformat(statement).encode(), params, binary=True))

    def change(self, statement: str, params: Params) -> int:
        return int(self._connection.execute(to_pyformat(statement).encode(), params, binary=True).rowcount)

    def dispose(self) -> None:
        """Do nothing: the connection is the caller's."""
