"""SQLAlchemy engines as the store needs them: used as connection pools, and for migrations.

The statements themselves run on the driver's level: SQLAlchemy costs about 100 us per statement, which is half of
what a whole checkpoint may cost.
"""

import os
import select
import sqlite3
import time
import weakref
from typing import Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import NullPool, QueuePool

from statestore.sql.fork_gate import GatedConnection
from statestore.sql.settings import Settings


def create_pooled_engine(settings: Settings) -> Engine:
    """The engine whose pool the store's statements use; every connection is in autocommit. Connects to nothing yet.

    Raises `ModuleNotFoundError` if the driver is not installed.
    """
    options: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        # In autocommit there is nothing to roll back when a connection comes back: that would cost a round trip.
        "pool_reset_on_return": None,
    }
    engine = _create(settings, options, autocommit=True)
    if not settings.is_sqlite:
        event.listen(engine, "checkout", _refuse_dropped)
    _forget_after_fork(engine)
    return engine


def create_migration_engine(settings: Settings) -> Engine:
    """An engine with transactions, for one migration. On SQLite a transaction takes the write lock at its start."""
    engine = _create(settings, {"poolclass": NullPool}, autocommit=False)
    if settings.is_sqlite:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _create(settings: Settings, options: dict[str, Any], *, autocommit: bool) -> Engine:
    if settings.is_sqlite:
        # isolation_level None: the driver opens no transactions of its own, we say BEGIN ourselves.
        arguments = {
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": settings.busy_timeout_ms / 1000,
            "factory": GatedConnection,
        }
        engine = create_engine(settings.url, connect_args=arguments, **options)

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, record: object) -> None:
            del record
            _prepare_sqlite(connection, settings)

        return engine
    # Looking for hstore would cost a query per connection.
    arguments = {"autocommit": True} if autocommit else {}
    return create_engine(settings.url, connect_args=arguments, use_native_hstore=False, **options)


def _prepare_sqlite(connection: sqlite3.Connection, settings: Settings) -> None:
    # SQLite answers a change of the journal mode that meets another process's write with "locked" at once, without
    # waiting for the busy timeout. Once made, the change is kept in the file.
    deadline = time.monotonic() + settings.busy_timeout_ms / 1000
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    connection.execute(f"PRAGMA synchronous={settings.synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")


def _refuse_dropped(connection: Any, record: object, proxy: object) -> None:
    """Replaces pooled connections that the server has closed, after a restart say, without asking it each time.

    An idle connection has nothing to read, unless it is the end of the connection.
    """
    del record, proxy
    poll = select.poll()
    try:
        poll.register(connection.pgconn.socket, select.POLLIN | select.POLLRDHUP)
        dropped = bool(poll.poll(0))
    except Exception as error:
        raise InvalidatePoolError from error
    if dropped:
        raise InvalidatePoolError


# -- fork --------------------------------------------------------------------------------------------------------------

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()

# Connections that a child inherited. They are the parent's: closing them, as the garbage collector would, could end
# its session on the server, or take part in the locking of its SQLite file.
_inherited: Final[list[object]] = []


def _forget_after_fork(engine: Engine) -> None:
    _engines.add(engine)


def _leave_connections_to_parent() -> None:
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
