"""The first schema: contexts, steps, notes, memory, signals.

Revision ID: 0001
Revises:
Create Date: 2026-11-23
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes, json_type, key_type, text_type

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    changes = Changes()
    changes.create_table(
        "contexts",
        sa.Column("execution_id", changes.id_type(), nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("agent_id", sa.String(255), nullable=False),
        sa.Column("session_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("parent_execution_id", sa.String(255)),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("queue", sa.String(255)),
        sa.Column("priority", sa.BigInteger),
        sa.Column("metadata", text_type(), nullable=False),
        sa.Column("input", text_type(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("waits", text_type()),
        sa.Column("awaited", text_type()),
        sa.Column("output", text_type()),
        sa.Column("error", text_type()),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("rings", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.SmallInteger, nullable=False),
        sa.Column("owner", text_type()),
        sa.Column("lease_until_us", sa.BigInteger, nullable=False),
        sa.Column("not_before_us", sa.BigInteger, nullable=False),
        sa.Column("due_us", sa.BigInteger),
        sa.Column("step_count", sa.Integer, nullable=False),
        sa.Column("checkpoint_id", text_type()),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("intents", json_type(), nullable=False),
        sa.Column("pending", json_type(), nullable=False),
        sa.Column("note_count", sa.Integer, nullable=False),
        sa.Column("signal_count", sa.Integer, nullable=False),
        key=("execution_id",),
        postgresql_with={"fillfactor": 70},
    )
    changes.create_index("contexts", "due", "due_us", "execution_id", only="due_us IS NOT NULL")
    # MySQL does not index a text of any length as a whole.
    start = {"owner": 255}
    changes.create_index(
        "contexts", "leased", "owner", only="owner IS NOT NULL", mysql_length=start, mariadb_length=start
    )
    changes.create_index(
        "contexts", "idempotency", "agent_id", "idempotency_key", only="idempotency_key IS NOT NULL", unique=True
    )
    newest = ("created_us", "execution_id")
    changes.create_index("contexts", "created", *newest)
    changes.create_index("contexts", "session", "session_id", *newest, only="session_id IS NOT NULL")
    changes.create_index("contexts", "user", "user_id", *newest, only="user_id IS NOT NULL")
    changes.create_index("contexts", "agent", "agent_id", *newest)
    changes.create_index("contexts", "state", "state", *newest)

    changes.create_part(
        "steps",
        sa.Column("step_number", sa.Integer, nullable=False),
        sa.Column("name", key_type(), nullable=False),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("data", text_type(), nullable=False),
        key=("execution_id", "step_number"),
    )
    changes.create_part(
        "notes",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("data", text_type(), nullable=False),
        key=("execution_id", "position"),
    )
    changes.create_part(
        "memory",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("data", text_type(), nullable=False),
        key=("execution_id", "kind", "name"),
    )
    changes.create_part(
        "signals",
        sa.Column("signal_id", key_type(), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("signal_key", key_type(), nullable=False),
        sa.Column("data", text_type(), nullable=False),
        key=("execution_id", "signal_id"),
    )
    changes.create_index(
        "signals",
        "answered",
        "execution_id",
        "kind",
        "signal_key",
        only="kind IN ('answer', 'approval')",
        unique=not changes.is_mysql,
    )


def downgrade() -> None:
    changes = Changes()
    for table in ("signals", "memory", "notes", "steps", "contexts"):
        changes.drop_table(table)
