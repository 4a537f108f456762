"""Readers of streams on PostgreSQL, who are told by NOTIFY what has grown.

A notification takes a lock of the whole database at its commit, so nobody sends one for nothing: an execution's row
says until when somebody listens, and whoever appends sees that in the row that he writes anyway. A listener says so
when it begins to follow a stream, and again in time. What was appended before its word arrived is not told, so it names
a stream once when its word is stored; and as a writer may die before he tells, each time that it repeats its word it
names those that have grown.
"""

import contextlib
import json
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from psycopg import sql
from psycopg.pq.abc import PGconn

from agent_statestore.contract.streams import PollingListener, StreamListener
from agent_statestore.sql.boundary import reraise
from agent_statestore.sql.postgresql.connections import LimitedConnection, is_pooled
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase, rows_of, to_pyformat
from agent_statestore.sql.postgresql.streams import channel_of

# For how long a listener's word counts, and how often it is repeated.
_WATCHED_SECONDS: Final = 15
_REPEAT_SECONDS: Final = 5.0
# How long until a row is tried again that another writer had locked, or that was not there.
_RETRY_SECONDS: Final = 0.2


def listen(database: PostgreSQLDatabase, now_us: Callable[[], int | None]) -> StreamListener:
    """Return a listener. Through a pooler, which gives each transaction another session, it polls.

    Raise `StoreUnavailable`.
    """
    connection = database.connect()
    try:
        if is_pooled(connection):
            connection.close()
            return PollingListener()
        return PostgreSQLListener(database, now_us, connection)
    except BaseException as error:  # noqa: BLE001 - the boundary tells the driver's errors from others
        connection.close()
        reraise(error, database.settings)


