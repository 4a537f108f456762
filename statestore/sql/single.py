"""Writes that are one conditional statement, the same on both dialects."""

from collections.abc import Iterable
from typing import Final

from statestore.records import Lease
from statestore.sql.database import Database
from statestore.states import OVER, AgentState


def quoted(states: Iterable[AgentState]) -> str:
    """The states as an SQL list. They are ours and not the caller's, so they need no parameters."""
    return ", ".join(f"'{state}'" for state in sorted(states))


IS_OVER: Final = f"state IN ({quoted(OVER)})"


class SingleStatements:
    """The shared writes of one store."""

    def __init__(self, database: Database) -> None:
        contexts, now = database.settings.tables.contexts, database.now
        self._database = database
        # A parameter alone has no type of its own; the casts tell PostgreSQL.
        self._release = (
            f"UPDATE {contexts} SET owner = NULL, lease_until_us = 0, rings = 0, due_us = {now}, updated_us = {now}, "
            "crashes = CASE WHEN crashes > CAST(:taken_back AS integer) "
            "THEN crashes - CAST(:taken_back AS integer) ELSE 0 END "
            f"WHERE execution_id = :execution_id AND token = :token AND lease_until_us > {now} RETURNING 1"
        )
        self._settle = f"UPDATE {contexts} SET due_us = NULL WHERE execution_id = :execution_id AND {IS_OVER}"
        self._delete = f"DELETE FROM {contexts} WHERE execution_id = :execution_id RETURNING 1"
        self._clear = f"DELETE FROM {contexts} RETURNING 1"

    def release(self, lease: Lease, crashed: bool, now_us: int | None) -> bool:
        """See `StorePrimitives.release`."""
        params = {
            "execution_id": lease.execution_id,
            "token": lease.token,
            "taken_back": 0 if crashed else 1,
            "now": now_us,
        }
        return bool(self._database.run(self._release, params))

    def settle(self, execution_id: str) -> None:
        """See `StorePrimitives.settle`."""
        self._database.run(self._settle, {"execution_id": execution_id})

    def delete(self, execution_id: str) -> bool:
        """See `StorePrimitives.delete_context`. The parts go with the context, by their foreign keys."""
        return bool(self._database.run(self._delete, {"execution_id": execution_id}))

    def clear(self) -> int:
        """See `StorePrimitives.clear`."""
        return len(self._database.run(self._clear, {}))
