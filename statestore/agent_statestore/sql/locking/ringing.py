"""Under a lock: leases are renewed and bells are rung, for many executions at once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from agent_statestore.clock import Clock, duration_us
from agent_statestore.records import Due, Lease, Renewed
from agent_statestore.rules.leases import next_ring_us
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking.base import LockedBase
from agent_statestore.sql.single import IS_OVER
from agent_statestore.sql.transaction import Select, Transaction

# The columns that decide whether a ring is recorded.
_RUNG: Final = ("execution_id", "token", "lease_until_us", "not_before_us", "due_us", "rings")


class LockedRinging(LockedBase):
    """The primitives on many executions; see `StorePrimitives` for each."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        contexts, dialect = self._tables.contexts, self.dialect
        these = f"execution_id IN {dialect.any_of}"
        # Rows are locked in the order of their ids, so that two transactions that lock many never wait for each other.
        # A deleted execution has no lease and no `due_us`.
        locked = f"FROM {contexts}{dialect.in_order} WHERE {these} ORDER BY execution_id{dialect.lock}"
        self._held = f"SELECT execution_id, token, lease_until_us, cancel_requested {locked}"
        self._renew = f"UPDATE {contexts} SET lease_until_us = ?, due_us = ? WHERE {these}"
        self._due = (
            f"SELECT execution_id, agent_id, queue, priority, token, rings, cancel_requested, {IS_OVER} "
            f"FROM {contexts} WHERE due_us <= {dialect.time} ORDER BY due_us, execution_id LIMIT ?{dialect.lock_free}"
        )
        self._move = f"UPDATE {contexts} SET due_us = ? WHERE {these}"
        self._rung = f"SELECT {', '.join(_RUNG)} {locked}"
        self._mark = f"UPDATE {contexts} SET due_us = ?, rings = rings + 1 WHERE {these}"

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        if not leases:
            return Renewed()

        def work(transaction: Transaction) -> Renewed:
            (rows,), now_us = self._look(transaction, self._of(self._held, [lease.execution_id for lease in leases]))
            held = {(row[0], row[1]): bool(row[3]) for row in rows if isinstance(row[2], int) and row[2] > now_us}
            renewed = [lease.execution_id for lease in leases if (lease.execution_id, lease.token) in held]
            if renewed:
                until_us = now_us + duration_us(ttl)
                transaction.write(self._renew, (until_us, until_us, self.dialect.listed(renewed)))
            return Renewed(
                lost=frozenset(lease.execution_id for lease in leases if (lease.execution_id, lease.token) not in held),
                cancel_requested=frozenset(execution_id for (execution_id, _), cancelled in held.items() if cancelled)
                & frozenset(renewed),
            )

        return self._database.write(work)

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        def work(transaction: Transaction) -> tuple[Due, ...]:
            (rows,), now_us = self._look(transaction, (self._due, (self.now_us(), limit)))
            if rows:
                taken = self.dialect.listed([row[0] for row in rows])
                transaction.write(self._move, (now_us + duration_us(grace), taken))
            return tuple(
                Due(
                    execution_id=execution_id,
                    agent_id=agent_id,
                    queue=queue,
                    priority=priority,
                    token=token,
                    rings=rings,
                    cancel_requested=bool(cancel_requested),
                    over=bool(over),
                )
                for execution_id, agent_id, queue, priority, token, rings, cancel_requested, over in rows
            )

        return self._database.write(work)

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        tokens = dict(rung)
        if not tokens:
            return

        def work(transaction: Transaction) -> None:
            (rows,), now_us = self._look(transaction, self._of(self._rung, list(tokens)))
            by_time: defaultdict[int, list[str]] = defaultdict(list)
            for row in rows:
                header = dict(zip(_RUNG, row, strict=True))
                execution_id = header["execution_id"]
                try:
                    ring_us = next_ring_us(header, tokens[execution_id], first, maximum, now_us)
                except TypeError:
                    # SQLite takes a text for a number. Such a header must not be looked at more often than need be.
                    ring_us = now_us + duration_us(maximum)
                if ring_us is not None:
                    by_time[ring_us].append(execution_id)
            for ring_us, execution_ids in by_time.items():
                transaction.write(self._mark, (ring_us, self.dialect.listed(execution_ids)))

        self._database.write(work)

    def _of(self, statement: str, execution_ids: Sequence[str]) -> Select:
        return statement, (self.dialect.listed(execution_ids),)
