"""Streams: one row per event, and on an execution's row where its stream ends.

Workers of the version before may go on while it runs, and afterwards: they do not name the new columns, and what they
purge takes its events along. PostgreSQL and MariaDB add columns with a constant default without rewriting the table.

Revision ID: 0007
Revises: 0006
Create Date: 2026-12-01
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes, text_type

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLUMNS = ("stream_last", "stream_place", "stream_trimmed", "watched_until_us")


def upgrade() -> None:
    changes = Changes()
    for name in _COLUMNS:
        changes.add_column("contexts", sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0")))
    changes.create_part(
        "events",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("data", text_type(), nullable=False),
        key=("execution_id", "number"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    changes = Changes()
    changes.drop_table("events")
    # Backwards, so that what is left of them keeps its order, should MySQL be interrupted here.
    for name in reversed(_COLUMNS):
        changes.drop_column("contexts", name)
