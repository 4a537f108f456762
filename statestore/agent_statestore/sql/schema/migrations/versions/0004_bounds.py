"""What is counted of an execution as a whole: the bytes of its context, and its descendants.

An execution from before is counted from here on: its context as if it were empty now.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-30
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    changes = Changes()
    changes.add_column(
        "contexts", sa.Column("context_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    changes.add_column("contexts", sa.Column("descendants", sa.Integer, nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    changes = Changes()
    # Backwards, so that what is left of them keeps its order, should MySQL be interrupted here.
    for column in ("descendants", "context_bytes"):
        changes.drop_column("contexts", column)
