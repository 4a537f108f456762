"""Waiting for changes of one execution: the scripts publish them, and a watch listens."""

import time
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.exceptions import MovedError, NoPermissionError, ResponseError

from agent_statestore.contract.watch import PollingWatch, Watch
from agent_statestore.errors import StoreUnavailable
from agent_statestore.redis.answers import text
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.listening import Silence

_CHANGED: Final = frozenset({"message", "smessage"})
_ENDED: Final = frozenset({"unsubscribe", "sunsubscribe"})


def watch(connection: Connection, channel: bytes) -> Watch:
    """Return a watch on a channel; it looks in intervals where the server's ACL forbids the user to listen."""
    try:
        return RedisWatch(connection, channel)
    except _Forbidden:
        return PollingWatch()


class RedisWatch:
    """Listens to one channel on a separate connection; see `agent_statestore.contract.watch.Watch`.

    If the connection was lost, the next `wait` makes a new one and returns at once, since something may have been
    missed. It raises `StoreUnavailable` if that fails.
    """

    def __init__(self, connection: Connection, channel: bytes) -> None:
        self._server = connection
        self._channel = channel
        self._subscription: _Subscription | None = self._subscribe()

    def wait(self, timeout_seconds: float) -> bool:
        """Return at the next message or after the timeout; see `Watch`."""
        if self._subscription is not None:
            try:
                return self._subscription.wait(timeout_seconds)
            except redis.RedisError:
                self.close()
        self._subscription = self._subscribe()
        return True

    def progress(self) -> None:
        """Do nothing: the server announces each change by itself; see `Watch`."""

    def close(self) -> None:
        """Close the connection; see `Watch`."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _subscribe(self) -> "_Subscription":
        try:
            return self._subscribed()
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, _Moved):
                raise
            return self._subscribed()  # where the channel is now

    def _subscribed(self) -> "_Subscription":
        with self._server.at(self._channel) as client:
            return _Subscription(client.connection_pool, self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Forbidden(Exception):
    """The user may not listen to the channel."""


class _Moved(redis.ConnectionError):
    """The server does not have the channel any more."""


class _Subscription:
    """One connection that listens to one channel. Its methods raise the driver's errors once it is lost."""

    def __init__(self, pool: redis.ConnectionPool, channel: bytes) -> None:
        self._pool = pool
        self._connection: Any = pool.get_connection()
        self._silence = Silence()
        try:
            self._listen(channel)
        except BaseException:
            self.close()
            raise

    def wait(self, timeout_seconds: float) -> bool:
        """Return whether a message came before the timeout. Messages that came together give one answer."""
        give_up_at = time.monotonic() + timeout_seconds
        while True:
            # The driver would make an unsubscribed connection of one that was closed from elsewhere.
            if not self._connection.is_connected:
                raise redis.ConnectionError("the connection was closed")
            look_up_at = self._silence.check(self._connection)
            if self._connection.can_read(max(min(give_up_at, look_up_at) - time.monotonic(), 0.0)):
                if self._read_all():
                    return True
            elif time.monotonic() >= give_up_at:
                return False

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
        self._pool.release(self._connection)

    def _listen(self, channel: bytes) -> None:
        """Subscribe; where the server knows no sharded channels, the scripts do not use them either (`publish.lua`)."""
        try:
            try:
                self._ask("SSUBSCRIBE", channel)
            except (NoPermissionError, MovedError):
                raise
            except ResponseError as error:
                if "unknown command" not in str(error).lower():
                    raise
                self._ask("SUBSCRIBE", channel)
        except NoPermissionError as error:
            raise _Forbidden from error
        except MovedError as error:
            raise _Moved(str(error)) from error

    def _ask(self, command: str, channel: bytes) -> None:
        self._connection.send_command(command, channel, check_health=False)
        self._connection.read_response(push_request=True)

    def _read_all(self) -> bool:
        """Read what has come, and return whether there was a message among it."""
        changed = False
        while True:
            answer = self._connection.read_response(push_request=True)
            kind = text(answer[0]) if isinstance(answer, list) else "pong"
            if kind in _ENDED:
                raise redis.ConnectionError("the channel has moved to another server")
            changed = changed or kind in _CHANGED
            self._silence.heard()
            if not self._connection.can_read(0):
                return changed
