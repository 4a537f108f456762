"""A primitive as one short transaction that locks, looks, decides and writes: the way of SQLite and of MySQL.

The lock is SQLite's write lock on the file, or InnoDB's lock on the execution's row in `contexts`, which every writer
of the execution takes first. Nobody else writes to the execution meanwhile, so what is read under it stays true, and
Python decides (`agent_statestore.rules`). The clock is read after the lock was got, because that may take long.

`contexts`, `writing`, `ringing`, `removing`, `moving` and `rates` hold the primitives;
`agent_statestore.sql.sqlite.primitives` and `agent_statestore.sql.mysql.primitives` hold the differences between the
two dialects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent_statestore.clock import Clock
from agent_statestore.records import AuditEvent
from agent_statestore.rules.audit import audit_row
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import DECISIVE, Header
from agent_statestore.sql.tables import AUDIT_COLUMNS
from agent_statestore.sql.transaction import Insert, Row, Select, Transaction, insert_into

# The columns that decide about a write, or that the audit trail notes of it.
LOOKED_AT: Final = (*DECISIVE, "owner")
# The columns that say how far an execution has come, and whether it may be replaced or dropped.
PLACED: Final = ("version", "token", "audit_count", "ended_us", "due_us", "lease_until_us", "deleted_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The SQL in which the two dialects differ.

    `lock` makes a SELECT lock its rows, and `lock_free` only those that nobody has locked. `in_order` makes it go
    through the primary key, so that two transactions that lock many rows do it in the same order. `time` is the time
    when the statement began; its parameter is the injected clock's time or None. `timed` is a SELECT of the time, or
    None where a clock is always given. `any_of` follows IN, for a parameter that `listed` made. `octets` is the size of
    a text in bytes, with `{}` for the text. `contains` holds if `{text}` contains `{part}`, compared byte by byte.
    `content` stands for bytes, a parameter that `contents` made.
    """

    lock: str
    lock_free: str
    in_order: str
    time: str
    timed: str | None
    any_of: str
    octets: str
    contains: str
    content: str
    listed: Callable[[Sequence[str]], Any]
    contents: Callable[[bytes], Any]
    on_conflict: Callable[[str], str]
    new: Callable[[str], str]

    def upsert(self, table: str, keys: str, others: Sequence[str]) -> Insert:
        """Return the INSERT of rows that replaces `others` where rows have the same `keys` (columns with commas)."""
        sets = ", ".join(f"{name} = {self.new(name)}" for name in others)
        return insert_into(table, (*keys.split(", "), *others), f"{self.on_conflict(keys)} {sets}")


class LockedBase:
    """The base of all primitives."""

    dialect: Dialect

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        self._database = database
        self._clock = clock
        self._tables = tables = database.settings.tables
        # Every statement but those of `purge` and `restore` is blind to deleted rows.
        self._here = "WHERE execution_id = ? AND deleted_us IS NULL"
        self._decisive = f"SELECT {', '.join(LOOKED_AT)} FROM {tables.contexts} {self._here}{self.dialect.lock}"
        self._checkpoint_id = f"SELECT checkpoint_id FROM {tables.contexts} {self._here}{self.dialect.lock}"
        # Deleted executions are included.
        self._placed = f"SELECT {', '.join(PLACED)} FROM {tables.contexts} WHERE execution_id = ?{self.dialect.lock}"
        self._put_audit = insert_into(tables.audit, ("execution_id", *AUDIT_COLUMNS))
        self._updates: dict[tuple[str, ...], str] = {}
        new = self.dialect.new
        self._put_session = insert_into(
            tables.sessions,
            ("session_id", "user_id", "created_us", "updated_us"),
            f"{self.dialect.on_conflict('session_id')} user_id = COALESCE({new('user_id')}, user_id), "
            f"created_us = CASE WHEN {new('created_us')} < created_us THEN {new('created_us')} ELSE created_us END, "
            f"updated_us = CASE WHEN {new('updated_us')} > updated_us THEN {new('updated_us')} ELSE updated_us END",
        )

    def now_us(self) -> int | None:
        """Return the injected clock's time; None stands for the server's."""
        return None if self._clock is None else self._clock.now_us()

    def _look(self, transaction: Transaction, *queries: Select) -> tuple[list[list[Row]], int]:
        """Return the rows of each query, and the time after them."""
        if self._clock is not None:
            return transaction.look(*queries), self._clock.now_us()
        assert self.dialect.timed is not None
        *found, ((now_us,),) = transaction.look(*queries, (self.dialect.timed, ()))
        return found, now_us

    def _update(self, transaction: Transaction, execution_id: str, changes: dict[str, Any]) -> None:
        """Change columns of a locked row. The same columns make the same text, which SQLite has prepared already."""
        columns = tuple(changes)
        text = self._updates.get(columns)
        if text is None:
            sets = ", ".join(f"{name} = ?" for name in columns)
            text = f"UPDATE {self._tables.contexts} SET {sets} WHERE execution_id = ?"
            self._updates[columns] = text
        transaction.write(text, (*changes.values(), execution_id))

    def _note(self, transaction: Transaction, header: Header, event: AuditEvent, now_us: int, **more: Any) -> int:
        """Add to the audit trail of a locked row, and return the new `audit_count`, for the caller to write.

        `header` is the row before the write, except for the token and the lease that a claim has just made.
        """
        row = audit_row(header, header["audit_count"] + 1, event, now_us, **more)
        transaction.insert(self._put_audit, [(header["execution_id"], *row)])
        return row.position
