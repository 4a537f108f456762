"""Connections to one SQLite file, kept open between transactions.

SQLAlchemy's pool would take as long as an UPDATE does. It counts its connections, which a file does not need: readers
are as many as threads, and writers wait for each other before they take one.
"""

import os
import sqlite3
import time
import weakref
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.engine import URL

from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.fork_gate import GatedConnection
from agent_statestore.sql.transaction import Insert, Row, Select

_PREPARED_STATEMENTS: Final = 256


def sqlite_arguments(settings: SQLSettings) -> dict[str, Any]:
    """Return the arguments that open a connection, besides the file."""
    # isolation_level None: the driver opens no transactions by itself, we say BEGIN ourselves.
    return {
        "isolation_level": None,
        "check_same_thread": False,
        "timeout": settings.busy_timeout_ms / 1000,
        "cached_statements": _PREPARED_STATEMENTS,
    }


def prepare_sqlite(connection: sqlite3.Connection, settings: SQLSettings) -> None:
    """Run the statements that every connection needs first."""
    # SQLite answers a change of the journal mode that meets another process's write with "locked" at once, without
    # waiting for the busy timeout. Once made, the change is kept in the file.
    deadline = time.monotonic() + settings.busy_timeout_ms / 1000
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode.upper() != settings.journal_mode:
                connection.execute(f"PRAGMA journal_mode={settings.journal_mode}")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    connection.execute(f"PRAGMA synchronous={settings.synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    # Overwrite what is deleted. It could otherwise be read in the file until something else needs its place.
    connection.execute("PRAGMA secure_delete=ON")


class PooledSQLite(GatedConnection):
    """A connection, and the transaction that is under way on it; see `agent_statestore.sql.transaction.Transaction`."""

    home: "_Home"

    def give_back(self) -> None:
        """Give the connection back after a transaction, to whoever takes it next."""
        home = self.home
        if len(home.idle) < home.capacity:
            home.idle.append(self)
        else:
            self.close()

    def look(self, *queries: Select) -> list[list[Row]]:
        return [self.execute(statement, params).fetchall() for statement, params in queries]

    finish = look

    def write(self, statement: str, params: Sequence[Any]) -> None:
        self.execute(statement, params)

    def insert(self, insert: Insert, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:
            self.execute(insert.single, rows[0])
        else:
            self.executemany(insert.single, rows)

    def change(self, statement: str, params: Sequence[Any]) -> int:
        return self.execute(statement, params).rowcount

    def flush(self) -> None:
        """Do nothing: nothing ever waits here."""


class _Home:
    """The place where connections wait between transactions. With the capacity 0 none comes back."""

    def __init__(self, capacity: int) -> None:
        self.idle: list[PooledSQLite] = []
        self.capacity = capacity


class SQLitePool:
    """The connections of one store in this process. Safe to share between threads."""

    def __init__(self, settings: SQLSettings) -> None:
        self._settings = settings
        self._file, self._options = _place_of(settings.url)
        self._home = _Home(settings.pool_size)
        _pools.add(self)

    def take(self) -> PooledSQLite:
        """Return a connection that is the caller's until it is given back."""
        home = self._home
        try:
            return home.idle.pop()
        except IndexError:
            arguments = self._options | sqlite_arguments(self._settings)
            connection = sqlite3.connect(self._file, factory=PooledSQLite, **arguments)
        try:
            connection.home = home
            prepare_sqlite(connection, self._settings)
        except BaseException:
            connection.close()
            raise
        return connection

    def dispose(self) -> None:
        """Close the connections; those that are taken are closed when they are given back."""
        home, self._home = self._home, _Home(self._settings.pool_size)
        home.capacity = 0
        while home.idle:
            home.idle.pop().close()

    def leave_to_parent(self) -> None:
        """Leave the connections to the parent, after a fork in the child.

        The parent's connections take part in the locking of its file. A connection in whose use this thread forked is
        given back to a place from which nobody takes.
        """
        _inherited.append(self._home)
        self._home = _Home(self._settings.pool_size)


def _place_of(url: URL) -> tuple[str, dict[str, Any]]:
    """Return the file that a SQLAlchemy URL names, and the options in its query."""
    (file,), options = url.get_dialect()().create_connect_args(url)
    return str(file), dict(options)


_pools: "weakref.WeakSet[SQLitePool]" = weakref.WeakSet()
_inherited: Final[list[_Home]] = []


def _leave_connections_to_parent() -> None:
    for pool in list(_pools):
        pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
