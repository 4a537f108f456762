"""The primitives on SQLite: each is one short transaction under the file's write lock."""

import json
from typing import Final

from sqlalchemy.engine import Connection

from agent_statestore.clock import Clock
from agent_statestore.sql.beside.documents import SQLDocuments
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking import Dialect, LockedPrimitives
from agent_statestore.sql.locking.bound import BoundLocked
from agent_statestore.sql.locking.documents import documents_locked
from agent_statestore.sql.sqlite.pool import PooledSQLite


def bind_sqlite(primitives: "SQLitePrimitives", connection: Connection) -> BoundLocked:
    """Return the store's statements in a transaction that the caller began."""
    return BoundLocked(primitives, joined_sqlite(connection))


def joined_sqlite(connection: Connection) -> PooledSQLite:
    """Return the transaction that the caller began."""
    joined = connection.connection.driver_connection
    assert isinstance(joined, PooledSQLite)
    return joined


_DIALECT: Final = Dialect(
    # The transaction has locked the whole file.
    lock="",
    lock_free="",
    in_order="",
    time="?",
    timed=None,
    any_of="(SELECT value FROM json_each(?))",
    octets="LENGTH(CAST({} AS BLOB))",
    contains="instr({text}, {part}) > 0",
    content="?",
    listed=lambda values: json.dumps(list(values)),
    contents=bytes,
    on_conflict=lambda keys: f"ON CONFLICT ({keys}) DO UPDATE SET",
    new=lambda column: f"excluded.{column}",
)


def documents_in_file(database: LockingDatabase, clock: Clock) -> SQLDocuments:
    """Return the documents of a store in a file."""
    return documents_locked(_DIALECT, database, clock, joined_sqlite)


class SQLitePrimitives(LockedPrimitives):
    """The primitives that differ on SQLite; see `StorePrimitives` for each method. They always have a clock."""

    dialect = _DIALECT

    def durability_warning(self) -> str | None:
        """Return one sentence if SQLite acknowledges a write before it is safe on disk."""
        if self._database.settings.synchronous == "OFF":
            return "SQLite runs with synchronous=OFF: a power cut may lose or corrupt all executions."
        return None
