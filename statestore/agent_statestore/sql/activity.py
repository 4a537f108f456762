"""The facts behind statistics, for many executions at once: two statements instead of two for each."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from agent_statestore.codec import AuditRow, decode_audit
from agent_statestore.envelope import DAMAGE, unseal
from agent_statestore.errors import FormatTooNew
from agent_statestore.records import AuditEntry
from agent_statestore.sql.database import Database
from agent_statestore.sql.tables import AUDIT_COLUMNS
from agent_statestore.stats import Activity, StepTiming

# How each dialect takes many ids as one parameter.
AMONG: Final = {
    "postgresql": "= ANY(CAST(:ids AS text[]))",
    "sqlite": "IN (SELECT value FROM json_each(:ids))",
    "mysql": "IN :ids",
}

# An envelope (see `agent_statestore.codec.encode_step`) may hold megabytes, so the server cuts two values out of it.
# The JSON functions of servers will not do: PostgreSQL's refuse a whole statement for one NUL in one text, MariaDB's
# and MySQL's give up on deep nesting. But inside a JSON text every quote has a backslash before it, so a marker is
# always a real key, and one that occurs only once is the envelope's own. A step that has such a key in its output, too,
# gives null, and is read as a whole. SQLite shows `true` as 1, and must only be kept from texts that it does not accept
# as JSON.
_OK: Final = re.compile(r"(true|1)\b|(false|0)\b")
_TOOK: Final = re.compile(r"(-?[0-9]+)\b")
_CUT: Final = {
    "postgresql": (
        "CASE WHEN split_part(s.data, '{marker}', 3) = '' THEN left(split_part(s.data, '{marker}', 2), 24) END"
    ),
    "sqlite": "CASE WHEN json_valid(s.data) THEN CAST(json_extract(s.data, '{path}') AS TEXT) END",
    # As bytes, in which it searches several times faster than in characters; each byte is a character of latin1.
    "mysql": (
        "CASE WHEN LENGTH(SUBSTRING_INDEX(CAST(s.data AS BINARY), '{marker}', 2)) = LENGTH(s.data) "
        "THEN CONVERT(LEFT(SUBSTRING_INDEX(CAST(s.data AS BINARY), '{marker}', -1), 24) USING latin1) END"
    ),
}


def _cut(dialect: str, marker: str, path: str) -> str:
    return _CUT[dialect].replace("{marker}", marker).replace("{path}", path)


class ActivityReading:
    """Reads the activity of many executions of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables, self._dialect = database.settings.tables, database.settings.dialect
        among = AMONG[self._dialect]
        succeeded = _cut(self._dialect, ',"result":{"ok":', "$.result.ok")
        took = _cut(self._dialect, ',"took":', "$.took")
        self._steps = (
            f"SELECT s.execution_id, s.step_number, s.name, s.is_done, {succeeded}, {took} "
            f"FROM {tables.steps} AS s JOIN {tables.contexts} AS c ON c.execution_id = s.execution_id "
            f"WHERE s.execution_id {among} AND c.deleted_us IS NULL ORDER BY s.execution_id, s.step_number"
        )
        self._step = (
            f"SELECT data FROM {tables.steps} WHERE execution_id = :execution_id AND step_number = :step_number"
        )
        self._audit = (
            f"SELECT execution_id, {', '.join(AUDIT_COLUMNS)} FROM {tables.audit} WHERE execution_id {among} "
            "ORDER BY execution_id, position"
        )

    def of(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]:
        """Return the timings and audit trails of these executions; see `Store.get_activity`. Damage has none."""
        if not execution_ids:
            return {}
        ids: Any = json.dumps(list(execution_ids)) if self._dialect == "sqlite" else list(execution_ids)
        steps: defaultdict[str, list[StepTiming]] = defaultdict(list)
        for execution_id, number, name, is_done, ok_text, took_text in self._database.run(self._steps, {"ids": ids}):
            ok, took = _OK.match(ok_text or ""), _TOOK.match(took_text or "")
            if took is None or (is_done and ok is None):
                steps[execution_id].extend(self._read(execution_id, number, name))
                continue
            steps[execution_id].append(
                StepTiming(
                    name=name,
                    success=ok is not None and ok[1] is not None if is_done else None,
                    duration=timedelta(microseconds=int(took[1])),
                )
            )
        audit: defaultdict[str, list[AuditEntry]] = defaultdict(list)
        for execution_id, *row in self._database.run(self._audit, {"ids": ids}):
            try:
                audit[execution_id].append(decode_audit(AuditRow(*row)))
            except (*DAMAGE, FormatTooNew):
                continue
        return {
            execution_id: Activity(steps=tuple(steps[execution_id]), audit=tuple(audit[execution_id]))
            for execution_id in execution_ids
        }

    def _read(self, execution_id: str, number: int, name: str) -> list[StepTiming]:
        """Return the timing of one step, read as a whole; nothing if it was purged meanwhile."""
        rows = self._database.run(self._step, {"execution_id": execution_id, "step_number": number})
        read: list[StepTiming] = []
        for (text,) in rows:
            try:
                fields = unseal(text, "step")
                result = fields.get("result")
                success = None if result is None else result["ok"]
                read.append(StepTiming(name=name, success=success, duration=timedelta(microseconds=fields["took"])))
            except (*DAMAGE, FormatTooNew):
                continue  # a step that cannot be read has no timing
        return read
