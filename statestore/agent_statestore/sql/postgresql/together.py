"""Checkpoints of several executions on PostgreSQL in one round trip and one commit."""

from collections.abc import Callable, Sequence

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase
from agent_statestore.sql.postgresql.primitives import checkpoint_params
from agent_statestore.sql.postgresql.writing import checkpoint_statement, shape_of


def checkpoint_together(
    database: PostgreSQLDatabase, now_us: Callable[[], int | None], changes: Sequence[tuple[Lease, EncodedCheckpoint]]
) -> list[Checkpointed | None]:
    """Apply several checkpoints; None stands for one that did not apply, and is to go alone.

    Raise `StoreError` if they cannot be written together; after `StoreUnavailable` they may be stored.
    """
    tables, now, statements = database.settings.tables, now_us(), []
    for lease, change in changes:
        statement = checkpoint_statement(tables, shape_of(change, leased=True), database.now)
        statements.append((statement, checkpoint_params(lease.execution_id, change, lease) | {"now": now}))
    return [
        Checkpointed(version=rows[0][0], cancel_requested=bool(rows[0][1]), due_now=rows[0][2]) if rows else None
        for rows in database.run_together(statements)
    ]
