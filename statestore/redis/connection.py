"""The one boundary to the driver: how scripts and commands are sent, and where its errors become `StoreUnavailable`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisClusterException, RedisError
from redis.retry import Retry

from statestore.errors import StoreUnavailable, UnsupportedURL
from statestore.opening import masked
from statestore.redis.scripts import Script

Client: TypeAlias = redis.Redis | RedisCluster
Keys: TypeAlias = Sequence[bytes]
Arguments: TypeAlias = Sequence[str | bytes | int]

_DRIVER_ERRORS = (RedisError, RedisClusterException)

SOCKET_TIMEOUT_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 30

# What applies to a connection unless the URL says otherwise. The pool's limit is far above the threads of a worker:
# beyond it a call would fail instead of waiting. RESP2 saves the handshake; the scripts' answers are the same in both.
# Text that UTF-8 cannot carry is refused or cannot be an id; asking for such an id must find nothing, not fail.
_DEFAULTS: dict[str, Any] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
    "health_check_interval": HEALTH_CHECK_SECONDS,
    "max_connections": 10_000,
    "protocol": 2,
    "encoding_errors": "replace",
}


def no_retry() -> Retry:
    """No silent repetition.

    The driver's default sends a command up to ten times more when no answer arrives. A `claim` that succeeded and is
    sent again is refused, because its own lease lives, and nobody works on the execution until that has run out. The
    caller knows what may be repeated, and how long its lease lasts. A connection that the server closed while it lay
    idle is noticed and replaced before anything is sent.
    """
    return Retry(NoBackoff(), 0)


def connect(url: str) -> redis.Redis:
    """A client for the URL, without a connection yet. Raises `UnsupportedURL` for one that is malformed."""
    try:
        pool = redis.ConnectionPool.from_url(url, **_DEFAULTS, retry=no_retry())
    except ValueError as error:
        raise UnsupportedURL(masked(url), str(error)) from error
    return redis.Redis(connection_pool=pool)


def sibling_of(client: Client) -> Client:
    """A client with the settings of another one, but with connections of its own that repeat nothing.

    A cluster's client, and a pool of a special kind (Sentinel's, say), cannot be copied: they are returned themselves.
    """
    if isinstance(client, RedisCluster):
        return client
    pool = client.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        return client
    settings = {
        **pool.connection_kwargs,
        "retry": no_retry(),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "encoding_errors": "replace",
    }
    own = type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **settings)
    return redis.Redis(connection_pool=own)


def masked_url_of(client: Client | str) -> str:
    """Where a client connects to, for messages."""
    if isinstance(client, str):
        return masked(client)
    if isinstance(client, RedisCluster):
        nodes = list(client.nodes_manager.nodes_cache.values())
        return "redis://" + ",".join(f"{node.host}:{node.port}" for node in nodes[:3])
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return f"unix://{settings['path']}"
    return f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}/{settings.get('db', 0)}"


class Connection:
    """Sends scripts and commands. Every method raises `StoreUnavailable` for whatever goes wrong in the driver."""

    def __init__(self, client: Client, url: str, *, closes: bool) -> None:
        self._client: Any = client  # a cluster's client is only half typed
        self._closes = closes
        self._url = url

    def run(self, script: Script, keys: Keys, arguments: Arguments) -> Any:
        """Runs one script."""
        try:
            try:
                return self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                # A server that was restarted or flushed: the text makes it known again, and runs it.
                return self._client.execute_command("EVAL", script.text, len(keys), *keys, *arguments)
        except _DRIVER_ERRORS as error:
            raise self._unavailable(error) from error

    def run_each(self, script: Script, calls: Sequence[tuple[Keys, Arguments]]) -> list[Any]:
        """Runs one script on several partitions in one round trip. Each call is atomic by itself."""
        if not calls:
            return []
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]

        def resend(error: Exception, number: int) -> Any:
            if not isinstance(error, NoScriptError):
                raise error
            keys, arguments = calls[number]
            return self._client.execute_command("EVAL", script.text, len(keys), *keys, *arguments)

        return self._pipeline(commands, resend)

    def send_each(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Sends several commands in one round trip; not a transaction."""

        def fail(error: Exception, number: int) -> Any:
            del number
            raise error

        return self._pipeline(commands, fail) if commands else []

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the client that parses its own answer."""
        with self._wrapping():
            return getattr(self._client, method)(*arguments)

    def close(self) -> None:
        """Closes every connection of the store's own client."""
        if self._closes:
            with self._wrapping():
                self._client.close()

    def _pipeline(self, commands: Sequence[tuple[Any, ...]], on_error: Callable[[Exception, int], Any]) -> list[Any]:
        with self._wrapping():
            # The client is not thread-safe in a pipeline, so each call has its own.
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = pipeline.execute(raise_on_error=False)
            return [
                on_error(answer, number) if isinstance(answer, Exception) else answer
                for number, answer in enumerate(answers)
            ]

    @contextmanager
    def _wrapping(self) -> Iterator[None]:
        try:
            yield
        except _DRIVER_ERRORS as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        reason = str(error) or type(error).__name__
        if isinstance(error, OutOfMemoryError):
            # Redis looks at its memory before a script's first write and never between two of its writes.
            reason = f"the server is out of memory (maxmemory), and nothing was written: {reason}"
        return StoreUnavailable(self._url, reason)
