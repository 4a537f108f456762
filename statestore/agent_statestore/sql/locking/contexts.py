"""Under a lock: executions are created, read and claimed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from agent_statestore.checkpoint import NewExecution, new_execution_id
from agent_statestore.clock import Clock, duration_us, from_us
from agent_statestore.codec import encode_new
from agent_statestore.codec.contexts import emptied
from agent_statestore.codec.headers import new_bytes
from agent_statestore.errors import ExecutionIdTaken, ExecutionUnreadable, IdempotencyConflict
from agent_statestore.records import AgentContext, AuditEvent, Claim
from agent_statestore.rules.creating import check_each, same_execution, same_id
from agent_statestore.rules.leases import claim_changes, lease_of, may_claim
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.headers import Header, header_of
from agent_statestore.sql.locking.base import LockedBase
from agent_statestore.sql.rows import context_of
from agent_statestore.sql.tables import COLUMNS
from agent_statestore.sql.transaction import Row, Select, Transaction, insert_into
from agent_statestore.states import AgentState

_NO_PARTS: Final = {"intents": "{}", "pending": "{}", "note_count": 0, "signal_count": 0}


class LockedContexts(LockedBase):
    """The primitives that return a context; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables, lock = self._tables, self.dialect.lock
        columns = ", ".join(COLUMNS)
        self._header = f"SELECT {columns} FROM {tables.contexts} {self._here}"
        self._locked_header = f"{self._header}{lock}"
        self._by_key = f"SELECT {columns} FROM {tables.contexts} WHERE agent_id = ? AND idempotency_key = ?{lock}"
        self._by_id = f"SELECT {columns}, deleted_us FROM {tables.contexts} WHERE execution_id = ?{lock}"
        self._put_context = insert_into(tables.contexts, COLUMNS)
        self._parts = (
            f"SELECT data FROM {tables.steps} WHERE execution_id = ? ORDER BY step_number",
            f"SELECT kind, data FROM {tables.notes} WHERE execution_id = ? ORDER BY position",
            f"SELECT kind, name, data FROM {tables.memory} WHERE execution_id = ? ORDER BY kind, name",
            # A signal loses its text when it is consumed.
            f"SELECT signal_id, data FROM {tables.signals} WHERE execution_id = ? AND data <> '' ORDER BY position",
        )

    def create(
        self, new: NewExecution, max_bytes: int, within: Transaction | None = None, *, is_last: bool = True
    ) -> AgentContext:
        """See `StorePrimitives.create`; `within` is a transaction that others began and will end.

        `is_last` says that nothing follows in it.
        """
        execution_id = new.execution_id or new_execution_id()
        # The encoding comes before the lock: nothing waits for it, and it cannot fail under the lock.
        encoded = encode_new(execution_id, new, None, max_bytes)
        first_ring_us = duration_us(new.first_ring)

        def work(transaction: Transaction) -> AgentContext:
            # One of several concurrent calls inserts the key; the others are refused, run again, and find it here.
            asked: list[Select] = []
            if new.execution_id is not None:
                asked = [(self._by_id, (execution_id,))]
            elif new.idempotency_key is not None:
                asked = [(self._by_key, (new.agent_id, new.idempotency_key))]
            found, now_us = self._look(transaction, *asked)
            if found and found[0]:
                header = header_of(found[0][0])
                if new.execution_id is not None and found[0][0][-1] is not None:
                    return same_id(None, new)  # deleted, and kept
                read = transaction.finish if is_last else transaction.look
                existing = self._context(header, read(*_selects(self._parts, header["execution_id"])))
                return same_execution(existing, new) if new.execution_id is None else same_id(existing, new)
            header = encoded | _NO_PARTS | {"created_us": now_us, "updated_us": now_us, "audit_count": 0}
            header["context_bytes"] = new_bytes(encoded)
            if header["due_us"] is None:
                header["due_us"] = now_us + first_ring_us
            self._put_header(transaction, header | {"audit_count": 1})
            self._note(transaction, header, AuditEvent.CREATED, now_us, to_state=AgentState.IDLE)
            return context_of(header)

        return self._database.write(work) if within is None else work(within)

    def create_at_once(self, news: Sequence[NewExecution], max_bytes: int) -> Sequence[AgentContext | None]:
        """See `Primitives.create_at_once`."""
        check_each(news, max_bytes)

        def create(transaction: Transaction, new: NewExecution) -> AgentContext | None:
            try:
                return self.create(new, max_bytes, transaction, is_last=False)
            except (IdempotencyConflict, ExecutionIdTaken):
                return None  # nothing is written by then

        return self._database.write(lambda transaction: [create(transaction, new) for new in news])

    def get_context(self, execution_id: str) -> AgentContext | None:
        rows, *parts = self._database.read((self._header, (execution_id,)), *_selects(self._parts, execution_id))
        return self._context(header_of(rows[0]), parts) if rows else None

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        # An execution loses its key only when it is deleted: then there was a moment at which nothing had the key.
        rows = self._database.run(
            f"SELECT execution_id FROM {self._tables.contexts} WHERE agent_id = :agent_id AND idempotency_key = :key",
            {"agent_id": agent_id, "key": idempotency_key},
        )
        return self.get_context(rows[0][0]) if rows else None

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        def work(transaction: Transaction) -> Claim | ExecutionUnreadable | None:
            (rows,), now_us = self._look(transaction, (self._locked_header, (execution_id,)))
            if not rows:
                return None
            header = header_of(rows[0])
            if not may_claim(execution_id, header, now_us):
                return None
            changes = claim_changes(header, owner, ttl, now_us)
            header |= changes
            changes["audit_count"] = self._note(
                transaction, header, AuditEvent.CLAIMED, now_us, to_state=AgentState.THINKING
            )
            changes["state"] = AgentState.THINKING.value
            self._update(transaction, execution_id, changes)
            header |= changes
            lease, parts = lease_of(header, ttl), transaction.finish(*_selects(self._parts, execution_id))
            try:
                return Claim(lease=lease, context=self._context(header, parts), now=from_us(now_us))
            except ExecutionUnreadable as fault:
                return fault.under(lease)  # not raised here, where it would undo the claim

        claim = self._database.write(work)
        if isinstance(claim, ExecutionUnreadable):
            raise claim
        return claim

    def _put_header(self, transaction: Transaction, header: Header) -> None:
        """Note the session of a row, and then insert the row into `contexts`.

        The session comes first: whoever removes an empty session has locked its row before it looks for executions.
        """
        self._touch_session(transaction, header)
        transaction.insert(self._put_context, [[header[name] for name in COLUMNS]])

    def _touch_session(self, transaction: Transaction, header: Header) -> None:
        if header["session_id"] is not None:
            created_us = header["created_us"]
            transaction.insert(self._put_session, [(header["session_id"], header["user_id"], created_us, created_us)])

    def _context(self, header: Header, parts: Sequence[list[Row]]) -> AgentContext:
        rows, notes, values, mail = parts
        pending = header["pending"]
        return context_of(
            header,
            steps=(text for (text,) in emptied(rows)),
            notes=[(kind, text) for kind, text in notes],
            values=[(kind, name, text) for kind, name, text in values],
            # A signal that was consumed under an older version of this package still has its text.
            signals=[text for signal_id, text in mail if signal_id in pending],
        )


def _selects(parts: Sequence[str], execution_id: str) -> list[Select]:
    return [(part, (execution_id,)) for part in parts]
