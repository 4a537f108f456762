"""Checkpoints of several executions on PostgreSQL in one round trip and one commit."""

from collections.abc import Callable, Sequence

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase
from agent_statestore.sql.postgresql.primitives import checkpoint_params, checkpointed
from agent_statestore.sql.postgresql.shapes import shape_of
from agent_statestore.sql.postgresql.writing import checkpoint_statement


def checkpoint_together(
    database: PostgreSQLDatabase, now_us: Callable[[], int | None], changes: Sequence[tuple[Lease, EncodedCheckpoint]]
) -> list[Checkpointed | None]:
    """Apply several checkpoints; None stands for one that did not apply, and is to go alone.

    Raise `StoreError` if they cannot be written together; after `StoreUnavailable` they may be stored.
    """
    tables, now, statements = database.settings.tables, now_us(), []
    # In the order of their ids, in which everybody locks several rows.
    order = sorted(range(len(changes)), key=lambda place: changes[place][0].execution_id)
    for place in order:
        lease, change = changes[place]
        statement = checkpoint_statement(tables, shape_of(change, leased=True), database.now)
        statements.append((statement, checkpoint_params(lease.execution_id, change, lease) | {"now": now}))
    applied: list[Checkpointed | None] = [None] * len(changes)
    for place, rows in zip(order, database.run_together(statements), strict=True):
        if rows:
            applied[place] = checkpointed(rows[0])
    return applied
