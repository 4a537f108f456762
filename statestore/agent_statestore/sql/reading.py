"""Reads that are one SELECT, the same in every database."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from agent_statestore.clock import from_us, since_us, to_us
from agent_statestore.codec import AuditRow, decode_listed, decode_steps, decode_summary, decode_trail
from agent_statestore.query import Cursor, Query, check_limit, encode_cursor, end_of_steps
from agent_statestore.records import AgentStep, AuditEntry, ExecutionSummary, Lease, Page
from agent_statestore.sql.database import Database
from agent_statestore.sql.single import quoted
from agent_statestore.sql.tables import AUDIT_COLUMNS
from agent_statestore.states import AgentState

# The columns that a summary needs: all but those that may be large.
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
    "waits",
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
    "ended_us",
)

_NEWEST_FIRST: Final = "ORDER BY created_us DESC, execution_id DESC LIMIT :rows"
_OLDEST_FIRST: Final = "ORDER BY created_us, execution_id LIMIT :rows"

# Where the characters that UTF-8 cannot carry begin and end, and the character behind all others.
_FIRST_SURROGATE: Final = 0xD800
_BEHIND_SURROGATES: Final = 0xE000
_LAST: Final = 0x10FFFF


class Reading:
    """The shared reads of one store."""

    def __init__(self, database: Database) -> None:
        settings = database.settings
        tables = settings.tables
        self._database = database
        self._contexts = tables.contexts
        self._summary = (
            f"SELECT {', '.join(_SUMMARY_COLUMNS)} FROM {tables.contexts} "
            "WHERE execution_id = :execution_id AND deleted_us IS NULL"
        )
        self._steps, self._steps_until = (
            f"SELECT s.data FROM {tables.steps} AS s JOIN {tables.contexts} AS c ON c.execution_id = s.execution_id "
            f"WHERE s.execution_id = :execution_id AND s.step_number > :after {until}AND c.deleted_us IS NULL "
            "ORDER BY s.step_number"
            for until in ("", "AND s.step_number <= :end ")
        )
        self._audit = (
            f"SELECT {', '.join(AUDIT_COLUMNS)} FROM {tables.audit} WHERE execution_id = :execution_id "
            "ORDER BY position"
        )
        self._ended = (
            f"SELECT execution_id FROM {tables.contexts} WHERE ended_us IS NOT NULL AND due_us IS NULL "
            "AND deleted_us IS NULL AND ended_us < :before AND ended_us >= :after"
        )
        self._deleted = (
            f"SELECT execution_id FROM {tables.contexts} WHERE deleted_us IS NOT NULL AND deleted_us < :before "
            "ORDER BY deleted_us, execution_id LIMIT :rows"
        )
        self._leased = (
            f"SELECT execution_id, token, owner, lease_until_us, {database.now} FROM {tables.contexts} "
            "WHERE owner IS NOT NULL"
        )
        self._dialect = settings.dialect

    def now_us(self) -> int:
        """Return the server's time."""
        ((now_us,),) = self._database.run(f"SELECT {self._database.now}", {"now": None})
        return int(now_us)

    def summary(self, execution_id: str) -> ExecutionSummary | None:
        """Return the summary of an execution; see `StorePrimitives.get_summary`."""
        rows = self._database.run(self._summary, {"execution_id": execution_id})
        return decode_summary(_header_in(rows[0])) if rows else None

    def steps(self, execution_id: str, after: int, limit: int | None) -> tuple[AgentStep, ...]:
        """Return the steps behind `after`; see `StorePrimitives.get_steps`."""
        params: dict[str, Any] = {"execution_id": execution_id, "after": max(after, 0)}
        end = end_of_steps(after, limit)
        if end is not None:
            params["end"] = end
        rows = self._database.run(self._steps if end is None else self._steps_until, params)
        return decode_steps(execution_id, [text for (text,) in rows])

    def audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        """Return the audit trail; see `StorePrimitives.get_audit`."""
        rows = self._database.run(self._audit, {"execution_id": execution_id})
        return decode_trail(execution_id, [AuditRow(*row) for row in rows])

    def find(self, query: Query) -> Page:
        """Return one page of executions; see `StorePrimitives.find`."""
        params: dict[str, Any] = dict(query.equal)
        conditions = ["deleted_us IS NULL", *(f"{name} = :{name}" for name in params)]
        if query.created_after is not None:
            conditions.append("created_us >= :created_after")
            params["created_after"] = query.created_after_us
        if query.created_before is not None:
            conditions.append("created_us < :created_before")
            params["created_before"] = query.created_before_us
        if query.behind is not None:
            behind = ">" if query.oldest_first else "<"
            conditions.append(f"(created_us, execution_id) {behind} (:cursor_us, :cursor_id)")
            if self._dialect == "mysql":
                # The other condition finds no place in an index; this one, which follows from it, does.
                conditions.append(f"created_us {behind}= :cursor_us")
            params["cursor_us"], params["cursor_id"] = query.behind
        among = sorted(AgentState if query.among is None else query.among)
        if not among:
            return Page(items=(), next_cursor=None)
        limit = query.limit
        # One row more than asked for tells whether there is a next page.
        params["rows"] = limit + 1
        order = _OLDEST_FIRST if query.oldest_first else _NEWEST_FIRST
        rows = self._database.run(
            self._found(conditions, among, order, is_narrow=bool({"session_id", "user_id"} & params.keys())), params
        )
        items = tuple(decode_listed(_header_in(row)) for row in rows[:limit])
        if len(rows) <= limit:
            return Page(items=items, next_cursor=None)
        last = dict(zip(_SUMMARY_COLUMNS, rows[limit - 1], strict=True))
        return Page(items=items, next_cursor=encode_cursor(Cursor(last["created_us"], last["execution_id"])))

    def _found(self, conditions: list[str], among: list[AgentState], order: str, *, is_narrow: bool) -> str:
        """Return the query; `is_narrow` says that few executions are left to look through for their states."""
        columns = ", ".join(_SUMMARY_COLUMNS)
        found = f"SELECT {columns} FROM {self._contexts} WHERE {' AND '.join(conditions)}"
        if len(among) == len(AgentState):
            return f"{found} {order}"
        # The states are literals, which come from us and not from the caller: so the planner can count them.
        if is_narrow or len(among) == 1:
            return f"{found} AND state IN ({quoted(among)}) {order}"
        # No index has several states in one order, and the newest executions may all be in others. At most `rows`
        # executions of each requested state are looked at.
        each = (f"SELECT {columns} FROM ({found} AND state = '{state}' {order}) AS in_{state}" for state in among)
        return f"{' UNION ALL '.join(each)} {order}"

    def ended(
        self, before: datetime, after: datetime | None, states: Iterable[AgentState] | None, limit: int
    ) -> tuple[str, ...]:
        """Return the executions that were over; see `StorePrimitives.find_ended`."""
        check_limit(limit)
        among = None if states is None else set(states)
        if among is not None and not among:
            return ()
        condition = "" if among is None else f" AND state IN ({quoted(among)})"
        rows = self._database.run(
            f"{self._ended}{condition} ORDER BY ended_us, execution_id LIMIT :rows",
            {"before": to_us(before), "after": since_us(after), "rows": limit},
        )
        return tuple(execution_id for (execution_id,) in rows)

    def deleted(self, before: datetime, limit: int) -> tuple[str, ...]:
        """Return the deleted executions; see `StorePrimitives.find_deleted`."""
        check_limit(limit)
        rows = self._database.run(self._deleted, {"before": to_us(before), "rows": limit})
        return tuple(execution_id for (execution_id,) in rows)

    def leases(self, owner_prefix: str, now_us: int | None) -> tuple[Lease, ...]:
        """Return the live leases of owners; see `StorePrimitives.find_leases`."""
        condition, bounds = self._has_prefix(owner_prefix)
        rows = self._database.run(f"{self._leased}{condition}", {"now": now_us} | bounds)
        return tuple(
            Lease(
                execution_id=execution_id,
                token=token,
                owner=owner,
                ttl=timedelta(microseconds=until_us - at_us),
                expires_at=from_us(until_us),
            )
            for execution_id, token, owner, until_us, at_us in rows
            if isinstance(until_us, int) and until_us > at_us and owner.startswith(owner_prefix)
        )

    def _has_prefix(self, prefix: str) -> tuple[str, dict[str, str]]:
        """Return a condition that an index on the owner can look up, with its parameters."""
        if not prefix:
            return "", {}
        if self._dialect == "postgresql":
            # PostgreSQL compares texts by the rules of some language, and makes a range of this where the index is in
            # "C".
            return " AND starts_with(owner, :owner_prefix)", {"owner_prefix": prefix}
        above = _above(prefix)
        if above is None:
            return " AND owner >= :owner_prefix", {"owner_prefix": prefix}
        return " AND owner >= :owner_prefix AND owner < :above", {"owner_prefix": prefix, "above": above}


def _above(prefix: str) -> str | None:
    """Return the least text behind all that start with `prefix`, in the order of code points; None if there is none."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_BEHIND_SURROGATES if following == _FIRST_SURROGATE else following)


def _header_in(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(_SUMMARY_COLUMNS, row, strict=True))
