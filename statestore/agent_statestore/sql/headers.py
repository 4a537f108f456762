"""Headers as rows: the columns that decide about a write, and the header that a row holds."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from agent_statestore.envelope import reading
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.sql.tables import COLUMNS, EXTRA_COLUMNS
from agent_statestore.states import AgentState

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

# SQLite takes a text for a number.
_NUMBERS: Final = (
    *("format", "version", "token", "crashes", "rings", "cancel_requested", "lease_until_us", "not_before_us"),
    *("step_count", "created_us", "updated_us"),
)
_STATES: Final = frozenset(AgentState)


def header_of(row: tuple[Any, ...], columns: Sequence[str] = COLUMNS) -> Header:
    """Return the header in a row that starts with `columns`.

    `intents` and `pending` are JSON text except on PostgreSQL. Raise `ExecutionUnreadable` where they are not.
    """
    header = dict(zip(columns, row, strict=False))
    for name in _NUMBERS:
        if not isinstance(header.get(name, 0), int):
            raise ExecutionUnreadable(header["execution_id"], "header", f"its {name} is damaged")
    if header["state"] not in _STATES:
        raise ExecutionUnreadable(header["execution_id"], "header", "its state is damaged")
    for name in ("intents", "pending"):
        value = header[name]
        if isinstance(value, str):
            header[name] = reading(header["execution_id"], name, partial(json.loads, value)) if value != "{}" else {}
    return header
