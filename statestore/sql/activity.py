"""What statistics are made of, for many executions at once: two statements instead of two for each."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from statestore.codec import AuditRow, decode_audit
from statestore.records import AuditEntry
from statestore.sql.database import Database
from statestore.sql.tables import AUDIT_COLUMNS
from statestore.stats import Activity, StepTiming

# How each dialect takes many ids as one parameter, and reads from an envelope (see `statestore.codec.encode_step`) the
# microseconds that a step took, and whether it succeeded, as 1 or 0.
_AMONG: Final = {
    "postgresql": "= ANY(CAST(:ids AS text[]))",
    "sqlite": "IN (SELECT value FROM json_each(:ids))",
    "mysql": "IN :ids",
}
_TOOK: Final = {
    "postgresql": "CAST(CAST(data AS json) ->> 'took' AS bigint)",
    "sqlite": "json_extract(data, '$.took')",
    "mysql": "CAST(JSON_VALUE(data, '$.took') AS SIGNED)",
}
_SUCCEEDED: Final = {
    "postgresql": "CASE WHEN CAST(data AS json) #>> '{result,ok}' = 'true' THEN 1 ELSE 0 END",
    "sqlite": "json_extract(data, '$.result.ok')",
    "mysql": "CASE WHEN JSON_EXTRACT(data, '$.result.ok') = TRUE THEN 1 ELSE 0 END",
}


class ActivityReading:
    """Reads the activity of many executions of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables, self._dialect = database.settings.tables, database.settings.dialect
        among = _AMONG[self._dialect]
        self._steps = (
            f"SELECT execution_id, name, is_done, {_SUCCEEDED[self._dialect]}, {_TOOK[self._dialect]} "
            f"FROM {tables.steps} WHERE execution_id {among} ORDER BY execution_id, step_number"
        )
        self._audit = (
            f"SELECT execution_id, {', '.join(AUDIT_COLUMNS)} FROM {tables.audit} WHERE execution_id {among} "
            "ORDER BY execution_id, position"
        )

    def of(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]:
        """See `Store.get_activity`."""
        if not execution_ids:
            return {}
        ids: Any = json.dumps(list(execution_ids)) if self._dialect == "sqlite" else list(execution_ids)
        steps: defaultdict[str, list[StepTiming]] = defaultdict(list)
        for execution_id, name, is_done, succeeded, took_us in self._database.run(self._steps, {"ids": ids}):
            timing = StepTiming(
                name=name,
                success=bool(succeeded) if is_done else None,
                duration=timedelta(microseconds=took_us),
            )
            steps[execution_id].append(timing)
        audit: defaultdict[str, list[AuditEntry]] = defaultdict(list)
        for execution_id, *row in self._database.run(self._audit, {"ids": ids}):
            audit[execution_id].append(decode_audit(AuditRow(*row)))
        return {
            execution_id: Activity(steps=tuple(steps[execution_id]), audit=tuple(audit[execution_id]))
            for execution_id in execution_ids
        }
