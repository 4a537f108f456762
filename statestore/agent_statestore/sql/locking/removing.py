"""Under a lock: executions are deleted and purged."""

from typing import Any

from agent_statestore.checkpoint import Via
from agent_statestore.clock import Clock
from agent_statestore.codec import NEVER_US, encode_via
from agent_statestore.records import AuditEvent
from agent_statestore.rules.moving import may_drop
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import Header, header_of
from agent_statestore.sql.locking.base import LOOKED_AT, PLACED, LockedBase
from agent_statestore.sql.transaction import Transaction


class LockedRemoving(LockedBase):
    """The primitives that remove executions; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables, lock = self._tables, self.dialect.lock
        contexts, sessions = tables.contexts, tables.sessions
        self._session_of = f"SELECT session_id FROM {contexts} WHERE execution_id = ?{lock}"
        self._remove = f"DELETE FROM {contexts} WHERE execution_id = ?"
        self._session = f"SELECT session_id FROM {sessions} WHERE session_id = ?{lock}"
        # Two looks, because SQLite has an index for each.
        self._in_session = f"SELECT 1 FROM {contexts} WHERE session_id = ? AND deleted_us IS NULL LIMIT 1"
        self._was_in_session = f"SELECT 1 FROM {contexts} WHERE session_id = ? AND deleted_us IS NOT NULL LIMIT 1"
        self._remove_session = f"DELETE FROM {sessions} WHERE session_id = ?"

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        def work(transaction: Transaction) -> bool:
            (rows,), now_us = self._look(transaction, (self._decisive, (execution_id,)))
            if not rows:
                return False
            if not self._database.settings.keeps_deleted:
                return self._purge(transaction, execution_id)
            header = header_of(rows[0], LOOKED_AT)
            audit_count = self._note(
                transaction, header, AuditEvent.DELETED, now_us, by=by, reason=reason, signal=encode_via(via)
            )
            changes = {
                "deleted_us": now_us,
                "idempotency_key": None,
                "due_us": None,
                "owner": None,
                "lease_until_us": 0,
                "not_before_us": NEVER_US,
                "audit_count": audit_count,
            }
            self._update(transaction, execution_id, changes)
            return True

        return self._database.write(work)

    def purge(self, execution_id: str) -> bool:
        return self._database.write(lambda transaction: self._purge(transaction, execution_id))

    def clear(self) -> int:
        def work(transaction: Transaction) -> int:
            # The sessions come first, as in `_put_header`.
            transaction.write(f"DELETE FROM {self._tables.sessions}", ())
            count = transaction.change(f"DELETE FROM {self._tables.contexts} WHERE deleted_us IS NULL", ())
            transaction.write(f"DELETE FROM {self._tables.contexts}", ())
            transaction.write(f"DELETE FROM {self._tables.rates}", ())
            transaction.write(f"DELETE FROM {self._tables.duties}", ())
            transaction.write(f"DELETE FROM {self._tables.documents}", ())
            return count

        return self._database.write(work)

    def _purge(self, transaction: Transaction, execution_id: str) -> bool:
        """Remove the row with its parts, by their foreign keys, and its session, if nothing is left in it."""
        (rows,) = transaction.look((self._session_of, (execution_id,)))
        if not rows:
            return False
        transaction.write(self._remove, (execution_id,))
        session_id = rows[0][0]
        if session_id is not None:
            # Under the lock of the session nobody adds an execution to it.
            looks = (self._session, self._in_session, self._was_in_session)
            _, there, deleted = transaction.look(*((look, (session_id,)) for look in looks))
            if not there and not deleted:
                transaction.write(self._remove_session, (session_id,))
        return True

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        def work(transaction: Transaction) -> bool:
            (rows,) = transaction.look((self._placed, (execution_id,)))
            if not rows:
                return False
            present = placed(rows[0])
            if present["deleted_us"] is not None or not may_drop(present, present["audit_count"], place):
                return False
            return self._purge(transaction, execution_id)

        return self._database.write(work)


def placed(row: tuple[Any, ...]) -> Header:
    """Return the header's part in a row of `PLACED`."""
    return dict(zip(PLACED, row, strict=True))
