"""How statements run on SQLite, in short transactions."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from agent_statestore.sql.boundary import reraise
from agent_statestore.sql.database import Params
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.fork_gate import sqlite_gate
from agent_statestore.sql.sqlite.pool import PooledSQLite, SQLitePool
from agent_statestore.sql.transaction import Row, Select

Result = TypeVar("Result")

_NO_LOCK: AbstractContextManager[object] = nullcontext()


class SQLiteDatabase:
    """Statements on SQLite: short transactions that hold the file's write lock from their start."""

    now = ":now"

    def __init__(self, settings: SQLSettings, migrate: Callable[[], None]) -> None:
        self.settings = settings
        self._pool = SQLitePool(settings)
        self._migrate = migrate
        self.is_ready = False
        self._make_locks()
        _sqlite_databases.add(self)

    def _make_locks(self) -> None:
        self._write_lock = threading.Lock()
        self._ready_lock = threading.Lock()

    def run(self, statement: str, params: Params) -> list[Row]:
        """Run one statement; see `Database`."""
        if statement.startswith("SELECT"):
            return self._transact(
                "BEGIN", _NO_LOCK, lambda connection: connection.execute(statement, params).fetchall()
            )
        return self.write(lambda connection: connection.execute(statement, params).fetchall())

    def change(self, statement: str, params: Params) -> int:
        """Run one writing statement; see `Database`."""
        return self.write(lambda connection: connection.execute(statement, params).rowcount)

    def write(self, work: Callable[[PooledSQLite], Result]) -> Result:
        """Run `work` in a transaction; nobody else writes meanwhile, so there are no conflicts."""
        # SQLite lets a writer that finds the file locked sleep and try again; threads of one process need not.
        return self._transact("BEGIN IMMEDIATE", self._write_lock, work)

    def read(self, *queries: Select) -> list[list[Row]]:
        """Run SELECTs that see one state of the file; see `LockingDatabase`."""
        return self._transact("BEGIN", _NO_LOCK, lambda connection: connection.look(*queries))

    def _transact(
        self, begin: str, lock: AbstractContextManager[object], work: Callable[[PooledSQLite], Result]
    ) -> Result:
        # The gate comes before any lock: a thread that waits for a fork must hold nothing that a thread inside waits
        # for.
        with sqlite_gate:
            if not self.is_ready:
                self._make_ready()
            try:
                with lock:
                    connection = self._pool.take()
                    try:
                        connection.execute(begin)
                        result = work(connection)
                        connection.commit()
                        return result
                    except BaseException:
                        connection.rollback()  # also after a commit that found the disk full or busy
                        raise
                    finally:
                        connection.give_back()
            except (sqlite3.Error, UnicodeEncodeError) as error:
                reraise(error, self.settings)

    def _make_ready(self) -> None:
        with self._ready_lock:
            if not self.is_ready:
                self._migrate()
                self.is_ready = True

    def dispose(self) -> None:
        """Close the pooled connections."""
        with sqlite_gate:
            self._pool.dispose()


_sqlite_databases: "weakref.WeakSet[SQLiteDatabase]" = weakref.WeakSet()


def _renew_locks() -> None:
    """Renew the locks: one that another thread held at the fork would stay locked in the child for ever.

    The gate leaves only forks that lost their patience, and the lock of a call during which its own thread forked.
    """
    for database in list(_sqlite_databases):
        database._make_locks()


os.register_at_fork(after_in_child=_renew_locks)
