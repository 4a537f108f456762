"""How statements run: the operations that every dialect has.

`agent_statestore.sql.sqlite.database`, `agent_statestore.sql.mysql.database` and
`agent_statestore.sql.postgresql.database` implement them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row, Select, Transaction

Params = Mapping[str, Any]
Result = TypeVar("Result")


class DuplicateKey(Exception):
    """A unique index refused the statement; nothing of it was applied."""


class Database(Protocol):
    """The operations that the shared statements need of every dialect.

    Statements are written with `:name` parameters; `now` is an expression for the store's time in microseconds, which
    takes the parameter `:now` (None for the server's own clock).
    """

    settings: SQLSettings
    now: str

    def run(self, statement: str, params: Params) -> list[Row]:
        """Run one statement as a separate transaction, and return its rows."""
        ...

    def change(self, statement: str, params: Params) -> int:
        """Run one writing statement as a separate transaction, and return how many rows it matched."""
        ...

    def dispose(self) -> None:
        """Close the pooled connections."""
        ...


class LockingDatabase(Database, Protocol):
    """The operations that `agent_statestore.sql.locking` needs of a database besides single statements."""

    def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` in a transaction, and again if the database undid it to resolve a conflict with another."""
        ...

    def read(self, *queries: Select) -> list[list[Row]]:
        """Run SELECTs that all see the same state of the database, whoever writes meanwhile."""
        ...
