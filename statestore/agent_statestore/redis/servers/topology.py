"""The server that holds a key: always the same one, or the master that Sentinel names. `cluster` is the third way.

A topology sends commands in one go and follows a fail-over: a lost server is looked for anew at the next call. The call
that met the loss fails: only the caller knows what may be repeated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import MovedError, ReadOnlyError, RedisError, ResponseError

from agent_statestore.redis.servers.node import Address, Node, PoolOf
from agent_statestore.redis.servers.packing import Command, pack

# A mark lives this long after its last write.
_MARK_MS: Final = 3_600_000

# Answers of a script that has written nothing: nothing has to be confirmed then.
_REFUSALS: Final = frozenset(
    {
        b"NOT_FOUND",
        b"FORMAT_TOO_NEW",
        b"LEASE_LOST",
        b"OVER",
        b"LEASE_HELD",
        b"CONFLICT",
        b"ILLEGAL",
        b"STEP_CONFLICT",
    }
)


class TooFewReplicas(RedisError):
    """A write was made and too few replicas confirmed it in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas must confirm a write before it counts, and how long they have for it."""

    count: int
    timeout_ms: int

    def commands(self, key: bytes) -> tuple[Command, ...]:
        """Return what follows the writes: a mark, in the slot of `key`, and the wait for the replicas.

        WAIT waits for the last write of its own connection. A repeated call may have come to another connection than
        the first one and find everything written. The mark is then a write that follows the earlier one and is waited
        for. A server out of memory refuses to set it, but not to put off the expiry of one that is there.
        """
        mark = key[: key.find(b"}") + 1] + b":mark"
        return (
            ("PEXPIRE", mark, _MARK_MS),
            ("SET", mark, b"", "PX", _MARK_MS),
            ("WAIT", self.count, self.timeout_ms),
        )

    def judge(self, answers: list[Any]) -> list[Any]:
        """Return the answers without those of `commands`. Raise if they are bad although something was written."""
        *answers, put_off, mark, confirmed = answers
        if all(isinstance(answer, Exception) or _is_refusal(answer) for answer in answers):
            return answers
        if isinstance(mark, Exception) and put_off != 1:
            raise TooFewReplicas(f"written, but nobody knows how many replicas have it: {mark}") from mark
        if isinstance(confirmed, Exception):
            raise confirmed
        if confirmed < self.count:
            raise TooFewReplicas(
                f"written, but only {confirmed} of {self.count} replicas have it within {self.timeout_ms} ms"
            )
        return answers


class Topology(ABC):
    """The servers that hold the keys. Safe to share between threads and on both sides of a fork.

    Attributes:
        url: the address to which it connects, without passwords; for messages.
        is_one_server: whether one server holds all keys, so that a script may use any of them together.
    """

    url: str
    is_one_server: bool = True

    @abstractmethod
    def send(self, commands: Sequence[Command], keys: Sequence[bytes], replicas: Replicas | None = None) -> list[Any]:
        """Send commands in one round trip, each to the server of its key, and return their answers in order.

        If something went wrong with a command, the driver's exception stands in its place. Raise the driver's errors if
        no server was found at all.
        """

    @abstractmethod
    def node_of(self, key: bytes) -> Node:
        """Return the server that holds this key now."""

    @abstractmethod
    def primaries(self) -> Sequence[Node]:
        """Return every server that takes writes now."""

    @abstractmethod
    def lose(self, node: Node) -> None:
        """Note that a server failed or is no longer the master: it is looked for anew at the next call."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; those of a borrowed client stay."""


class OneServer(Topology):
    """One server, whatever happens: its name may lead to another machine after a fail-over."""

    def __init__(self, node: Node, url: str, *, closes: bool = True) -> None:
        self.url = url
        self._node = node
        self._closes = closes

    def send(self, commands: Sequence[Command], keys: Sequence[bytes], replicas: Replicas | None = None) -> list[Any]:
        return exchange(self, self._node, commands, keys, replicas)

    def node_of(self, key: bytes) -> Node:
        del key
        return self._node

    def primaries(self) -> Sequence[Node]:
        return (self._node,)

    def close(self) -> None:
        if self._closes:
            self._node.close()

    def lose(self, node: Node) -> None:
        node.drop_idle()


