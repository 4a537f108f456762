"""What follows on PostgreSQL when a statement, which decides by its own conditions, applied to no row.

A second statement finds out why. Between the two the reason may have gone; the first is then tried again, but not
without end. A condition in SQL may say other than the diagnosis in Python, after somebody edited a row by hand for
example, and would otherwise keep the caller and the server busy for ever.
"""

from collections.abc import Callable
from typing import Final

from agent_statestore.clock import Clock, left_to_the_server
from agent_statestore.errors import StoreUnavailable
from agent_statestore.sql.database import Database, Params
from agent_statestore.sql.headers import DECISIVE, Header, header_of

# Each round but the first means that another writer came between two statements; so many in a row do not happen.
ROUNDS: Final = 20

# The columns that tell why a statement applied to no row.
_LOOKED_AT: Final = (*DECISIVE, "not_before_us")


class Repeating:
    """The base of all primitives on PostgreSQL."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        self._database = database
        # Returns the injected clock's time; None stands for the server's.
        self.now_us: Callable[[], int | None] = left_to_the_server if clock is None else clock.now_us
        self._tables = tables = database.settings.tables
        looked_at = ", ".join(f"c.{name}" for name in _LOOKED_AT)
        self._header = (
            f"SELECT {looked_at}, {database.now} FROM {tables.contexts} AS c "
            "WHERE c.execution_id = :execution_id AND c.deleted_us IS NULL"
        )

    def _look(self, execution_id: str) -> tuple[Header | None, int]:
        """Return the header as it is now, and the time."""
        rows = self._database.run(self._header, {"execution_id": execution_id, "now": self.now_us()})
        return (header_of(rows[0], _LOOKED_AT), rows[0][-1]) if rows else (None, 0)

    def _apply(self, primitive: str, statement: str, applies: str, params: Params) -> bool:
        """Run a statement that returns a row if it applied, until it did or the SELECT `applies` has no row."""
        for _ in range(ROUNDS):
            if self._database.run(statement, params):
                return True
            if not self._database.run(applies, params):
                return False
        raise self._unexplained(primitive, params["execution_id"])

    def _unexplained(self, primitive: str, execution_id: str) -> StoreUnavailable:
        reason = f"`{primitive}` of execution {execution_id} applied to no row {ROUNDS} times, without a reason to find"
        return StoreUnavailable(self._database.settings.shown_url, reason)
