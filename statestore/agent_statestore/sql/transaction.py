"""A transaction as `agent_statestore.sql.locking` uses one, on SQLite, MySQL and MariaDB."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Row = tuple[Any, ...]
# A statement with `?` for each of its parameters, and the parameters.
Select = tuple[str, Sequence[Any]]


class Insert(NamedTuple):
    """An INSERT of any number of rows: `head VALUES row, row, ... tail`. `single` is the text for one row."""

    head: str
    row: str
    tail: str
    single: str


def insert_into(table: str, columns: Sequence[str], tail: str = "") -> Insert:
    """Return the INSERT of rows of these columns."""
    head, row = f"INSERT INTO {table} ({', '.join(columns)})", f"({', '.join('?' for _ in columns)})"
    return Insert(head, row, tail, f"{head} VALUES {row} {tail}".rstrip())


class Transaction(Protocol):
    """A transaction that is under way. It commits when the work in it returns, and is undone when that raises."""

    def look(self, *queries: Select) -> list[list[Row]]:
        """Run SELECTs one after the other, in one round trip, and return the rows of each."""
        ...

    def finish(self, *queries: Select) -> list[list[Row]]:
        """Run SELECTs in one round trip with the commit, like `look`: nothing may follow."""
        ...

    def write(self, statement: str, params: Sequence[Any]) -> None:
        """Run a statement, at the latest with the next `look` or the commit."""
        ...

    def insert(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> None:
        """Insert one row or more, at the latest with the next `look` or the commit."""
        ...

    def change(self, statement: str, params: Sequence[Any]) -> int:
        """Run a statement now, and return how many rows it matched."""
        ...

    def flush(self) -> None:
        """Run the statements that wait for the next look or the commit."""
        ...
