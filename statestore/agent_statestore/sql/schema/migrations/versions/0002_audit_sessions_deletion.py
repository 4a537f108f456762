"""The audit trail, sessions, the end of an execution, and deletion that leaves the contents to a purge.

An execution from before has no audit trail; its end is taken to be its last write. Going back removes what was
deleted, because nothing of the first schema would hide it.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

from agent_statestore.sql.schema.migrations.changes import Changes, text_type

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The indexes of `find`, with their condition in the first schema.
_FIND = {
    "created": (("created_us", "execution_id"), None),
    "session": (("session_id", "created_us", "execution_id"), "session_id IS NOT NULL"),
    "user": (("user_id", "created_us", "execution_id"), "user_id IS NOT NULL"),
    "agent": (("agent_id", "created_us", "execution_id"), None),
    "state": (("state", "created_us", "execution_id"), None),
}


def upgrade() -> None:
    changes = Changes()
    contexts, sessions = changes.named("contexts"), changes.named("sessions")
    changes.add_column("contexts", sa.Column("ended_us", sa.BigInteger))
    changes.add_column("contexts", sa.Column("audit_count", sa.Integer, nullable=False, server_default=sa.text("0")))
    changes.add_column("contexts", sa.Column("deleted_us", sa.BigInteger))
    op.execute(
        f"UPDATE {contexts} SET ended_us = updated_us "
        "WHERE ended_us IS NULL AND state IN ('completed', 'failed', 'cancelled')"
    )
    # Without partial indexes there is nothing to change in them.
    if not changes.is_mysql:
        for name, (columns, only) in _FIND.items():
            changes.drop_index("contexts", name)
            there = "deleted_us IS NULL" if only is None else f"{only} AND deleted_us IS NULL"
            changes.create_index("contexts", name, *columns, only=there)
        changes.create_index("contexts", "left", "session_id", only="session_id IS NOT NULL AND deleted_us IS NOT NULL")
        changes.drop_index("contexts", "leased")
        changes.create_index(
            "contexts", "leased", "owner", only="owner IS NOT NULL", postgresql_ops={"owner": "text_pattern_ops"}
        )
    changes.create_index(
        "contexts",
        "ended",
        "ended_us",
        "execution_id",
        only="ended_us IS NOT NULL AND due_us IS NULL AND deleted_us IS NULL",
    )
    changes.create_index("contexts", "deleted", "deleted_us", "execution_id", only="deleted_us IS NOT NULL")
    changes.create_index(
        "contexts", "agent_state", "agent_id", "state", "created_us", "execution_id", only="deleted_us IS NULL"
    )

    changes.create_part(
        "audit",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("from_state", sa.String(32)),
        sa.Column("to_state", sa.String(32)),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("worker", text_type()),
        sa.Column("who", text_type()),
        sa.Column("why", text_type()),
        sa.Column("data", text_type()),
        key=("execution_id", "position"),
    )
    changes.create_index("audit", "at", "at_us")

    changes.create_table(
        "sessions",
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        key=("session_id",),
    )
    changes.create_index("sessions", "user", "user_id", "updated_us")
    op.execute(
        f"INSERT INTO {sessions} (session_id, user_id, created_us, updated_us) "
        "SELECT c.session_id, (SELECT latest.user_id "
        f"FROM {contexts} AS latest WHERE latest.session_id = c.session_id AND latest.user_id IS NOT NULL "
        "ORDER BY latest.created_us DESC, latest.execution_id DESC LIMIT 1), MIN(c.created_us), MAX(c.created_us) "
        f"FROM {contexts} AS c WHERE c.session_id IS NOT NULL "
        f"AND NOT EXISTS (SELECT 1 FROM {sessions} AS s WHERE s.session_id = c.session_id) GROUP BY c.session_id"
    )


def downgrade() -> None:
    changes = Changes()
    changes.drop_table("sessions")
    changes.drop_table("audit")
    if changes.has_column("contexts", "deleted_us"):
        op.execute(f"DELETE FROM {changes.named('contexts')} WHERE deleted_us IS NOT NULL")
    for name in ("ended", "deleted", "agent_state"):
        changes.drop_index("contexts", name)
    if not changes.is_mysql:
        for name, (columns, only) in _FIND.items():
            changes.drop_index("contexts", name)
            changes.create_index("contexts", name, *columns, only=only)
        changes.drop_index("contexts", "left")
        changes.drop_index("contexts", "leased")
        changes.create_index("contexts", "leased", "owner", only="owner IS NOT NULL")
    # Backwards, so that what is left of them keeps its order, should MySQL be interrupted here.
    for column in ("deleted_us", "audit_count", "ended_us"):
        changes.drop_column("contexts", column)
