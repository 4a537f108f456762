"""Under a lock: executions are taken from store to store."""

from agent_statestore.clock import Clock
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.envelope import require_readable
from agent_statestore.errors import IdempotencyKeyTaken
from agent_statestore.rules.moving import may_restore
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import header_of
from agent_statestore.sql.locking.contexts import LockedContexts
from agent_statestore.sql.locking.removing import placed
from agent_statestore.sql.locking.writing import LockedWriting
from agent_statestore.sql.rows import exported_of, header_to_restore, notes_of, signals_of, stream_end_of, values_of
from agent_statestore.sql.tables import AUDIT_COLUMNS, COLUMNS
from agent_statestore.sql.transaction import Select, Transaction


class LockedMovingPrimitives(LockedContexts, LockedWriting):
    """The primitives that read an execution whole, or restore it; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables = self._tables
        self._of_key = f"SELECT execution_id FROM {tables.contexts} WHERE agent_id = ? AND idempotency_key = ?"
        part_tables = (tables.steps, tables.notes, tables.memory, tables.signals, tables.audit, tables.events)
        self._remove_parts = tuple(f"DELETE FROM {table} WHERE execution_id = ?" for table in part_tables)
        columns = ", ".join(AUDIT_COLUMNS)
        self._exported_parts = (
            f"SELECT step_number, name, is_done, data FROM {tables.steps} WHERE execution_id = ? ORDER BY step_number",
            f"SELECT kind, data FROM {tables.notes} WHERE execution_id = ? ORDER BY position",
            f"SELECT kind, name, data FROM {tables.memory} WHERE execution_id = ? ORDER BY kind, name",
            f"SELECT signal_id, kind, signal_key, data FROM {tables.signals} WHERE execution_id = ? ORDER BY position",
            f"SELECT {columns} FROM {tables.audit} WHERE execution_id = ? ORDER BY position",
            f"SELECT number, data FROM {tables.events} WHERE execution_id = ? ORDER BY number",
            f"SELECT stream_trimmed FROM {tables.contexts} WHERE execution_id = ?",
        )

    def export(self, execution_id: str) -> ExportedExecution | None:
        queries: list[Select] = [(part, (execution_id,)) for part in self._exported_parts]
        rows, *parts = self._database.read((self._header, (execution_id,)), *queries)
        if not rows:
            return None
        steps, notes, values, signals, audit, events, ((trimmed_to,),) = parts
        header = header_of(rows[0])
        require_readable(f"execution {execution_id}", header["format"])
        return exported_of(
            header,
            steps=[(number, name, bool(is_done), text) for number, name, is_done, text in steps],
            notes=[(kind, text) for kind, text in notes],
            values=[(kind, name, text) for kind, name, text in values],
            signals=[(signal_id, kind, key, text) for signal_id, kind, key, text in signals],
            audit=audit,
            events=[(number, text) for number, text in events],
            trimmed_to=trimmed_to,
        )

    def restore(self, exported: ExportedExecution) -> bool:
        execution_id, header = exported.execution_id, header_to_restore(exported)
        agent_id, key = header["agent_id"], header["idempotency_key"]

        def work(transaction: Transaction) -> bool:
            asked: list[Select] = [(self._placed, (execution_id,))]
            if key is not None:
                asked.append((self._of_key, (agent_id, key)))
            (rows, *others), now_us = self._look(transaction, *asked)
            present = placed(rows[0]) if rows else None
            if present is not None and (
                present["deleted_us"] is not None or not may_restore(present, present["audit_count"], exported, now_us)
            ):
                return False
            # If a transaction inserts the key after this look, the unique index refuses ours; then this is run again.
            if any(found != (execution_id,) for rows in others for found in rows):
                raise IdempotencyKeyTaken(agent_id, key)
            if present is None:
                self._put_header(transaction, header)
                if exported.events or exported.trimmed_to:
                    self._update(transaction, execution_id, stream_end_of(exported))
            else:
                # The row stays, with the columns and relations that a user has added to it.
                self._touch_session(transaction, header)
                self._update(
                    transaction, execution_id, {name: header[name] for name in COLUMNS[1:]} | stream_end_of(exported)
                )
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
            (self._put_event, exported.events),
        ):
            if rows:
                transaction.insert(insert, [(execution_id, *row) for row in rows])
