"""The first schema: contexts, steps, notes, memory, signals.

Revision ID: 0001
Revises:
Create Date: 2026-11-23
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _id() -> sa.types.TypeEngine[str]:
    return sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def _json() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    prefix = context.config.attributes["table_prefix"]
    contexts = f"{prefix}contexts"
    op.create_table(
        contexts,
        sa.Column("execution_id", _id(), nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("agent_id", sa.String(255), nullable=False),
        sa.Column("session_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("parent_execution_id", sa.String(255)),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("queue", sa.String(255)),
        sa.Column("priority", sa.BigInteger),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("waiting", sa.Text),
        sa.Column("wait_key", sa.Text),
        sa.Column("wait_signal", sa.String(32)),
        sa.Column("output", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("rings", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.SmallInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until_us", sa.BigInteger, nullable=False),
        sa.Column("not_before_us", sa.BigInteger, nullable=False),
        sa.Column("due_us", sa.BigInteger),
        sa.Column("step_count", sa.Integer, nullable=False),
        sa.Column("checkpoint_id", sa.Text),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("intents", _json(), nullable=False),
        sa.Column("pending", _json(), nullable=False),
        sa.Column("note_count", sa.Integer, nullable=False),
        sa.Column("signal_count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("execution_id", name=f"{contexts}_pkey"),
        postgresql_with={"fillfactor": 70},
    )

    def index(name: str, *columns: str, only: str | None = None, unique: bool = False, on: str = contexts) -> None:
        where = None if only is None else sa.text(only)
        op.create_index(f"{on}_{name}", on, list(columns), unique=unique, postgresql_where=where, sqlite_where=where)

    index("due", "due_us", "execution_id", only="due_us IS NOT NULL")
    index("leased", "owner", only="owner IS NOT NULL")
    index("idempotency", "agent_id", "idempotency_key", only="idempotency_key IS NOT NULL", unique=True)
    index("created", "created_us", "execution_id")
    index("session", "session_id", "created_us", "execution_id", only="session_id IS NOT NULL")
    index("user", "user_id", "created_us", "execution_id", only="user_id IS NOT NULL")
    index("agent", "agent_id", "created_us", "execution_id")
    index("state", "state", "created_us", "execution_id")

    def part(name: str, *columns: sa.Column[object], key: tuple[str, ...]) -> None:
        op.create_table(
            f"{prefix}{name}",
            sa.Column("execution_id", _id(), nullable=False),
            *columns,
            sa.ForeignKeyConstraint(
                ["execution_id"],
                [f"{contexts}.execution_id"],
                ondelete="CASCADE",
                name=f"{prefix}{name}_execution_fkey",
            ),
            sa.PrimaryKeyConstraint(*key, name=f"{prefix}{name}_pkey"),
        )

    part(
        "steps",
        sa.Column("step_number", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        key=("execution_id", "step_number"),
    )
    part(
        "notes",
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        key=("execution_id", "position"),
    )
    part(
        "memory",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        key=("execution_id", "kind", "name"),
    )
    part(
        "signals",
        sa.Column("signal_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("signal_key", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        key=("execution_id", "signal_id"),
    )
    index(
        "answered",
        "execution_id",
        "kind",
        "signal_key",
        only="kind IN ('answer', 'approval')",
        unique=True,
        on=f"{prefix}signals",
    )


def downgrade() -> None:
    prefix = context.config.attributes["table_prefix"]
    for name in ("signals", "memory", "notes", "steps", "contexts"):
        op.drop_table(f"{prefix}{name}")
