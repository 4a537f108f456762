"""Documents: one row per document, and on MySQL and MariaDB the rows that their writers lock.

The tables from before stay as they are: workers of the version before go on working while it runs, and afterwards.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-30
"""

import sqlalchemy as sa

from agent_statestore.sql.schema.migrations.changes import Changes, bytes_type, text_type

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    changes = Changes()
    changes.create_table(
        "documents",
        sa.Column("place", changes.ordered_type(700), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("write_id", sa.String(255)),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("metadata", text_type(), nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger),
        sa.Column("text", text_type()),
        sa.Column("content", bytes_type()),
        key=("place",),
    )
    changes.create_index("documents", "expires", "expires_us", only="expires_us IS NOT NULL")
    if changes.is_mysql:
        changes.create_table(
            "document_locks", sa.Column("slot", sa.Integer, autoincrement=False, nullable=False), key=("slot",)
        )


def downgrade() -> None:
    changes = Changes()
    if changes.is_mysql:
        changes.drop_table("document_locks")
    changes.drop_index("documents", "expires")
    changes.drop_table("documents")
