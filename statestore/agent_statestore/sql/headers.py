"""Headers as rows: the columns that decide about a write, and the header that a row holds."""

import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from agent_statestore.sql.tables import COLUMNS, EXTRA_COLUMNS

Header: TypeAlias = dict[str, Any]

# The columns that decide whether a checkpoint or a signal is accepted, and what it changes; none of them is large.
DECISIVE: Final = (
    "execution_id",
    "format",
    "state",
    "awaited",
    "version",
    "token",
    "cancel_requested",
    "lease_until_us",
    "due_us",
    "step_count",
    "checkpoint_id",
    *EXTRA_COLUMNS,
)


def header_of(row: tuple[Any, ...], columns: Sequence[str] = COLUMNS) -> Header:
    """Return the header in a row that starts with `columns`.

    `intents` and `pending` are JSON text except on PostgreSQL.
    """
    header = dict(zip(columns, row, strict=False))
    for name in ("intents", "pending"):
        value = header[name]
        if isinstance(value, str):
            header[name] = json.loads(value) if value != "{}" else {}
    return header
