"""Under a lock: checkpoints and signals."""

import json
from typing import Any

from agent_statestore.clock import Clock
from agent_statestore.codec import EncodedCheckpoint, noted_as, stamp
from agent_statestore.codec.signals import ANSWERING, address_of, mailbox_key
from agent_statestore.codec.streams import EncodedPart
from agent_statestore.envelope import octets
from agent_statestore.records import AuditEvent, Checkpointed, Lease, Sent, Signal
from agent_statestore.rules.checkpoints import check_checkpoint, checkpoint_changes, outcome
from agent_statestore.rules.growth import Growth
from agent_statestore.rules.signals import MailBounds, check_signal, signal_changes
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import Header, header_of
from agent_statestore.sql.locking.base import LOOKED_AT
from agent_statestore.sql.locking.replaced import ReplacedSizes
from agent_statestore.sql.locking.streams import STREAMED, LockedStreams
from agent_statestore.sql.rows import notes_of, values_of
from agent_statestore.sql.tables import WORKING
from agent_statestore.sql.transaction import Transaction, insert_into


class LockedWriting(LockedStreams):
    """The primitives that add to one execution; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables, dialect = self._tables, self.dialect
        self._replaced = ReplacedSizes(tables, dialect)
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
        self._forget_signals = (
            f"DELETE FROM {tables.signals} WHERE execution_id = ? AND position <= ? AND data = '' "
            f"AND kind NOT IN ({accepted})"
        )
        self._answered = (
            f"SELECT 1 FROM {tables.signals} WHERE execution_id = ? AND kind = ? AND signal_key = ? "
            f"AND kind IN ({accepted}) LIMIT 1"  # literals, by which SQLite finds the index of these alone
        )

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed:
        return self._database.write(lambda transaction: self.checkpoint_in(transaction, execution_id, change, lease))

    def locked_checkpoint_id(self, transaction: Transaction, execution_id: str) -> str | None:
        """Lock the row, and return the id of its last applied checkpoint, or None."""
        ((*rows,),) = transaction.look((self._checkpoint_id, (execution_id,)))
        return rows[0][0] if rows else None

    def checkpoint_in(
        self, transaction: Transaction, execution_id: str, change: EncodedCheckpoint, lease: Lease | None
    ) -> Checkpointed:
        """Apply a checkpoint in a transaction that the caller commits."""
        replaced, stream = self._replaced.by(execution_id, change), change.stream
        decisive, columns = (self._decisive, LOOKED_AT) if stream is None else (self._streamed, STREAMED)
        (rows, *sizes), now_us = self._look(transaction, (decisive, (execution_id,)), *replaced)
        header = header_of(rows[0], columns) if rows else None
        intents = {} if header is None else header["intents"]
        late = self._replaced.by_ordinary_steps(execution_id, change, intents)
        if late:
            sizes += transaction.look(*late)
        growth = Growth(
            0 if header is None else header["context_bytes"],
            change.added_bytes,
            sum(int(size or 0) for ((size,),) in sizes),
        )
        applied = check_checkpoint(execution_id, header, change, lease, intents, now_us, growth)
        if applied is not None:
            return applied
        assert header is not None
        notes, state = notes_of(change), change.state
        pending = _pending_after(header, change)
        changes = checkpoint_changes(header, change, lease, pending.values(), now_us)
        own = _own_columns(header, change, len(notes), pending)
        own["context_bytes"] = growth.after
        if state is not None and state.value != header["state"]:
            own["audit_count"] = self._note(
                transaction,
                header,
                AuditEvent.MOVED,
                now_us,
                to_state=state,
                by=change.by,
                reason=change.reason,
                signal=change.via,
            )
        changes |= own
        if stream is not None:
            changes |= self._append(transaction, header, stream, now_us)
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

    def send(
        self, execution_id: str, signal: Signal, text: str, told: str | None, max_mailbox: int, max_bytes: int
    ) -> Sent:
        kind, key = signal.kind.value, mailbox_key(signal.key, signal.round)

        def work(transaction: Transaction) -> Sent:
            (rows, sent, answered), now_us = self._look(
                transaction,
                (self._streamed, (execution_id,)),
                (self._sent, (execution_id, signal.signal_id)),
                (self._answered, (execution_id, kind, key)),
            )
            header = header_of(rows[0], STREAMED) if rows else None
            stamped = stamp(text, now_us)
            size = octets(stamped) + (0 if header is None else header["context_bytes"])
            repeated = check_signal(
                execution_id,
                header,
                signal,
                sent=bool(sent),
                answered=bool(answered),
                waiting=0 if header is None else len(header["pending"]),
                bounds=MailBounds(max_mailbox, max_bytes, size),
            )
            if repeated is not None:
                return repeated
            assert header is not None
            changes, answer = signal_changes(header, signal, text, now_us)
            changes |= {
                "context_bytes": size,
                "pending": json.dumps(header["pending"] | {signal.signal_id: address_of(kind, key)}),
                "signal_count": header["signal_count"] + 1,
            }
            noted = noted_as(signal)
            if noted is not None:
                changes["audit_count"] = self._note(
                    transaction,
                    header,
                    noted,
                    now_us,
                    by=signal.sender,
                    reason=signal.reason,
                    signal=stamped,
                )
            if told is not None:
                changes |= self._append(transaction, header, EncodedPart(0, (told,)), now_us)
            self._update(transaction, execution_id, changes)
            transaction.insert(
                self._put_signal, [(execution_id, signal.signal_id, changes["signal_count"], kind, key, stamped)]
            )
            if changes["signal_count"] > max_mailbox:
                transaction.write(self._forget_signals, (execution_id, changes["signal_count"] - max_mailbox))
            return answer

        return self._database.write(work)


def _pending_after(header: Header, change: EncodedCheckpoint) -> dict[str, str]:
    """Return the signals that are in the mailbox after the checkpoint: the id and address of each."""
    pending: dict[str, str] = header["pending"]
    if not change.consumed:
        return pending
    return {signal_id: address for signal_id, address in pending.items() if signal_id not in change.consumed}


def _own_columns(header: Header, change: EncodedCheckpoint, notes: int, pending: dict[str, str]) -> dict[str, Any]:
    """Return what an accepted checkpoint changes in the columns that are not fields of the header."""
    columns: dict[str, Any] = {}
    if change.steps:
        intents = dict(header["intents"])
        for step in change.steps:
            if step.is_done:
                intents.pop(str(step.number), None)
            else:
                intents[str(step.number)] = step.name
        if intents != header["intents"]:
            columns["intents"] = json.dumps(intents)
    if notes:
        columns["note_count"] = header["note_count"] + notes
    if change.consumed:
        columns["pending"] = json.dumps(pending)
    return columns
