"""Writes that are one conditional statement, the same in every database."""

from collections.abc import Iterable
from typing import Final

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import Lease
from agent_statestore.sql.database import Database
from agent_statestore.states import OVER, AgentState


def quoted(states: Iterable[AgentState]) -> str:
    """Return the states as an SQL list. They come from us and not from the caller, so they need no parameters."""
    return ", ".join(f"'{state}'" for state in sorted(states))


IS_OVER: Final = f"state IN ({quoted(OVER)})"


class SingleStatements:
    """The shared writes of one store."""

    def __init__(self, database: Database) -> None:
        contexts, now = database.settings.tables.contexts, database.now
        rates = database.settings.tables.rates
        self._database = database
        give_up = (
            f"UPDATE {contexts} SET owner = NULL, lease_until_us = 0, rings = 0, due_us = {now}, updated_us = {now}"
        )
        # No lease lives on a deleted execution.
        held = f"WHERE execution_id = :execution_id AND token = :token AND lease_until_us > {now}"
        self._release = f"{give_up}, crashes = CASE WHEN crashes > 0 THEN crashes - 1 ELSE 0 END {held}"
        self._break = f"{give_up} {held}"
        fewer = "CASE WHEN crashes > :crashes THEN :crashes ELSE crashes END"
        self._forgive = f"UPDATE {contexts} SET crashes = {fewer} {held}"
        self._settle = (
            f"UPDATE {contexts} SET due_us = NULL WHERE execution_id = :execution_id AND {IS_OVER} "
            "AND deleted_us IS NULL"
        )
        there = "WHERE execution_id = :execution_id AND deleted_us IS NULL"
        self._descendant = f"UPDATE {contexts} SET descendants = descendants + 1 {there} AND descendants < :most"
        self._is_there = f"SELECT 1 FROM {contexts} {there}"
        stale = f"WHERE next_us < {now} AND end_us < {now}"
        self._stale_rates = f"SELECT bucket FROM {rates} {stale} LIMIT :rows"
        self._forget_rate = f"DELETE FROM {rates} {stale} AND bucket = :bucket"

    def release(self, lease: Lease, crashed: bool, now_us: int | None) -> bool:
        """Give a lease up; see `StorePrimitives.release`."""
        params = {"execution_id": lease.execution_id, "token": lease.token, "now": now_us}
        return bool(self._database.change(self._break if crashed else self._release, params))

    def forgive(self, lease: Lease, crashes: int, now_us: int | None) -> bool:
        """Count a claim as no crash; see `StorePrimitives.forgive`."""
        params = {"execution_id": lease.execution_id, "token": lease.token, "now": now_us, "crashes": crashes}
        return bool(self._database.change(self._forgive, params))

    def settle(self, execution_id: str) -> None:
        """Clear the due time of an execution that is over; see `StorePrimitives.settle`."""
        self._database.change(self._settle, {"execution_id": execution_id})

    def count_descendant(self, execution_id: str, limit: int) -> bool:
        """Count one more descendant; see `StorePrimitives.count_descendant`."""
        params = {"execution_id": execution_id, "most": limit}
        if self._database.change(self._descendant, params):
            return True
        if not self._database.run(self._is_there, params):
            raise ExecutionNotFound(execution_id)
        return False

    def forget_rates(self, limit: int, now_us: int | None) -> int:
        """Remove at most `limit` rates that have stopped to matter, and return how many."""
        # A look first: mostly there is nothing, and on SQLite a writer keeps all others waiting.
        stale = self._database.run(self._stale_rates, {"now": now_us, "rows": limit})
        return sum(self._database.change(self._forget_rate, {"now": now_us, "bucket": bucket}) for (bucket,) in stale)
