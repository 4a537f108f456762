"""Deleting and purging on PostgreSQL.

A session's row goes with the last of its executions. Whoever removes an execution has locked that row before, and
changes or removes it in the same statement; whoever adds one changes it, too. A statement that finds the session's row
changed since the statement began does not know which executions are left: it does not apply, and is repeated.
"""

from typing import Final

from agent_statestore.checkpoint import Via
from agent_statestore.clock import Clock
from agent_statestore.codec import NEVER_US, encode_via
from agent_statestore.records import AuditEvent
from agent_statestore.sql.database import Database
from agent_statestore.sql.postgresql.repeating import Repeating
from agent_statestore.sql.postgresql.writing import audit_part
from agent_statestore.sql.single import IS_OVER
from agent_statestore.sql.tables import Tables

_HERE: Final = "c.execution_id = :execution_id"
_NOT_DELETED: Final = f"{_HERE} AND c.deleted_us IS NULL"
_ARCHIVED: Final = (
    f"{_NOT_DELETED} AND c.{IS_OVER} AND c.due_us IS NULL "
    "AND c.version = :version AND c.token = :token AND c.audit_count = :audit_count"
)


class PostgreSQLRemoving(Repeating):
    """The primitives that remove executions; see `StorePrimitives` for each method."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables = self._tables
        self._applies = f"SELECT 1 FROM {tables.contexts} AS c WHERE "
        self._delete = delete_statement(tables, database.now)
        self._purge = purge_statement(tables, _HERE)
        self._purge_not_deleted = purge_statement(tables, _NOT_DELETED)
        self._drop_archived = purge_statement(tables, _ARCHIVED)
        self._clear = (
            f"WITH cleared AS (DELETE FROM {tables.contexts} RETURNING deleted_us), "
            # A session to which an execution was added meanwhile stays, like that execution.
            f"emptied AS (DELETE FROM {tables.sessions} AS s USING {tables.sessions} AS seen "
            "WHERE seen.session_id = s.session_id AND seen.xmin = s.xmin), "
            f"forgotten AS (DELETE FROM {tables.rates}), "
            f"freed AS (DELETE FROM {tables.duties}), "
            f"thrown_away AS (DELETE FROM {tables.documents}) "
            "SELECT count(*) FROM cleared WHERE deleted_us IS NULL"
        )

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        keeps = self._database.settings.keeps_deleted
        params = {"execution_id": execution_id, "who": by, "why": reason, "via": encode_via(via), "now": self.now_us()}
        statement = self._delete if keeps else self._purge_not_deleted
        return self._apply("delete_context", statement, self._applies + _NOT_DELETED, params)

    def purge(self, execution_id: str) -> bool:
        return self._apply("purge", self._purge, self._applies + _HERE, {"execution_id": execution_id})

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        version, token, audit_count = place
        params = {"execution_id": execution_id, "version": version, "token": token, "audit_count": audit_count}
        return self._apply("drop_archived", self._drop_archived, self._applies + _ARCHIVED, params)

    def clear(self) -> int:
        ((count,),) = self._database.run(self._clear, {})
        return int(count)


def delete_statement(tables: Tables, now: str) -> str:
    """Return the statement that marks an execution as deleted. A row means that it was there."""
    trail = audit_part(
        tables,
        AuditEvent.DELETED,
        at="head.deleted_us",
        from_state="head.state",
        worker="head.worker",
        who=":who",
        why=":why",
        data=":via",
    )
    return (
        f"WITH clock AS MATERIALIZED (SELECT {now} AS now_us), "
        f"head AS (UPDATE {tables.contexts} AS c SET deleted_us = clock.now_us, idempotency_key = NULL, "
        f"due_us = NULL, owner = NULL, lease_until_us = 0, not_before_us = {NEVER_US}, audit_count = c.audit_count + 1 "
        # The audit trail names the lease as it was before: the update clears it.
        f"FROM clock, {tables.contexts} AS seen WHERE {_NOT_DELETED} AND seen.execution_id = c.execution_id "
        "AND seen.token = c.token AND seen.lease_until_us = c.lease_until_us "
        "RETURNING c.execution_id, c.audit_count, c.deleted_us, c.state, c.token, "
        "CASE WHEN seen.lease_until_us > c.deleted_us THEN seen.owner END AS worker), "
        f"{trail} SELECT 1 FROM head"
    )


def purge_statement(tables: Tables, condition: str) -> str:
    """Return the statement that removes an execution on which the condition holds. A row means that it was there.

    Its parts go with it, by their foreign keys.
    """
    contexts, sessions = tables.contexts, tables.sessions
    other = (
        f"SELECT 1 FROM {contexts} AS o WHERE o.session_id = gone.session_id AND o.execution_id <> gone.execution_id"
    )
    return (
        f"WITH was AS MATERIALIZED (SELECT s.session_id, s.xmin AS written FROM {contexts} AS c "
        f"JOIN {sessions} AS s ON s.session_id = c.session_id WHERE {_HERE}), "
        f"held AS MATERIALIZED (SELECT s.session_id FROM {sessions} AS s, was "
        "WHERE s.session_id = was.session_id AND s.xmin = was.written FOR UPDATE OF s), "
        f"gone AS (DELETE FROM {contexts} AS c WHERE {condition} "
        "AND (SELECT count(*) FROM held) = (SELECT count(*) FROM was) RETURNING c.execution_id, c.session_id), "
        # Two looks: each of them follows a different index.
        f"remains AS MATERIALIZED (SELECT gone.session_id, EXISTS ({other} AND o.deleted_us IS NULL) "
        f"OR EXISTS ({other} AND o.deleted_us IS NOT NULL) AS is_used FROM gone), "
        f"left_over AS (DELETE FROM {sessions} AS s USING remains "
        "WHERE s.session_id = remains.session_id AND NOT remains.is_used), "
        f"touched AS (UPDATE {sessions} AS s SET updated_us = s.updated_us FROM remains "
        "WHERE s.session_id = remains.session_id AND remains.is_used) "
        "SELECT 1 FROM gone"
    )
