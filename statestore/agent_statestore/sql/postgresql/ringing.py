"""Leases are renewed, executions taken and bells recorded, many at once, on PostgreSQL."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from agent_statestore.clock import Clock, duration_us
from agent_statestore.records import Due, Lease, Renewed
from agent_statestore.sql.database import Database
from agent_statestore.sql.postgresql.repeating import Repeating
from agent_statestore.sql.single import IS_OVER


class PostgreSQLRinging(Repeating):
    """The primitives that keep leases alive and bells ringing; see `StorePrimitives` for each method.

    No lease lives on a deleted execution, and it is not due.
    """

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        contexts = self._tables.contexts
        clock_part = f"WITH clock AS MATERIALIZED (SELECT {database.now} AS now_us)"
        # Rows are locked in the order of their ids, so that two statements that take many never wait for each other.
        self._renew = (
            f"{clock_part}, held AS (SELECT c.execution_id FROM {contexts} AS c, clock, "
            "unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS lease(id, token) "
            "WHERE c.execution_id = lease.id AND c.token = lease.token AND c.lease_until_us > clock.now_us "
            "ORDER BY c.execution_id FOR UPDATE OF c) "
            f"UPDATE {contexts} AS c SET lease_until_us = clock.now_us + :ttl, due_us = clock.now_us + :ttl "
            "FROM held, clock WHERE c.execution_id = held.execution_id "
            "RETURNING c.execution_id, c.token, c.cancel_requested"
        )
        self._take_due = (
            f"{clock_part}, due AS (SELECT c.execution_id, c.due_us FROM {contexts} AS c, clock "
            "WHERE c.due_us <= clock.now_us ORDER BY c.due_us, c.execution_id LIMIT :rows "
            "FOR UPDATE OF c SKIP LOCKED), "
            f"taken AS (UPDATE {contexts} AS c SET due_us = clock.now_us + :grace FROM due, clock "
            "WHERE c.execution_id = due.execution_id RETURNING c.execution_id, c.agent_id, c.queue, c.priority, "
            f"c.token, c.rings, c.cancel_requested, c.{IS_OVER} AS over, due.due_us AS was_due_us) "
            "SELECT execution_id, agent_id, queue, priority, token, rings, cancel_requested, over "
            "FROM taken ORDER BY was_due_us, execution_id"
        )
        # Doubles count exactly as far as times go, and do not overflow.
        wait = "CAST(LEAST(CAST(:first AS float8) * power(2, LEAST(c.rings, 32)), CAST(:maximum AS float8)) AS bigint)"
        self._mark_rung = (
            f"{clock_part}, rung AS (SELECT c.execution_id FROM {contexts} AS c, clock, "
            "unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS bell(id, token) "
            "WHERE c.execution_id = bell.id AND c.token = bell.token AND c.lease_until_us <= clock.now_us "
            "AND c.not_before_us <= clock.now_us AND c.due_us IS NOT NULL ORDER BY c.execution_id FOR UPDATE OF c) "
            f"UPDATE {contexts} AS c SET due_us = clock.now_us + {wait}, rings = c.rings + 1 "
            "FROM rung, clock WHERE c.execution_id = rung.execution_id"
        )

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        if not leases:
            return Renewed()
        params = {
            "ids": [lease.execution_id for lease in leases],
            "tokens": [lease.token for lease in leases],
            "ttl": duration_us(ttl),
            "now": self.now_us(),
        }
        rows = self._database.run(self._renew, params)
        renewed = {(execution_id, token) for execution_id, token, _ in rows}
        return Renewed(
            lost=frozenset(lease.execution_id for lease in leases if (lease.execution_id, lease.token) not in renewed),
            cancel_requested=frozenset(execution_id for execution_id, _, cancelled in rows if cancelled),
        )

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        params = {"rows": limit, "grace": duration_us(grace), "now": self.now_us()}
        return tuple(
            Due(
                execution_id=execution_id,
                agent_id=agent_id,
                queue=queue,
                priority=priority,
                token=token,
                rings=rings,
                cancel_requested=bool(cancel_requested),
                over=over,
            )
            for execution_id, agent_id, queue, priority, token, rings, cancel_requested, over in self._database.run(
                self._take_due, params
            )
        )

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        pairs = list(rung)
        if pairs:
            params = {
                "ids": [execution_id for execution_id, _ in pairs],
                "tokens": [token for _, token in pairs],
                "first": duration_us(first),
                "maximum": duration_us(maximum),
                "now": self.now_us(),
            }
            self._database.run(self._mark_rung, params)

    def durability_warning(self) -> str | None:
        """Return one sentence if PostgreSQL acknowledges a write before it is safe on disk."""
        ((fsync, commit),) = self._database.run(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit')", {}
        )
        if fsync == "off":
            return "PostgreSQL runs with fsync = off: a crash of its host may lose or corrupt all executions."
        if commit == "off":
            return "PostgreSQL runs with synchronous_commit = off: its crash loses the last checkpoints."
        return None
