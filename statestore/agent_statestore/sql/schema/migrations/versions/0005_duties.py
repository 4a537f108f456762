"""Duties: one row per duty of `take_duty`.

Revision ID: 0005
Revises: 0004
Create Date: 2026-11-30
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    Changes().create_table(
        "duties",
        sa.Column("duty", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        key=("duty",),
    )


def downgrade() -> None:
    Changes().drop_table("duties")