class PostgreSQLListener:
    """Listens on a connection that it has to itself; see `StreamListener`."""

    def __init__(
        self, database: PostgreSQLDatabase, now_us: Callable[[], int | None], connection: LimitedConnection
    ) -> None:
        contexts, now = database.settings.tables.contexts, database.now
        self._database = database
        self._now_us = now_us
        self._channel = f"SELECT {channel_of(database.settings.tables)}".encode()
        # Who waits for one locked row would keep the writers of all others waiting.
        watch = (
            f"WITH held AS MATERIALIZED (SELECT c.execution_id FROM {contexts} AS c "
            "WHERE c.execution_id = ANY(CAST(:ids AS text[])) AND c.deleted_us IS NULL "
            "ORDER BY c.execution_id FOR NO KEY UPDATE OF c SKIP LOCKED) "
            f"UPDATE {contexts} AS c SET watched_until_us = {now} + {_WATCHED_SECONDS * 1_000_000} FROM held "
            "WHERE c.execution_id = held.execution_id RETURNING c.execution_id, c.stream_last"
        )
        self._watch = to_pyformat(watch).encode()
        # The number of the last event that each stream had when the listener's word was stored; None before that.
        self._followed: dict[str, int | None] = {}
        self._told: set[str] = set()
        self._repeat_at = self._retry_at = 0.0
        self._is_closed = False
        self._connection: LimitedConnection | None = None
        self._make_locks()
        self._join(connection)
        _listeners.add(self)

    def _make_locks(self) -> None:
        self._waiting, self._lock = threading.Lock(), threading.Lock()
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)

    def follow(self, execution_ids: Iterable[str]) -> None:
        """Listen to these as well; see `StreamListener`."""
        with self._lock:
            for execution_id in execution_ids:
                self._followed.setdefault(execution_id, None)
            self._retry_at = 0.0
        self._wake()

    def unfollow(self, execution_id: str) -> None:
        """Listen to it no more; see `StreamListener`."""
        with self._lock:
            self._followed.pop(execution_id, None)

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return what may have grown; see `StreamListener`."""
        end = time.monotonic() + timeout_seconds
        try:
            with self._waiting:
                try:
                    return self._wait(end)
                except BaseException as error:  # noqa: BLE001 - the boundary tells the driver's errors from others
                    self._give_up()
                    reraise(error, self._database.settings)
        finally:
            if self._is_closed:
                self._dispose()

    def close(self) -> None:
        """End the waiting; see `StreamListener`."""
        self._is_closed = True
        self._wake()
        self._dispose()

    def leave_to_parent(self) -> None:
        """Leave the connection to the parent, after a fork in the child, which connects anew when it waits."""
        _inherited.append((self._connection, self._woken, self._waking))
        self._connection = None
        self._followed = dict.fromkeys(self._followed)
        self._make_locks()

    def _wait(self, end: float) -> frozenset[str]:
        while not self._is_closed:
            if self._connection is None:
                self._join(self._database.connect())
            connection = self._connection
            assert connection is not None
            grown = self._watched(connection)
            self._read(connection.pgconn)
            told, self._told = self._told, set()
            with self._lock:
                grown = {name for name in grown | told if name in self._followed}
                until = self._repeat_at
                if None in self._followed.values():
                    until = min(until, self._retry_at)
            now = time.monotonic()
            if grown or now >= end:
                return frozenset(grown)
            self._sleep(connection.pgconn, min(until, end) - now)
        return frozenset()

    def _watched(self, connection: LimitedConnection) -> set[str]:
        """Say that somebody listens, if it is time to; return the streams that may have grown without a word."""
        now = time.monotonic()
        with self._lock:
            if now >= self._repeat_at:
                ids, self._repeat_at = list(self._followed), now + _REPEAT_SECONDS
            elif now >= self._retry_at:
                ids = [name for name, last in self._followed.items() if last is None]
            else:
                return set()
            self._retry_at = now + _RETRY_SECONDS
        if not ids:
            return set()
        cursor = connection.execute(self._watch, {"ids": ids, "now": self._now_us()}, binary=True)
        lasts: dict[str, int] = dict(rows_of(cursor))
        grown = set()
        with self._lock:
            for name in ids:
                known = self._followed.get(name)
                if known is None or lasts.get(name, known) != known:
                    grown.add(name)
                if name in lasts and name in self._followed:
                    self._followed[name] = lasts[name]
        return grown

    def _read(self, pgconn: PGconn) -> None:
        """Take the notifications that have arrived with something else."""
        while (notification := pgconn.notifies()) is not None:
            self._hear(notification.extra)

    def _hear(self, payload: bytes) -> None:
        self._told.update(json.loads(payload))

    def _sleep(self, pgconn: PGconn, seconds: float) -> None:
        """Wait until something arrives, somebody wakes this listener, or the time is over."""
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        for descriptor, _ in poll.poll(max(seconds, 0.0) * 1000):
            if descriptor == pgconn.socket:
                pgconn.consume_input()
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)

    def _wake(self) -> None:
        # A full buffer wakes as well, and a closed socket has nobody left to wake.
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")

    def _join(self, connection: LimitedConnection) -> None:
        """Listen on this connection, to all that is followed."""
        try:
            connection.add_notify_handler(lambda notification: self._hear(notification.payload.encode()))
            ((channel,),) = rows_of(connection.execute(self._channel))
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        with self._lock:
            self._followed = dict.fromkeys(self._followed)
            self._repeat_at = 0.0

    def _give_up(self) -> None:
        """Close the connection; the next wait makes another one, and names all that is followed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _dispose(self) -> None:
        # Whoever waits is awake by now, and frees all this himself.
        if self._waiting.acquire(blocking=False):
            try:
                self._give_up()
                self._woken.close()
                self._waking.close()
            finally:
                self._waiting.release()


_listeners: "weakref.WeakSet[PostgreSQLListener]" = weakref.WeakSet()
_inherited: Final[list[object]] = []


def _leave_connections_to_parent() -> None:
    for listener in list(_listeners):
        listener.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_connections_to_parent)
