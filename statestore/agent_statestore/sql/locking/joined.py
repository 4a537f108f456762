"""A transaction of the caller's on SQLite, MySQL or MariaDB, through whichever driver; see `joining`."""

from collections.abc import Sequence
from typing import Any, Final

from agent_statestore.checkpoint import NewExecution
from agent_statestore.records import AgentContext
from agent_statestore.sql.boundary import mysql_code_of
from agent_statestore.sql.locking import LockedPrimitives
from agent_statestore.sql.transaction import Insert, Row, Select

_DUPLICATE_IN_MYSQL: Final = 1062


class JoinedTransaction:
    """A transaction that is under way, and that others began and will end; see `Transaction`.

    `marker` stands for a parameter in the driver's statements.
    """

    def __init__(self, connection: Any, marker: str) -> None:
        self._connection = connection
        self._marker = marker

    def look(self, *queries: Select) -> list[list[Row]]:
        return [self._run(statement, params)[0] for statement, params in queries]

    finish = look

    def write(self, statement: str, params: Sequence[Any]) -> None:
        self._run(statement, params)

    def insert(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self._run(insert.single, row)

    def change(self, statement: str, params: Sequence[Any]) -> int:
        return self._run(statement, params)[1]

    def flush(self) -> None:
        """Do nothing: nothing ever waits here."""

    def _run(self, statement: str, params: Sequence[Any]) -> tuple[list[Row], int]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(statement.replace("?", self._marker), tuple(params))
            rows = [] if cursor.description is None else [tuple(row) for row in cursor.fetchall()]
            return rows, int(cursor.rowcount)
        finally:
            cursor.close()


def create_locked(
    primitives: LockedPrimitives, marker: str, connection: Any, new: NewExecution, max_bytes: int
) -> AgentContext:
    """Create an execution through a driver's connection, without a commit."""
    transaction = JoinedTransaction(connection, marker)
    try:
        return primitives.create(new, max_bytes, transaction)
    except Exception as error:
        if mysql_code_of(error) != _DUPLICATE_IN_MYSQL:
            raise
    # Another transaction has inserted the same key since the look. Only the INSERT was undone.
    return primitives.create(new, max_bytes, transaction)
