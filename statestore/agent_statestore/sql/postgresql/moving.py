"""Executions exported from PostgreSQL and restored into it as a whole: each way is one statement."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from agent_statestore.clock import Clock
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.envelope import require_readable
from agent_statestore.errors import IdempotencyKeyTaken
from agent_statestore.sql.database import Database, DuplicateKey
from agent_statestore.sql.headers import header_of
from agent_statestore.sql.postgresql.repeating import ROUNDS, Repeating
from agent_statestore.sql.postgresql.writing import session_part
from agent_statestore.sql.rows import exported_of, header_to_restore, notes_of, signals_of, stream_end_of, values_of
from agent_statestore.sql.tables import AUDIT_COLUMNS, COLUMNS, STREAM_COLUMNS, Tables

_AUDIT_NUMBERS: Final = {"position": "integer", "at_us": "bigint", "attempt": "bigint"}
# Each part's columns behind `execution_id`, with their types; the first columns give the order in which it is read.
_PARTS: Final[dict[str, dict[str, str]]] = {
    "steps": {"step_number": "integer", "name": "text", "is_done": "boolean", "data": "text"},
    "notes": {"position": "integer", "kind": "text", "data": "text"},
    "memory": {"kind": "text", "name": "text", "data": "text"},
    "signals": {"position": "integer", "signal_id": "text", "kind": "text", "signal_key": "text", "data": "text"},
    "audit": {name: _AUDIT_NUMBERS.get(name, "text") for name in AUDIT_COLUMNS},
    "events": {"number": "bigint", "data": "text"},
}


class PostgreSQLMoving(Repeating):
    """The primitives that move executions between stores; see `StorePrimitives` for each method."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables = self._tables
        replaceable = _replaceable(database.now)
        self._export = export_statement(tables)
        self._restore = restore_statement(tables, replaceable)
        self._may_restore = (
            f"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM {tables.contexts} AS c "
            f"WHERE c.execution_id = :execution_id AND NOT ({replaceable}))"
        )
        self._key_owner = (
            f"SELECT 1 FROM {tables.contexts} WHERE agent_id = :agent_id AND idempotency_key = :idempotency_key "
            "AND execution_id <> :execution_id"
        )

    def export(self, execution_id: str) -> ExportedExecution | None:
        rows = self._database.run(self._export, {"execution_id": execution_id})
        if not rows:
            return None
        header = header_of(rows[0])
        require_readable(f"execution {execution_id}", header["format"])
        trimmed_to, *parts = rows[0][len(COLUMNS) :]
        columns = iter(parts)
        steps, notes, values, signals, audit, events = (
            list(zip(*(next(columns) for _ in names), strict=True)) for names in _PARTS.values()
        )
        return exported_of(
            header,
            steps=steps,
            notes=[(kind, text) for _, kind, text in notes],
            values=values,
            signals=[(signal_id, kind, key, text) for _, signal_id, kind, key, text in signals],
            audit=audit,
            events=events,
            trimmed_to=trimmed_to,
        )

    def restore(self, exported: ExportedExecution) -> bool:
        params = _restore_params(exported) | {"now": self.now_us()}
        agent_id, key = params["agent_id"], params["idempotency_key"]
        for _ in range(ROUNDS):
            try:
                if self._database.run(self._restore, params):
                    return True
            except DuplicateKey as refused:
                if key is not None and self._database.run(self._key_owner, params):
                    raise IdempotencyKeyTaken(agent_id, key) from refused
            else:
                if not self._database.run(self._may_restore, params):
                    return False
        raise self._unexplained("restore", exported.execution_id)


def export_statement(tables: Tables) -> str:
    """Return the statement that reads everything of an execution.

    It gives `COLUMNS`, up to which number the stream was trimmed, then each column of each part as an array.
    """
    selected = [f"c.{name}" for name in (*COLUMNS, "stream_trimmed")]
    sources = []
    for part, columns in _PARTS.items():
        selected += [f"{part}.{name}" for name in columns]
        arrays = ", ".join(f"COALESCE(array_agg(p.{name}), '{{}}') AS {name}" for name in columns)
        names = list(columns)
        sources.append(
            f"LATERAL (SELECT {arrays} FROM (SELECT {', '.join(names)} FROM {getattr(tables, part)} AS q "
            f"WHERE q.execution_id = c.execution_id ORDER BY {', '.join(names[:2])}) AS p) AS {part}"
        )
    return (
        f"SELECT {', '.join(selected)} FROM {tables.contexts} AS c, {', '.join(sources)} "
        "WHERE c.execution_id = :execution_id AND c.deleted_us IS NULL"
    )


def restore_statement(tables: Tables, replaceable: str) -> str:
    """Return the statement that stores an execution, over an older copy or none. A row means that it did."""
    stored = (*COLUMNS, *STREAM_COLUMNS)
    kept = [name for name in stored if name != "execution_id"]
    head = (
        f"head AS (INSERT INTO {tables.contexts} AS c ({', '.join(stored)}) "
        f"VALUES ({', '.join(f':{name}' for name in stored)}) ON CONFLICT (execution_id) DO UPDATE SET "
        f"{', '.join(f'{name} = excluded.{name}' for name in kept)} WHERE {replaceable} "
        # The parts of the copy are removed as they were when the statement began.
        "AND (c.version, c.token, c.audit_count, c.signal_count, c.stream_last) = (SELECT seen.version, seen.token, "
        f"seen.audit_count, seen.signal_count, seen.stream_last FROM {tables.contexts} AS seen "
        "WHERE seen.execution_id = :execution_id) "
        "RETURNING c.execution_id, c.session_id, c.user_id, c.created_us)"
    )
    parts = [head, session_part(tables)]
    for part, columns in _PARTS.items():
        table, names = getattr(tables, part), ", ".join(columns)
        arrays = ", ".join(f"CAST(:{part}_{name} AS {kind}[])" for name, kind in columns.items())
        parts.append(
            f"old_{part} AS (DELETE FROM {table} AS p USING head WHERE p.execution_id = head.execution_id RETURNING 1)"
        )
        # Counting the removed rows puts the removal first.
        parts.append(
            f"new_{part} AS (INSERT INTO {table} (execution_id, {names}) SELECT head.execution_id, p.* "
            f"FROM head, unnest({arrays}) AS p WHERE (SELECT count(*) FROM old_{part}) >= 0)"
        )
    return f"WITH {', '.join(parts)} SELECT 1 FROM head"


def _replaceable(now: str) -> str:
    """Return the condition, in SQL, under which a copy `c` gives way to the restored one."""
    return (
        f"c.deleted_us IS NULL AND c.lease_until_us <= {now} AND (c.version, c.token, c.audit_count) < "
        "(CAST(:version AS bigint), CAST(:token AS bigint), CAST(:audit_count AS integer))"
    )


def _restore_params(exported: ExportedExecution) -> dict[str, Any]:
    rows: dict[str, Sequence[tuple[Any, ...]]] = {
        "steps": [(step.number, step.name, step.is_done, step.text) for step in exported.steps],
        "notes": _numbered(notes_of(exported)),
        "memory": values_of(exported),
        "signals": _numbered(signals_of(exported)),
        "audit": exported.audit,
        "events": exported.events,
    }
    params = header_to_restore(exported) | stream_end_of(exported)
    for part, columns in _PARTS.items():
        for place, name in enumerate(columns):
            params[f"{part}_{name}"] = [row[place] for row in rows[part]]
    return params


def _numbered(rows: Iterable[tuple[str, ...]]) -> list[tuple[Any, ...]]:
    return [(position, *row) for position, row in enumerate(rows, 1)]
