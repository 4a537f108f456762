"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

import sqlalchemy as sa
${imports if imports else ""}
from agent_statestore.sql.schema.migrations.changes import Changes

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    changes = Changes()
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    changes = Changes()
    ${downgrades if downgrades else "pass"}
