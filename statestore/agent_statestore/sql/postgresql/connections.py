"""Connections to PostgreSQL: kept open between statements, and given up when the server says nothing.

SQLAlchemy's pool takes 15 us a statement, out of the 100 us that a checkpoint may cost more than the bare driver.
"""

import os
import select
import time
import weakref
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import READY_NONE

from agent_statestore.errors import StoreUnavailable
from agent_statestore.sql.settings import SQLSettings

# How long a thread waits for a connection while all are in use.
_WAIT_SECONDS: Final = 30.0

# psycopg's own default.
_PREPARE_THRESHOLD: Final = 5

# The settings of libpq for a network that swallows packets; by default it would take the kernel's quarter of an hour to
# notice. The URL's settings overrule them.
_NETWORK: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that is given up when a statement is not answered in time.

    Neither libpq nor the network notices a server that is frozen: its kernel still confirms what it is sent.
    """

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer, as in psycopg.

        Raise `psycopg.OperationalError`, and close the connection, after `answer_seconds`.
        """
        if self.answer_seconds is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_limited(gen, self.answer_seconds), *args, **kwargs)
        except _NoAnswer:
            # The answer may still come, and would be taken for that of the next statement.
            self.pgconn.finish()
            raise


class _NoAnswer(psycopg.OperationalError):
    """The server did not answer in time."""


def connect(
    settings: SQLSettings, answer_seconds: float | None, *args: Any, autocommit: bool = False, **kwargs: Any
) -> LimitedConnection:
    """Open a connection whose statements must be answered within `answer_seconds` (None: at some time)."""
    connection = LimitedConnection.connect(*args, autocommit=True, **{**_NETWORK, **kwargs})
    connection.answer_seconds = answer_seconds
    try:
        threshold = settings.prepare_threshold
        if threshold == "auto":
            threshold = None if is_pooled(connection) else _PREPARE_THRESHOLD
        connection.prepare_threshold = threshold
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def is_pooled(connection: LimitedConnection) -> bool:
    """Return whether something stands in between that is not the server: PgBouncer or its like.

    In transaction mode each transaction may get another session. A statement that was prepared in one is missing in the
    others, or worse: there the same name is another statement, which another process has prepared. A pooler invents the
    number by which a client may cancel its statements, as it does not know yet which session that will be.
    """
    connection.prepare_threshold = None
    return connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.pgconn.backend_pid,)


def _limited(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Yield as the generator does, which psycopg resumes some times a second although nothing has arrived."""
    give_up_at = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready == READY_NONE and time.monotonic() >= give_up_at:
                raise _NoAnswer(f"the server did not answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as finished:
        return finished.value
    finally:
        gen.close()


class _Home:
    """The connections of one process."""

    def __init__(self, settings: SQLSettings) -> None:
        self.idle: list[LimitedConnection] = []
        self.capacity = settings.pool_size
        # A token for each connection that may be open. This is a queue and no semaphore: an exception that a signal
        # raises inside the latter, which is written in Python, could leave it locked for ever.
        self.free: SimpleQueue[None] = SimpleQueue()
        for _ in range(settings.pool_size + settings.max_overflow):
            self.free.put(None)


class PostgreSQLPool:
    """The connections of one store: `pool_size` are kept, `max_overflow` more may be open. Safe between threads."""

    def __init__(self, settings: SQLSettings) -> None:
        self._settings = settings
        self._arguments, self._options = settings.url.get_dialect()().create_connect_args(settings.url)
        self._home = _Home(settings)
        _pools.add(self)

    def take(self) -> "PooledConnection":
        """Return a connection that is the caller's until it is given back.

        Raise `StoreUnavailable` and psycopg's errors.
        """
        home = self._home
        try:
            home.free.get(timeout=_WAIT_SECONDS)
        except Empty as error:
            raise StoreUnavailable(self._settings.shown_url, "no connection of the pool became free in time") from error
        try:
            while True:
                try:
                    connection = home.idle.pop()
                except IndexError:
                    break
                if not _is_dropped(connection):
                    return PooledConnection(connection, home)
                connection.close()
            return PooledConnection(self.connect(), home)
        except BaseException:
            home.free.put(None)
            raise

    def connect(self) -> LimitedConnection:
        """Return a connection beside those of the pool, in autocommit. Raise psycopg's errors."""
        answer_seconds = self._settings.answer_timeout_ms / 1000
        return connect(self._settings, answer_seconds, *self._arguments, autocommit=True, **self._options)

    def dispose(self) -> None:
        """Close the connections; those that are taken are closed when they are given back."""
        home, self._home = self._home, _Home(self._settings)
        home.capacity = 0
        while home.idle:
            home.idle.pop().close()

    def leave_to_parent(self) -> None:
        """Leave the connections to the parent, after a fork in the child.

        Closing them would end the parent's sessions on the server.
        """
        _inherited.append(self._home)
        self._home = _Home(self._settings)


class PooledConnection:
    """A connection that is taken, for the length of a `with`."""

    __slots__ = ("_home", "connection")

    def __init__(self, connection: LimitedConnection, home: _Home) -> None:
        self.connection = connection
        self._home = home

    def __enter__(self) -> LimitedConnection:
        return self.connection

    def __exit__(self, *_: object) -> None:
        home, connection = self._home, self.connection
        try:
            # A connection in the middle of a statement (a time limit came) would refuse the next one, or give it this
            # answer.
            pgconn = connection.pgconn
            if (
                pgconn.transaction_status == TransactionStatus.IDLE
                and len(home.idle) < home.capacity
                and not _takes_no_writes(pgconn)
            ):
                home.idle.append(connection)
            else:
                connection.close()
        finally:
            home.free.put(None)


def _takes_no_writes(pgconn: PGconn) -> bool:
    """Return whether the server is a standby, or was fenced off, as it reports with its answers from version 14 on.

    A write would be refused and the session given up. Who only reads would stay there, and see an old state for ever.
    """
    return pgconn.parameter_status(b"in_hot_standby") == b"on" or (
        pgconn.parameter_status(b"default_transaction_read_only") == b"on"
    )


def _is_dropped(connection: LimitedConnection) -> bool:
    """Return whether the server has closed the connection, after a restart say.

    An idle connection has nothing to read, unless it is the end of the connection.
    """
    poll = select.poll()
    try:
        poll.register(connection.pgconn.socket, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))
    except Exception:  # noqa: BLE001 - whatever is wrong with it: there are others
        return True


_pools: "weakref.WeakSet[PostgreSQLPool]" = weakref.WeakSet()
_inherited: Final[list[_Home]] = []


def _leave_connections_to_parent() -> None:
    for pool in list(_pools):
        pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
