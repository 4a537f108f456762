"""The primitives on MySQL and MariaDB: each is one short transaction under the lock of the execution's row."""

from base64 import b64encode
from typing import Final

from sqlalchemy.engine import Connection

from agent_statestore.clock import Clock
from agent_statestore.sql.beside.documents import SQLDocuments
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.engine import MAX_PACKET
from agent_statestore.sql.locking import Dialect, LockedPrimitives
from agent_statestore.sql.locking.bound import BoundLocked
from agent_statestore.sql.locking.documents import documents_locked
from agent_statestore.sql.mysql.database import MySQLDatabase
from agent_statestore.sql.mysql.transaction import MySQLTransaction

__all__ = ["MySQLDatabase", "MySQLPrimitives", "bind_mysql", "documents_on_server"]


def bind_mysql(primitives: "MySQLPrimitives", connection: Connection) -> BoundLocked:
    """Return the store's statements in a transaction that the caller began."""
    return BoundLocked(primitives, joined_mysql(connection))


def joined_mysql(connection: Connection) -> MySQLTransaction:
    """Return the transaction that the caller began."""
    pooled = connection.connection
    return MySQLTransaction.joining(pooled.driver_connection, pooled.info[MAX_PACKET])


_DIALECT: Final = Dialect(
    lock=" FOR UPDATE",
    lock_free=" FOR UPDATE SKIP LOCKED",
    in_order=" FORCE INDEX (PRIMARY)",
    # Unlike SYSDATE, it is one value in the whole statement, so that an index can look it up. Nothing waits here.
    time="COALESCE(?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))",
    timed="SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    any_of="?",
    octets="LENGTH({})",
    # As bytes, in which it searches several times faster than in characters.
    contains="LOCATE(CAST({part} AS BINARY), CAST({text} AS BINARY)) > 0",
    # The driver would write two digits for each byte, and few of the largest values would fit into a packet.
    content="FROM_BASE64(?)",
    listed=tuple,
    contents=lambda content: b64encode(content).decode(),
    # For any key; none of these tables has more than one.
    on_conflict=lambda _: "ON DUPLICATE KEY UPDATE",
    # Newer versions of MySQL prefer an alias, which MariaDB does not know.
    new=lambda column: f"VALUES({column})",
)


def documents_on_server(database: LockingDatabase, clock: Clock | None) -> SQLDocuments:
    """Return the documents of a store on a server."""
    return documents_locked(_DIALECT, database, clock, joined_mysql)


class MySQLPrimitives(LockedPrimitives):
    """The primitives that differ on MySQL and MariaDB; see `StorePrimitives` for each method."""

    dialect = _DIALECT

    def durability_warning(self) -> str | None:
        """Return one sentence if the server acknowledges a write before it is safe on disk."""
        ((flush,),) = self._database.run("SELECT @@innodb_flush_log_at_trx_commit", {})
        if flush != 1:
            return f"The server runs with innodb_flush_log_at_trx_commit = {flush}: a crash loses the last checkpoints."
        return None
