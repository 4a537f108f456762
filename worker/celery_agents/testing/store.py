"""The store as a test's executions see it: with a process that may die at each write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent_statestore.checkpoint import Checkpoint, NewExecution, StepTransaction
from agent_statestore.records import AgentContext, Checkpointed, Lease
from agent_statestore.store import Store
from celery_agents.testing.crashes import Crashes, When


class WatchedStore:
    """Does what the store does; what is not here goes straight to it."""

    def __init__(self, store: Store, crashes: Crashes) -> None:
        self._store = store
        self._crashes = crashes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create_in(self, connection: Any, new: NewExecution) -> AgentContext:
        """Creates in the transaction. What is kept in memory is there at once, and stays after a rollback too."""
        return self._store.create_in(connection, new) if self._store.has_transactions else self._store.create(new)

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        """See `StorePrimitives.checkpoint`."""
        if lease is None:
            return self._store.checkpoint(execution_id, checkpoint)
        announced, done = _steps_in(checkpoint)
        self._crashes.come_to(When.BEFORE_INTENT, lease, *announced, *done)
        self._crashes.come_to(When.BEFORE_CHECKPOINT, lease, *done)
        applied = self._store.checkpoint(execution_id, checkpoint, lease)
        self._crashes.come_to(When.AFTER_INTENT, lease, *announced)
        self._crashes.come_to(When.AFTER_CHECKPOINT, lease, *done)
        return applied

    @contextmanager
    def transaction(self, execution_id: str, lease: Lease) -> Iterator[StepTransaction]:
        """See `StorePrimitives.transaction`."""
        with self._store.transaction(execution_id, lease) as transaction:
            yield _WatchedTransaction(transaction, lease, self._crashes)


class _WatchedTransaction:
    """Does what the transaction does."""

    def __init__(self, transaction: StepTransaction, lease: Lease, crashes: Crashes) -> None:
        self._transaction = transaction
        self._lease = lease
        self._crashes = crashes

    @property
    def connection(self) -> Any:
        return self._transaction.connection

    @property
    def was_applied(self) -> bool:
        return self._transaction.was_applied

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        _, done = _steps_in(checkpoint)
        self._crashes.come_to(When.BEFORE_CHECKPOINT, self._lease, *done)
        applied = self._transaction.checkpoint(checkpoint)
        self._crashes.come_to(When.AFTER_CHECKPOINT, self._lease, *done)
        return applied


def _steps_in(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """The keys of the steps that a checkpoint says are begun, and of those that it says are done."""
    announced = [step.name for step in checkpoint.steps if step.result is None]
    announced += [wait.key for wait in checkpoint.waits]
    return announced, [step.name for step in checkpoint.steps if step.result is not None]
