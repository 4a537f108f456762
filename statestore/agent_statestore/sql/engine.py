"""SQLAlchemy engines as the store needs them: used as connection pools, and for migrations.

The statements themselves run on the driver's level: SQLAlchemy costs about 100 us per statement, which is half of
what a whole checkpoint may cost.
"""

import os
import select
import sqlite3
import weakref
from typing import Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolResetState, QueuePool

from agent_statestore.sql.boundary import is_of_wrong_server
from agent_statestore.sql.driver_options import pymysql_arguments
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.pool import PooledSQLite, prepare_sqlite, sqlite_arguments

# MySQL's pooled connections hold under this name how many bytes the server takes at once.
MAX_PACKET: Final = "max_allowed_packet"


def create_pooled_engine(settings: SQLSettings) -> Engine:
    """Return the engine of MySQL, whose pool the store's statements use; every connection is in autocommit.

    Connect to nothing yet. Raise `ModuleNotFoundError` if the driver is not installed.
    """
    options: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        # In autocommit there is nothing to roll back when a connection comes back: that would cost a round trip.
        "pool_reset_on_return": None,
    }
    engine = _create(settings, options, autocommit=True, answer_seconds=settings.answer_timeout_ms / 1000)
    event.listen(engine, "checkout", _refuse_dropped)
    _forget_after_fork(engine)
    return engine


def create_step_engine(settings: SQLSettings) -> Engine:
    """Return the engine for transactions that steps take part in. On SQLite one takes the write lock at its start.

    The step decides how long one of its statements may take.
    """
    options: dict[str, Any] = {"poolclass": NullPool}
    if not settings.is_sqlite:
        options = {
            "poolclass": QueuePool,
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_reset_on_return": None,  # see `_end_what_is_open`
        }
    engine = _create(settings, options, autocommit=False)
    if settings.is_sqlite:
        _begin_by(engine, "BEGIN IMMEDIATE")
    else:
        event.listen(engine, "checkout", _refuse_dropped)
        event.listen(engine, "handle_error", _give_up_wrong_server)
        event.listen(engine, "reset", _end_what_is_open)
        _forget_after_fork(engine)
    return engine


def create_migration_engine(settings: SQLSettings, *, writes: bool = True) -> Engine:
    """Return an engine with transactions, for one migration, or for a look at the schema.

    On SQLite a transaction that `writes` takes the write lock at its start.
    """
    # A migration may have to wait until nobody uses a table.
    engine = _create(settings, {"poolclass": NullPool}, autocommit=False, waits=True)
    if settings.is_sqlite:
        _begin_by(engine, "BEGIN IMMEDIATE" if writes else "BEGIN")
    return engine


def _begin_by(engine: Engine, statement: str) -> None:
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement))


def _create(
    settings: SQLSettings,
    options: dict[str, Any],
    *,
    autocommit: bool,
    waits: bool = False,
    answer_seconds: float | None = None,
) -> Engine:
    if settings.dialect == "sqlite":
        arguments = sqlite_arguments(settings) | {"factory": PooledSQLite}
        engine = create_engine(settings.url, connect_args=arguments, **options)

        @event.listens_for(engine, "connect")
        def prepare_file(connection: sqlite3.Connection, record: object) -> None:
            del record
            prepare_sqlite(connection, settings)

        return engine
    if settings.dialect == "mysql":
        from agent_statestore.sql.mysql import session

        arguments = pymysql_arguments(settings.url)
        arguments |= session.connect_arguments(autocommit=autocommit, answer_seconds=answer_seconds)
        engine = create_engine(settings.url, connect_args=arguments, **options)

        @event.listens_for(engine, "connect")
        def prepare_session(connection: Any, record: ConnectionPoolEntry) -> None:
            record.info[MAX_PACKET] = session.prepare(connection, waits=waits)

        return engine
    # Looking for hstore would cost a query per connection.
    arguments = {"autocommit": True} if autocommit else {}
    engine = create_engine(settings.url, connect_args=arguments, use_native_hstore=False, **options)

    @event.listens_for(engine, "do_connect")
    def connect_limited(dialect: object, record: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from agent_statestore.sql.postgresql import connections

        del dialect, record
        return connections.connect(settings, answer_seconds, *args, **kwargs)

    return engine


def _refuse_dropped(connection: Any, record: object, proxy: object) -> None:
    """Replace pooled connections that the server has closed, after a restart say, without asking it each time.

    An idle connection has nothing to read, unless it is the end of the connection.
    """
    del record, proxy
    poll = select.poll()
    try:
        poll.register(_socket_of(connection), select.POLLIN | select.POLLRDHUP)
        dropped = bool(poll.poll(0))
    except Exception as error:
        raise InvalidatePoolError from error
    if dropped:
        raise InvalidatePoolError


def _end_what_is_open(connection: Any, record: ConnectionPoolEntry, state: PoolResetState) -> None:
    """Roll back a connection that comes back with an open transaction; close one on which that fails.

    SQLAlchemy would roll back every time, which costs a round trip to MySQL, and shows a traceback for each connection
    whose server went away after the commit.
    """
    if state.terminate_only or not _is_in_transaction(connection):
        return
    try:
        connection.rollback()
    except Exception as error:  # noqa: BLE001 - whatever the driver says: nobody can use this connection any more
        record.invalidate(error)


def _is_in_transaction(connection: Any) -> bool:
    """Return what psycopg, or pymysql, knows from the last answer of the server."""
    if hasattr(connection, "pgconn"):
        from psycopg.pq import TransactionStatus

        return bool(connection.info.transaction_status != TransactionStatus.IDLE)
    from pymysql.constants import SERVER_STATUS

    return bool(connection.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def _give_up_wrong_server(context: ExceptionContext) -> None:
    """Have SQLAlchemy close a connection to a server that is the wrong one, and all that lie idle in its pool."""
    if is_of_wrong_server(context.original_exception):
        context.is_disconnect = True


def _socket_of(connection: Any) -> Any:
    """Return the socket of psycopg's connection, or of pymysql's, which has no public name for it."""
    return connection.pgconn.socket if hasattr(connection, "pgconn") else connection._sock


# -- fork --------------------------------------------------------------------------------------------------------------

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()

# Connections that a child inherited. They are the parent's: closing them, as the garbage collector would, could end the
# parent's session on the server.
_inherited: Final[list[object]] = []


def _forget_after_fork(engine: Engine) -> None:
    _engines.add(engine)


def _leave_connections_to_parent() -> None:
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
