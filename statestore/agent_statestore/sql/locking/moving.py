"""Under a lock: deleting executions, and taking them from store to store."""

from typing import Any

from agent_statestore.clock import Clock
from agent_statestore.codec import NEVER_US
from agent_statestore.codec.exported import ExportedExecution, place_of
from agent_statestore.envelope import require_readable
from agent_statestore.errors import IdempotencyKeyTaken
from agent_statestore.records import AuditEvent
from agent_statestore.sql.checks import Header, header_of
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking.base import LOOKED_AT
from agent_statestore.sql.locking.contexts import LockedContexts
from agent_statestore.sql.locking.writing import LockedWriting
from agent_statestore.sql.rows import exported_of, header_to_restore, notes_of, signals_of, values_of
from agent_statestore.sql.tables import AUDIT_COLUMNS, COLUMNS
from agent_statestore.sql.transaction import Select, Transaction

# How far an execution has come, and whether it may be replaced or dropped.
_PLACED = ("version", "token", "audit_count", "ended_us", "due_us", "lease_until_us", "deleted_us")


class LockedMoving(LockedContexts, LockedWriting):
    """The primitives that take an execution away, or bring it whole; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables, lock = self._tables, self.dialect.lock
        contexts, sessions = tables.contexts, tables.sessions
        # Also of what is deleted.
        self._placed = f"SELECT {', '.join(_PLACED)} FROM {contexts} WHERE execution_id = ?{lock}"
        self._session_of = f"SELECT session_id FROM {contexts} WHERE execution_id = ?{lock}"
        self._remove = f"DELETE FROM {contexts} WHERE execution_id = ?"
        self._session = f"SELECT session_id FROM {sessions} WHERE session_id = ?{lock}"
        # Two looks, because SQLite has an index for each.
        self._in_session = f"SELECT 1 FROM {contexts} WHERE session_id = ? AND deleted_us IS NULL LIMIT 1"
        self._was_in_session = f"SELECT 1 FROM {contexts} WHERE session_id = ? AND deleted_us IS NOT NULL LIMIT 1"
        self._remove_session = f"DELETE FROM {sessions} WHERE session_id = ?"
        self._of_key = f"SELECT execution_id FROM {contexts} WHERE agent_id = ? AND idempotency_key = ?"
        part_tables = (tables.steps, tables.notes, tables.memory, tables.signals, tables.audit)
        self._remove_parts = tuple(f"DELETE FROM {table} WHERE execution_id = ?" for table in part_tables)
        columns = ", ".join(AUDIT_COLUMNS)
        self._exported_parts = (
            f"SELECT step_number, name, is_done, data FROM {tables.steps} WHERE execution_id = ? ORDER BY step_number",
            f"SELECT kind, data FROM {tables.notes} WHERE execution_id = ? ORDER BY position",
            f"SELECT kind, name, data FROM {tables.memory} WHERE execution_id = ? ORDER BY kind, name",
            f"SELECT signal_id, kind, signal_key, data FROM {tables.signals} WHERE execution_id = ? ORDER BY position",
            f"SELECT {columns} FROM {tables.audit} WHERE execution_id = ? ORDER BY position",
        )

    # -- deleting ------------------------------------------------------------------------------------------------------

    def delete_context(self, execution_id: str, *, by: str | None = None, reason: str | None = None) -> bool:
        def work(transaction: Transaction) -> bool:
            (rows,), now_us = self._look(transaction, (self._decisive, (execution_id,)))
            if not rows:
                return False
            if not self._database.settings.keeps_deleted:
                return self._purge(transaction, execution_id)
            header = header_of(rows[0], LOOKED_AT)
            audit_count = self._note(transaction, header, AuditEvent.DELETED, now_us, by=by, reason=reason)
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
            # The sessions first, as `_put_header` has it.
            transaction.write(f"DELETE FROM {self._tables.sessions}", ())
            count = transaction.change(f"DELETE FROM {self._tables.contexts} WHERE deleted_us IS NULL", ())
            transaction.write(f"DELETE FROM {self._tables.contexts}", ())
            transaction.write(f"DELETE FROM {self._tables.rates}", ())
            return count

        return self._database.write(work)

    def _purge(self, transaction: Transaction, execution_id: str) -> bool:
        """Removes the row, and with it, by their foreign keys, its parts; and its session, if nothing is left in it."""
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

    # -- moving between stores -----------------------------------------------------------------------------------------

    def export(self, execution_id: str) -> ExportedExecution | None:
        queries: list[Select] = [(part, (execution_id,)) for part in self._exported_parts]
        rows, steps, notes, values, signals, audit = self._database.read((self._header, (execution_id,)), *queries)
        if not rows:
            return None
        header = header_of(rows[0])
        require_readable(f"execution {execution_id}", header["format"])
        return exported_of(
            header,
            steps=[(number, name, bool(is_done), text) for number, name, is_done, text in steps],
            notes=[(kind, text) for kind, text in notes],
            values=[(kind, name, text) for kind, name, text in values],
            signals=[(signal_id, kind, key, text) for signal_id, kind, key, text in signals],
            audit=audit,
        )

    def restore(self, exported: ExportedExecution) -> bool:
        execution_id, header = exported.execution_id, header_to_restore(exported)
        agent_id, key = header["agent_id"], header["idempotency_key"]

        def work(transaction: Transaction) -> bool:
            asked: list[Select] = [(self._placed, (execution_id,))]
            if key is not None:
                asked.append((self._of_key, (agent_id, key)))
            (rows, *others), now_us = self._look(transaction, *asked)
            present = _placed(rows[0]) if rows else None
            if present is not None and (
                present["deleted_us"] is not None
                or _place_of(present) >= exported.place
                or present["lease_until_us"] > now_us
            ):
                return False
            # One that inserts the key after this look makes the unique index refuse ours; then this is run again.
            if any(found != (execution_id,) for rows in others for found in rows):
                raise IdempotencyKeyTaken(agent_id, key)
            if present is None:
                self._put_header(transaction, header)
            else:
                # The row stays, with the columns and relations that a user has added to it.
                self._touch_session(transaction, header)
                self._update(transaction, execution_id, {name: header[name] for name in COLUMNS[1:]})
                for statement in self._remove_parts:
                    transaction.write(statement, (execution_id,))
            self._put_parts(transaction, exported)
            return True

        return self._database.write(work)

    def _put_parts(self, transaction: Transaction, exported: ExportedExecution) -> None:
        execution_id = exported.execution_id
        for insert, rows in (
            (self._put_step, [(step.number, step.name, step.is_done, step.text) for step in exported.steps]),
            (self._put_note, [(position, *note) for position, note in enumerate(notes_of(exported), 1)]),
            (self._put_value, values_of(exported)),
            (
                self._put_signal,
                [
                    (signal_id, position, kind, key, text)
                    for position, (signal_id, kind, key, text) in enumerate(signals_of(exported), 1)
                ],
            ),
            (self._put_audit, exported.audit),
        ):
            if rows:
                transaction.insert(insert, [(execution_id, *row) for row in rows])

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        def work(transaction: Transaction) -> bool:
            (rows,) = transaction.look((self._placed, (execution_id,)))
            if not rows:
                return False
            present = _placed(rows[0])
            if (
                present["deleted_us"] is not None
                or present["ended_us"] is None
                or present["due_us"] is not None
                or _place_of(present) != place
            ):
                return False
            return self._purge(transaction, execution_id)

        return self._database.write(work)


def _placed(row: tuple[Any, ...]) -> Header:
    return dict(zip(_PLACED, row, strict=True))


def _place_of(header: Header) -> tuple[int, int, int]:
    return place_of(header, header["audit_count"])