class Sentinels(Topology):
    """The master of a service, as Sentinel names it."""

    def __init__(
        self, sentinels: Sequence[Address], service: str, url: str, *, sentinel_pool: PoolOf, server_pool: PoolOf
    ) -> None:
        self.url = url
        self._sentinels = tuple(sentinels)
        self._service = service
        self._sentinel_pool = sentinel_pool
        self._server_pool = server_pool
        self._nodes: dict[Address, Node] = {}
        self._master: Node | None = None

    def send(self, commands: Sequence[Command], keys: Sequence[bytes], replicas: Replicas | None = None) -> list[Any]:
        return exchange(self, self._master or self._find(), commands, keys, replicas)

    def node_of(self, key: bytes) -> Node:
        del key
        return self._master or self._find()

    def primaries(self) -> Sequence[Node]:
        return (self._master or self._find(),)

    def close(self) -> None:
        for node in tuple(self._nodes.values()):
            node.close()

    def lose(self, node: Node) -> None:
        if self._master is node:
            self._master = None
        node.drop_idle()

    def _find(self) -> Node:
        """Ask one sentinel after the other, and return the master.

        A sentinel that was cut off may name a server that is not the master any more, so the server itself is asked for
        its role.
        """
        reasons = []
        for sentinel in self._sentinels:
            try:
                address = self._ask(sentinel)
                node = self._nodes.get(address) or self._nodes.setdefault(
                    address, Node(address, self._server_pool(address))
                )
                (role,) = node.ask(pack(("ROLE",)), 1)
                if isinstance(role, Exception):
                    raise role
                if role[0] not in (b"master", "master"):
                    raise ResponseError(f"{address} is no master (any more)")
            except RedisError as error:
                reasons.append(f"sentinel {sentinel}: {error}")
            else:
                self._master = node
                return node
        raise redis.ConnectionError(f"no master of {self._service!r} is known at present: {'; '.join(reasons)}")

    def _ask(self, sentinel: Address) -> Address:
        # Asked seldom: the connection is not kept.
        pool = self._sentinel_pool(sentinel)
        try:
            (answer,) = Node(sentinel, pool).ask(pack(("SENTINEL", "MASTER", self._service)), 1)
        finally:
            pool.disconnect()
        if isinstance(answer, Exception):
            raise answer
        state = {_text(answer[at]): _text(answer[at + 1]) for at in range(0, len(answer), 2)}
        flags = state["flags"].split(",")
        if "s_down" in flags or "o_down" in flags or "master" not in flags:
            raise ResponseError(f"the master at {state['ip']}:{state['port']} is down")
        return Address(state["ip"], int(state["port"]))


def exchange(
    topology: Topology, node: Node, commands: Sequence[Command], keys: Sequence[bytes], replicas: Replicas | None
) -> list[Any]:
    """Send commands to one server, and tell the topology when it fails or turns out to be no longer the master."""
    try:
        if replicas is None:
            answers = node.ask(pack(*commands), len(commands))
        else:
            behind = replicas.commands(keys[0])
            answers = node.ask(pack(*commands, *behind), len(commands) + len(behind))
            answers = replicas.judge(answers)
    except (redis.ConnectionError, redis.TimeoutError):
        topology.lose(node)
        raise
    if any(is_demoted(answer) for answer in answers):
        topology.lose(node)
    return answers


def _is_refusal(answer: Any) -> bool:
    """Return whether a script says that it did nothing."""
    if not isinstance(answer, list) or not answer:
        return answer is None
    return isinstance(answer[0], bytes) and answer[0] in _REFUSALS


def is_demoted(answer: Any) -> bool:
    """Return whether a server refused a write because it is a replica."""
    if isinstance(answer, MovedError):
        return False
    # Redis 6 wraps what a script met into another error.
    return isinstance(answer, ReadOnlyError) or (isinstance(answer, ResponseError) and "-READONLY " in str(answer))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
