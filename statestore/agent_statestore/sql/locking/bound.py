"""The statements of a store with row locks as part of a caller's transaction; see `step_transaction`."""

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.sql.locking import LockedPrimitives
from agent_statestore.sql.transaction import Transaction


class BoundLocked:
    """See `agent_statestore.sql.step_transaction.BoundDatabase`; for SQLite, MySQL and MariaDB."""

    def __init__(self, primitives: LockedPrimitives, transaction: Transaction) -> None:
        self._primitives = primitives
        self._transaction = transaction

    def locked_checkpoint_id(self, execution_id: str) -> str | None:
        return self._primitives.locked_checkpoint_id(self._transaction, execution_id)

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease) -> Checkpointed:
        applied = self._primitives.checkpoint_in(self._transaction, execution_id, change, lease)
        self._transaction.flush()
        return applied
