"""Under a lock: checkpoints and signals."""

import json
from typing import Any

from agent_statestore.clock import Clock
from agent_statestore.codec import NEVER_US, EncodedCheckpoint, noted_as
from agent_statestore.records import AuditEvent, Checkpointed, Lease, Sent, Signal, SignalKind
from agent_statestore.sql.checks import Header, check_checkpoint, check_signal, header_of, outcome
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking.base import LOOKED_AT, LockedBase
from agent_statestore.sql.rows import notes_of, values_of
from agent_statestore.sql.tables import ANSWERING, WORKING, address_of
from agent_statestore.sql.transaction import Transaction, insert_into
from agent_statestore.states import WORKING as WORKING_STATES
from agent_statestore.states import AgentState


class LockedWriting(LockedBase):
    """The primitives that add to one execution; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables, dialect = self._tables, self.dialect
        self._put_step = dialect.upsert(tables.steps, "execution_id, step_number", ("name", "is_done", "data"))
        self._put_note = insert_into(tables.notes, ("execution_id", "position", "kind", "data"))
        self._put_value = dialect.upsert(tables.memory, "execution_id, kind, name", ("data",))
        self._forget = (
            f"DELETE FROM {tables.memory} WHERE execution_id = ? AND kind = '{WORKING}' AND name IN {dialect.any_of}"
        )
        self._put_signal = insert_into(
            tables.signals, ("execution_id", "signal_id", "position", "kind", "signal_key", "data")
        )
        self._consume = (
            f"UPDATE {tables.signals} SET data = '' WHERE execution_id = ? AND signal_id IN {dialect.any_of}"
        )
        self._sent = f"SELECT 1 FROM {tables.signals} WHERE execution_id = ? AND signal_id = ?"
        accepted = ", ".join(f"'{kind}'" for kind in ANSWERING)
        self._answered = (
            f"SELECT 1 FROM {tables.signals} WHERE execution_id = ? AND kind = ? AND signal_key = ? "
            f"AND kind IN ({accepted}) LIMIT 1"  # literals, by which SQLite finds the index of these alone
        )

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed:
        return self._database.write(lambda transaction: self.checkpoint_in(transaction, execution_id, change, lease))

    def locked_checkpoint_id(self, transaction: Transaction, execution_id: str) -> str | None:
        """Locks the row; the id of its last applied checkpoint, or None."""
        ((*rows,),) = transaction.look((self._checkpoint_id, (execution_id,)))
        return rows[0][0] if rows else None

    def checkpoint_in(
        self, transaction: Transaction, execution_id: str, change: EncodedCheckpoint, lease: Lease | None
    ) -> Checkpointed:
        """`checkpoint` in a transaction that the caller commits."""
        (rows,), now_us = self._look(transaction, (self._decisive, (execution_id,)))
        header = header_of(rows[0], LOOKED_AT) if rows else None
        applied = check_checkpoint(execution_id, header, change, lease, now_us)
        if applied is not None:
            return applied
        assert header is not None
        notes = notes_of(change)
        changes = _changes(header, change, len(notes), now_us)
        state = change.state
        if state is not None:
            if lease is None and state in WORKING_STATES:
                changes |= {"due_us": now_us, "not_before_us": 0}
            if state.value != header["state"]:
                changes["audit_count"] = self._note(
                    transaction, header, AuditEvent.MOVED, now_us, to_state=state, by=change.by, reason=change.reason
                )
        self._update(transaction, execution_id, changes)
        if change.steps:
            steps = [(execution_id, step.number, step.name, step.is_done, step.text) for step in change.steps]
            transaction.insert(self._put_step, steps)
        if notes:
            numbered = enumerate(notes, header["note_count"] + 1)
            transaction.insert(self._put_note, [(execution_id, position, *note) for position, note in numbered])
        values = values_of(change)
        if values:
            transaction.insert(self._put_value, [(execution_id, *value) for value in values])
        if change.forget:
            transaction.write(self._forget, (execution_id, self.dialect.listed(change.forget)))
        if change.consumed:
            transaction.write(self._consume, (execution_id, self.dialect.listed(change.consumed)))
        return outcome(header | changes, now_us)

    def send(self, execution_id: str, signal: Signal, text: str) -> Sent:
        kind, key = signal.kind.value, signal.key

        def work(transaction: Transaction) -> Sent:
            (rows, sent, answered), now_us = self._look(
                transaction,
                (self._decisive, (execution_id,)),
                (self._sent, (execution_id, signal.signal_id)),
                (self._answered, (execution_id, kind, key)),
            )
            header = header_of(rows[0], LOOKED_AT) if rows else None
            repeated = check_signal(execution_id, header, signal, sent=bool(sent), answered=bool(answered))
            if repeated is not None:
                return repeated
            assert header is not None
            awaited = (header["wait_signal"], header["wait_key"]) == (kind, key)
            is_cancel = signal.kind is SignalKind.CANCEL
            changes: dict[str, Any] = {
                "pending": json.dumps(header["pending"] | {signal.signal_id: address_of(kind, key)}),
                "signal_count": header["signal_count"] + 1,
                "updated_us": now_us,
            }
            if is_cancel:
                changes["cancel_requested"] = 1
            woke = header["lease_until_us"] <= now_us and (
                is_cancel or (awaited and AgentState(header["state"]).is_paused)
            )
            if woke:
                changes |= {"due_us": now_us, "not_before_us": 0, "rings": 0}
            noted = noted_as(signal)
            if noted is not None:
                changes["audit_count"] = self._note(
                    transaction,
                    header,
                    noted,
                    now_us,
                    by=signal.sender,
                    reason=signal.reason,
                    signal=text,
                )
            self._update(transaction, execution_id, changes)
            transaction.insert(
                self._put_signal, [(execution_id, signal.signal_id, changes["signal_count"], kind, key, text)]
            )
            return Sent(woke=woke)

        return self._database.write(work)


def _changes(header: Header, change: EncodedCheckpoint, notes: int, now_us: int) -> dict[str, Any]:
    """The columns that an accepted checkpoint changes, with their new values."""
    state, pending = change.state, header["pending"]
    changes: dict[str, Any] = {
        "version": header["version"] + 1,
        "checkpoint_id": change.checkpoint_id,
        "updated_us": now_us,
    }
    if change.steps:
        intents = dict(header["intents"])
        for step in change.steps:
            if step.is_done:
                intents.pop(str(step.number), None)
            else:
                intents[str(step.number)] = step.name
        if intents != header["intents"]:
            changes["intents"] = json.dumps(intents)
        changes["step_count"] = max(header["step_count"], change.steps[-1].number)
        changes["crashes"] = 0
    if notes:
        changes["note_count"] = header["note_count"] + notes
    if change.consumed:
        pending = {signal_id: address for signal_id, address in pending.items() if signal_id not in change.consumed}
        changes["pending"] = json.dumps(pending)
    if state is None:
        return changes
    changes |= {
        "state": state.value,
        "waiting": change.waiting,
        "wait_key": change.wait_key,
        "wait_signal": change.wait_signal,
    }
    if state.is_paused:
        changes["crashes"] = 0
        if header["cancel_requested"] or address_of(change.wait_signal, change.wait_key) in pending.values():
            changes |= {"due_us": now_us, "not_before_us": 0}
        else:
            changes["due_us"] = change.wake_us
            changes["not_before_us"] = NEVER_US if change.wake_us is None else change.wake_us
    if state.is_over:
        changes |= {
            "output": change.output,
            "error": change.error,
            "due_us": None if change.announce_us is None else now_us + change.announce_us,
            "ended_us": now_us,
        }
    if change.gives_back_lease:
        changes |= {"owner": None, "lease_until_us": 0, "rings": 0}
    if state is AgentState.IDLE:
        changes |= {
            "output": None,
            "error": None,
            "crashes": 0,
            "rings": 0,
            "not_before_us": 0,
            "due_us": now_us,
            "ended_us": None,
        }
    return changes
