"""A whole context on PostgreSQL, read by the statement that reads or claims its row."""

from collections.abc import Sequence
from typing import Any, Final

from agent_statestore.codec.contexts import emptied
from agent_statestore.records import AgentContext
from agent_statestore.sql.rows import context_of
from agent_statestore.sql.tables import COLUMNS, Tables

# The place of the parts in a row of `COLUMNS` and what `parts_of` adds.
_PARTS: Final = slice(len(COLUMNS), len(COLUMNS) + 7)


def parts_of(tables: Tables, header: str) -> str:
    """Return the parts of a context as array columns.

    They are steps, notes (kinds, texts), memory (kinds, names, texts), and signals.
    """
    steps, notes, memory, signals = tables.steps, tables.notes, tables.memory, tables.signals

    def texts(column: str, table: str, order: str) -> str:
        return (
            f"ARRAY(SELECT p.{column} FROM {table} AS p WHERE p.execution_id = {header}.execution_id ORDER BY {order})"
        )

    return ", ".join(
        (
            texts("data", steps, "p.step_number"),
            texts("kind", notes, "p.position"),
            texts("data", notes, "p.position"),
            texts("kind", memory, "p.kind, p.name"),
            texts("name", memory, "p.kind, p.name"),
            texts("data", memory, "p.kind, p.name"),
            (
                f"ARRAY(SELECT p.data FROM jsonb_object_keys({header}.pending) AS unconsumed(id) JOIN {signals} AS p "
                f"ON p.execution_id = {header}.execution_id AND p.signal_id = unconsumed.id ORDER BY p.position)"
            ),
        )
    )


def context_in(row: Sequence[Any]) -> AgentContext:
    """Return the context in a row that begins with `COLUMNS` and the parts."""
    steps, note_kinds, note_texts, value_kinds, value_names, value_texts, signals = row[_PARTS]
    return context_of(
        dict(zip(COLUMNS, row, strict=False)),
        steps=emptied(steps),
        notes=zip(note_kinds, note_texts, strict=True),
        values=zip(value_kinds, value_names, value_texts, strict=True),
        signals=signals,
    )
