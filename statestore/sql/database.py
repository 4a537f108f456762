"""Running statements: one per transaction on PostgreSQL, short transactions on SQLite."""

import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from statestore.sql.boundary import reraise, sqlstate_of
from statestore.sql.engine import create_pooled_engine
from statestore.sql.fork_gate import sqlite_gate
from statestore.sql.settings import Settings

Params = Mapping[str, Any]
Row = tuple[Any, ...]

_TRANSIENT = {"40P01", "40001"}  # deadlock detected, serialization failure: the statement was undone as a whole


_NO_LOCK: AbstractContextManager[object] = nullcontext()


class Refused(Exception):
    """A unique index refused the statement; nothing of it was applied."""


class Database(Protocol):
    """What the statements that both dialects share need.

    Statements are written with `:name` parameters; `now` is an expression for the store's time in microseconds, which
    takes the parameter `:now` (None for the server's own clock).
    """

    settings: Settings
    now: str

    def run(self, statement: str, params: Params) -> list[Row]:
        """Runs one statement as a transaction of its own; returns its rows."""
        ...

    def dispose(self) -> None:
        """Closes the pooled connections."""
        ...


class PostgreSQLDatabase:
    """Statements on PostgreSQL: each one a round trip and, in autocommit, a transaction."""

    # The clock and not `now()`: a statement may have waited for a lock since its transaction began.
    now = "COALESCE(CAST(:now AS bigint), CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = create_pooled_engine(settings)
        self._converted: dict[str, bytes] = {}

    def run(self, statement: str, params: Params) -> list[Row]:
        """Runs one statement; see `Database`. Raises `Refused` for a unique index's refusal."""
        # psycopg prepares a statement on a connection that has run the same text five times.
        query = self._converted.get(statement)
        if query is None:
            query = self._converted[statement] = to_pyformat(statement).encode()
        tries = 3
        while True:
            tries -= 1
            try:
                pooled = self._engine.raw_connection()
                try:
                    connection: Any = pooled.driver_connection
                    try:
                        cursor = connection.execute(query, params, binary=True)
                        return cursor.fetchall() if cursor.description is not None else []
                    finally:
                        if connection.closed:
                            pooled.invalidate()
                finally:
                    pooled.close()
            except Exception as error:
                state = sqlstate_of(error)
                if state in _TRANSIENT and tries:
                    continue
                if state == "23505":
                    raise Refused from error
                reraise(error, self.settings)

    def dispose(self) -> None:
        """Closes the pooled connections."""
        self._engine.dispose()


class SQLiteDatabase:
    """Statements on SQLite: short transactions that hold the file's write lock from their start."""

    now = ":now"

    def __init__(self, settings: Settings, migrate: Callable[[], None]) -> None:
        self.settings = settings
        self._engine = create_pooled_engine(settings)
        self._migrate = migrate
        self.is_ready = False
        self._make_locks()
        _sqlite_databases.add(self)

    def _make_locks(self) -> None:
        self._write_lock = threading.Lock()
        self._ready_lock = threading.Lock()

    def run(self, statement: str, params: Params) -> list[Row]:
        """Runs one statement; see `Database`."""
        if statement.startswith("SELECT"):
            with self.reading() as connection:
                return connection.execute(statement, params).fetchall()
        with self.writing() as connection:
            return connection.execute(statement, params).fetchall()

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that reads and writes; nobody else writes meanwhile."""
        # SQLite lets a writer that finds the file locked sleep and try again; threads of one process need not.
        return self._transaction("BEGIN IMMEDIATE", self._write_lock)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that sees one state of the file, whoever writes meanwhile."""
        return self._transaction("BEGIN", _NO_LOCK)

    @contextmanager
    def _transaction(self, begin: str, lock: AbstractContextManager[object]) -> Iterator[sqlite3.Connection]:
        # The gate comes before any lock: who has to wait for a fork must hold nothing that a thread inside waits for.
        with sqlite_gate:
            if not self.is_ready:
                self._make_ready()
            try:
                with lock:
                    pooled = self._engine.raw_connection()
                    try:
                        connection: sqlite3.Connection = pooled.driver_connection  # type: ignore[assignment]
                        connection.execute(begin)
                        try:
                            yield connection
                            connection.commit()
                        except BaseException:
                            connection.rollback()  # also after a commit that found the disk full or busy
                            raise
                    finally:
                        pooled.close()
            except (sqlite3.Error, SQLAlchemyError) as error:
                reraise(error, self.settings)

    def _make_ready(self) -> None:
        with self._ready_lock:
            if not self.is_ready:
                self._migrate()
                self.is_ready = True

    def dispose(self) -> None:
        """Closes the pooled connections."""
        with sqlite_gate:
            self._engine.dispose()


def to_pyformat(statement: str) -> str:
    """The statement with psycopg's parameters; a `::type` cast is left alone."""
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement)


_sqlite_databases: "weakref.WeakSet[SQLiteDatabase]" = weakref.WeakSet()


def _renew_locks() -> None:
    """A lock that another thread held at the fork would stay locked in the child for ever.

    The gate leaves only forks that lost their patience, and the lock of a call in whose middle its own thread forked.
    """
    for database in list(_sqlite_databases):
        database._make_locks()


os.register_at_fork(after_in_child=_renew_locks)
