"""The one boundary to the driver: how scripts and commands are sent, and where its errors become `StoreUnavailable`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import redis
from redis.cluster import RedisCluster
from redis.exceptions import (
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)

from agent_statestore.drivers.masking import masked
from agent_statestore.errors import ExecutionUnreadable, StoreUnavailable
from agent_statestore.redis.scripts import Script, together
from agent_statestore.redis.servers.locating import Located, locate, located_by, no_retry
from agent_statestore.redis.servers.node import Node
from agent_statestore.redis.servers.packing import Command, Word

__all__ = ["Client", "Connection", "connect", "masked_url_of", "no_retry", "sibling_of"]

Client: TypeAlias = redis.Redis | RedisCluster
Keys: TypeAlias = Sequence[bytes]
Arguments: TypeAlias = Sequence[Word]

# What a script or a command says of a key that holds something else than the store has written.
_OF_DAMAGE: Final = (
    "WRONGTYPE",
    "attempt to compare",
    "attempt to perform arithmetic",
    "attempt to concatenate",
    "attempt to index",
    "bad argument #",
    "not an integer",
)
_DRIVER_ERRORS: Final = (RedisError, RedisClusterException)

# Errors which say that a server is away, and nothing about the command.
_AWAY: Final = (redis.ConnectionError, redis.TimeoutError, ClusterDownError)
_RAISE: Final = object()

# Scripts that never wait for replicas: they write nothing, or take out what has expired, or write down a duty, which is
# taken anew where it is lost, or copy what is copied again where it is.
_TIDYING: Final = frozenset({"copy_vectors", "find_ended", "take_duty"})
# What one server answers for all partitions in one call: what workers ask for again and again, mostly for nothing.
_TOGETHER: Final = frozenset({"expired_roots", "find_ended", "find_leases", "list_expired", "take_due"})
_READING: Final = frozenset(
    {
        *("export", "find_filtered", "find_leases", "get_context", "get_summary", "list_expired", "now"),
        *("expired_roots", "list_documents", "read_documents", "read_events", "read_mailbox"),
    }
)


def connect(url: str) -> Located:
    """Return where a URL leads, without a connection yet. Raise `UnsupportedURL` for one that is malformed."""
    return locate(url)


def sibling_of(client: Client) -> Located:
    """Return where a client leads, with its settings, but with separate connections that repeat nothing."""
    return located_by(client)


def masked_url_of(located: Located | str) -> str:
    """Return the address to which a client connects, for messages."""
    return located.topology.url if isinstance(located, Located) else masked(located)


class Connection:
    """Sends scripts and commands. Every method raises `StoreUnavailable` for whatever goes wrong in the driver.

    Nothing is repeated that may have been done: a call that met a lost server fails, and the next one looks for the
    server that has taken its place. A command was not done if the server refused it because it does not hold the keys
    any more, or does not know the script; then it is sent again where it belongs.
    """

    def __init__(self, located: Located, url: str) -> None:
        self._topology = located.topology
        self._replicas = located.replicas
        self._url = url
        # Whether one script may have the keys of all partitions. What looks like one server may be a cluster behind a
        # proxy.
        self._is_one_server = located.topology.is_one_server

    def run(self, script: Script, keys: Keys, arguments: Arguments) -> Any:
        """Run one script."""
        try:
            replicas = None if self._replicas is None or script.name in _READING | _TIDYING else self._replicas
            (answer,) = self._topology.send(
                (("EVALSHA", script.sha, len(keys), *keys, *arguments),), keys[:1], replicas
            )
            if isinstance(answer, NoScriptError):
                # The server was restarted or flushed: the text makes the script known again, and runs it.
                (answer,) = self._topology.send(
                    (("EVAL", script.text, len(keys), *keys, *arguments),), keys[:1], replicas
                )
            if isinstance(answer, Exception):
                raise answer
        except _DRIVER_ERRORS as error:
            raise self._unavailable(error) from error
        return answer

    def run_each(
        self, script: Script, calls: Sequence[tuple[Keys, Arguments]], *, unavailable: Any = _RAISE
    ) -> list[Any]:
        """Run one script on several partitions in one round trip. Each call is atomic by itself.

        With `unavailable`, a call whose server is away gets this for an answer, unless all servers are away: otherwise
        what the others have done would be forgotten. Without it, such a call fails the whole.
        """
        if not calls:
            return []
        if self._is_one_server and len(calls) > 1 and script.name in _TOGETHER:
            answers = self._run_together(script, calls)
            if answers is not None:
                return answers
        replicas = None if self._replicas is None or script.name in _READING | _TIDYING else self._replicas
        keys = [keys[0] for keys, _ in calls]
        with self._wrapping():
            answers = self._topology.send(
                [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls], keys, replicas
            )
            unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                commands: list[Command] = []
                for number in unknown:
                    own, arguments = calls[number]
                    commands.append(("EVAL", script.text, len(own), *own, *arguments))
                again = self._topology.send(commands, [keys[number] for number in unknown], replicas)
                for number, answer in zip(unknown, again, strict=True):
                    answers[number] = answer
            if unavailable is not _RAISE and not all(isinstance(answer, _AWAY) for answer in answers):
                answers = [unavailable if isinstance(answer, _AWAY) else answer for answer in answers]
            return _checked(answers)

    def run_apart(self, calls: Sequence[tuple[Script, Keys, Arguments]]) -> list[Any]:
        """Run several scripts in one round trip, each for itself.

        What went wrong with one stands in its place: `StoreUnavailable` or `ExecutionUnreadable`. Raise
        `StoreUnavailable` if no server was found.
        """
        keys = [own[0] for _, own, _ in calls]
        with self._wrapping():
            answers = self._topology.send(
                [("EVALSHA", script.sha, len(own), *own, *arguments) for script, own, arguments in calls],
                keys,
                self._replicas,
            )
        for number, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                try:
                    answers[number] = self.run(*calls[number])
                except (StoreUnavailable, ExecutionUnreadable) as error:
                    answers[number] = error
            elif isinstance(answer, Exception):
                answers[number] = self._unavailable(answer)
        return answers

    def _run_together(self, script: Script, calls: Sequence[tuple[Keys, Arguments]]) -> list[Any] | None:
        """Run one script on several partitions in one call; return None, with nothing done, if that is refused."""
        all_keys = [key for keys, _ in calls for key in keys]
        counts = (len(calls[0][0]), len(calls[0][1]))
        try:
            answer: list[Any] = self.run(
                together(script.name), all_keys, (*counts, *(word for _, arguments in calls for word in arguments))
            )
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, ClusterCrossSlotError):
                raise
            self._is_one_server = False
            return None
        return answer

    def send_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send several commands, whose first argument is their key, in one round trip; not a transaction."""
        if not commands:
            return []
        with self._wrapping():
            return _checked(self._topology.send(commands, [_key_of(command) for command in commands]))

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the driver's client on every primary; return what the first one answered."""
        return self.call_each(method, *arguments)[0][1]

    def call_each(self, method: str, *arguments: Any) -> list[tuple[str, Any]]:
        """Call a method of the driver's client on every primary. Return pairs of an address and the answer."""
        with self._wrapping():
            return [
                (str(node.address), getattr(node.client, method)(*arguments)) for node in self._topology.primaries()
            ]

    @contextmanager
    def at(self, key: bytes) -> Iterator[redis.Redis]:
        """Give the driver's client of the server that holds a key now, for subscriptions; see `on`."""
        node = self.node_of(key)
        with self.on(node):
            yield node.client

    def node_of(self, key: bytes) -> Node:
        """Return the server that holds a key now."""
        with self._wrapping():
            return self._topology.node_of(key)

    @contextmanager
    def on(self, node: Node) -> Iterator[None]:
        """Turn errors of the driver into `StoreUnavailable`; a lost server is looked for anew at the next call."""
        with self._wrapping():
            try:
                yield
            except (redis.ConnectionError, redis.TimeoutError):
                self._topology.lose(node)
                raise

    def lose(self, node: Node) -> None:
        """Look for the server of its keys anew at the next call."""
        with self._wrapping():
            self._topology.lose(node)

    def close(self) -> None:
        """Close every connection that belongs to the store."""
        with self._wrapping():
            self._topology.close()

    @contextmanager
    def _wrapping(self) -> Iterator[None]:
        try:
            yield
        except _DRIVER_ERRORS as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable | ExecutionUnreadable:
        reason = text = str(error) or type(error).__name__
        # Redis 6 wraps what a script met into another error, so the words are looked at too.
        if any(words in text for words in _OF_DAMAGE):
            # A script met a key of another type, or a field that is no number: the server is well.
            return ExecutionUnreadable("", "a key", text[:200])
        if isinstance(error, OutOfMemoryError) or "-OOM " in text:
            # Redis looks at its memory before a script's first write and never between two of its writes.
            reason = f"the server is out of memory (maxmemory), and nothing was written: {text}"
        elif isinstance(error, NoPermissionError) or "ACL failure" in text or "user executing the script" in text:
            rights = "a right that the store needs (see agent_statestore.redis.acl)"
            reason = f"the server's ACL denies this user {rights}: {text}"
        elif isinstance(error, MovedError):
            reason = f"the server is one of a cluster, which needs redis+cluster://: {text}"
        elif isinstance(error, TryAgainError):
            # Nothing was done: a script runs when its keys are on one side, which is so at the end of the slot's
            # journey.
            reason = f"the keys' slot is on its way to another server of the cluster: {text}"
        return StoreUnavailable(self._url, reason)


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _key_of(command: Command) -> bytes:
    key = command[1]
    return key if isinstance(key, bytes) else str(key).encode("utf-8", "replace")
