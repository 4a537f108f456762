"""Rates: one row per bucket of `take_rate`.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-23
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    Changes().create_table(
        "rates",
        sa.Column("bucket", sa.String(255), nullable=False),
        sa.Column("next_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("turn_us", sa.BigInteger, nullable=False),
        key=("bucket",),
    )


def downgrade() -> None:
    Changes().drop_table("rates")
