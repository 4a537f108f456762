"""One server: its idle connections, and the sending of commands on one of them."""

import os
import select
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import redis
from redis.exceptions import ResponseError

_HAS_POLL: Final = hasattr(select, "poll")


class Address(NamedTuple):
    """The address at which a server listens. The host is empty for a server that is not reached by one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


PoolOf: TypeAlias = Callable[[Address], redis.ConnectionPool]


class Node:
    """Sends commands to one server and reads its answers.

    The driver's connections do the work: connecting, TLS, the handshake, the health check after a long idle time, and
    the errors. The driver's way to them is not used (its retries, its hooks for metrics, its lock around the pool): it
    costs more than the sending, and a process that forks while another thread holds the lock leaves it locked for ever
    in the child.

    Safe to share between threads and on both sides of a fork.
    """

    def __init__(self, address: Address, pool: redis.ConnectionPool) -> None:
        self.address = address
        self._pool = pool
        self._idle: list[Any] = []
        self._pid = os.getpid()
        # Other pools, and settings that act on each taking and returning, need the driver's own way.
        settings = pool.connection_kwargs
        self._keeps = (
            type(pool) is redis.ConnectionPool
            and settings.get("protocol") in (2, "2")
            and settings.get("credential_provider") is None
            and settings.get("cache") is None
        )

    @property
    def client(self) -> redis.Redis:
        """The driver's client, for calls that are no matter of microseconds: INFO, PING, subscriptions."""
        return redis.Redis(connection_pool=self.pool)

    @property
    def pool(self) -> redis.ConnectionPool:
        """The driver's connections to this server, for those who keep one to themselves."""
        self._check_fork()
        return self._pool

    def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send commands in one go and return their answers; a refusal by the server is a `ResponseError` among them.

        Raise the driver's errors when the connection cannot be made or breaks. Nothing is ever sent twice.
        """
        connection = self.start(packed)
        return self.finish(connection, count)

    def start(self, packed: bytes) -> Any:
        """Send commands and return the connection, which `finish` or `abandon` must get."""
        connection = self._take()
        try:
            connection.send_packed_command((packed,))
        except BaseException:
            self.abandon(connection)
            raise
        return connection

    def finish(self, connection: Any, count: int) -> list[Any]:
        """Return the answers to what `start` has sent, never decoded: values may be any bytes."""
        answers: list[Any] = []
        try:
            for _ in range(count):
                try:
                    answers.append(connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            self.abandon(connection)
            raise
        self._give_back(connection)
        return answers

    def abandon(self, connection: Any) -> None:
        """Give up a connection whose answers nobody reads."""
        connection.disconnect()
        self._pool.release(connection)

    def drop_idle(self) -> None:
        """Close the idle connections: the server was lost, or is another one now."""
        self._check_fork()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return
            self.abandon(connection)

    def close(self) -> None:
        """Close all connections."""
        self.drop_idle()
        self._pool.disconnect()

    def _take(self) -> Any:
        self._check_fork()
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        try:
            if _is_spoilt(connection):
                # The server closed it while it lay idle. This is noticed before anything is sent, so nothing is
                # repeated.
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.abandon(connection)
            raise
        return connection

    def _give_back(self, connection: Any) -> None:
        if self._keeps:
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    def _check_fork(self) -> None:
        # A child must not write to its parent's connections: they are closed here without a word to the server. The
        # child does not touch the parent's pool either, whose lock another thread may have held at the fork.
        if self._pid == os.getpid():
            return
        if self._keeps:
            self._pool = redis.ConnectionPool(
                connection_class=self._pool.connection_class,
                max_connections=self._pool.max_connections,
                **self._pool.connection_kwargs,
            )
        self._idle = []
        self._pid = os.getpid()


def _is_spoilt(connection: Any) -> bool:
    """Return whether something can be read where nothing should be: an end, or an answer to nobody."""
    sock = connection._sock
    if sock is None:
        return True
    if not _HAS_POLL or hasattr(sock, "pending"):
        # Behind TLS, something that is not an answer may wait, a session ticket for example: the driver looks inside.
        try:
            return bool(connection.can_read())
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
