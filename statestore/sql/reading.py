"""Reads that are one SELECT on both dialects."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from statestore.clock import from_us, to_us
from statestore.codec import decode_step, decode_summary
from statestore.paging import Cursor, check_limit, decode_cursor, encode_cursor
from statestore.records import AgentStep, ExecutionSummary, Lease, Page
from statestore.sql.database import Database
from statestore.states import AgentState

# What a summary needs: all but what may be large.
_SUMMARY_COLUMNS: Final = (
    "execution_id",
    "format",
    "agent_id",
    "session_id",
    "user_id",
    "parent_execution_id",
    "idempotency_key",
    "queue",
    "priority",
    "metadata",
    "state",
    "waiting",
    "error",
    "version",
    "token",
    "crashes",
    "step_count",
    "cancel_requested",
    "owner",
    "lease_until_us",
    "due_us",
    "created_us",
    "updated_us",
)


class Reading:
    """The shared reads of one store."""

    def __init__(self, database: Database) -> None:
        tables = database.settings.tables
        self._database = database
        self._summaries = f"SELECT {', '.join(_SUMMARY_COLUMNS)} FROM {tables.contexts}"
        self._steps = (
            f"SELECT data FROM {tables.steps} WHERE execution_id = :execution_id AND step_number > :after "
            "ORDER BY step_number"
        )
        self._leases = (
            f"SELECT execution_id, token, owner, lease_until_us, {database.now} FROM {tables.contexts} "
            "WHERE owner IS NOT NULL AND substr(owner, 1, :length) = :owner_prefix"
        )

    def summary(self, execution_id: str) -> ExecutionSummary | None:
        """See `StorePrimitives.get_summary`."""
        rows = self._database.run(
            f"{self._summaries} WHERE execution_id = :execution_id", {"execution_id": execution_id}
        )
        return _summary(rows[0]) if rows else None

    def steps(self, execution_id: str, after: int) -> tuple[AgentStep, ...]:
        """See `StorePrimitives.get_steps`."""
        rows = self._database.run(self._steps, {"execution_id": execution_id, "after": max(after, 0)})
        return tuple(decode_step(text) for (text,) in rows)

    def find(
        self,
        equal: dict[str, str | None],
        states: Iterable[AgentState] | None,
        created_after: datetime | None,
        created_before: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> Page:
        """See `StorePrimitives.find`; `equal` maps columns to the values asked for, None for any."""
        check_limit(limit)
        params: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
        conditions = [f"{name} = :{name}" for name in params]
        if states is not None:
            among = sorted({state.value for state in states})
            if not among:
                return Page(items=(), next_cursor=None)
            # The values are ours and not the caller's: literals let the planner count them.
            conditions.append(f"state IN ({', '.join(repr(state) for state in among)})")
        if created_after is not None:
            conditions.append("created_us >= :created_after")
            params["created_after"] = to_us(created_after)
        if created_before is not None:
            conditions.append("created_us < :created_before")
            params["created_before"] = to_us(created_before)
        if cursor is not None:
            conditions.append("(created_us, execution_id) < (:below_us, :below_id)")
            params["below_us"], params["below_id"] = decode_cursor(cursor)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # One more than asked for tells whether there is a next page.
        params["rows"] = limit + 1
        order = " ORDER BY created_us DESC, execution_id DESC LIMIT :rows"
        rows = self._database.run(self._summaries + where + order, params)
        items = tuple(_summary(row) for row in rows[:limit])
        if len(rows) <= limit:
            return Page(items=items, next_cursor=None)
        last = dict(zip(_SUMMARY_COLUMNS, rows[limit - 1], strict=True))
        return Page(items=items, next_cursor=encode_cursor(Cursor(last["created_us"], last["execution_id"])))

    def leases(self, owner_prefix: str, now_us: int | None) -> tuple[Lease, ...]:
        """See `StorePrimitives.find_leases`."""
        params = {"owner_prefix": owner_prefix, "length": len(owner_prefix), "now": now_us}
        return tuple(
            Lease(
                execution_id=execution_id,
                token=token,
                owner=owner,
                ttl=timedelta(microseconds=until_us - at_us),
                expires_at=from_us(until_us),
            )
            for execution_id, token, owner, until_us, at_us in self._database.run(self._leases, params)
            if until_us > at_us
        )


def _summary(row: tuple[Any, ...]) -> ExecutionSummary:
    return decode_summary(dict(zip(_SUMMARY_COLUMNS, row, strict=True)))
