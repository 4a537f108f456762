"""Redis Cluster: which server holds which slot, and what to do when a server does not hold it any more.

The driver's own cluster client is not used: it connects when it is made, and its pipelines send again what was sent
before the connection broke, whatever its settings for retries say.
"""

import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError

from agent_statestore.redis.servers.node import Address, Node, PoolOf
from agent_statestore.redis.servers.packing import Command, pack
from agent_statestore.redis.servers.topology import Replicas, Topology, is_demoted

_SLOTS: Final = 16384
_REDIRECTIONS: Final = 8
# While a slot is on its way to another server, a script finds its keys together on neither side.
_TRY_AGAIN_SECONDS: Final = 0.05

# For each command that is still to send: its number, and whether its server must be told that it was asked to.
_Group: TypeAlias = list[tuple[int, bool]]


class Cluster(Topology):
    """All primaries of a cluster.

    The cluster is asked who holds what at the first use, and again after each sign that it has changed. The next call
    heeds the signs, so that a call is never longer than its own redirections.
    """

    is_one_server = False

    def __init__(self, seeds: Sequence[Address], url: str, *, pool: PoolOf) -> None:
        self.url = url
        self._seeds = tuple(seeds)
        self._pool = pool
        self._nodes: dict[Address, Node] = {}
        # Replaced as a whole, so that no reader needs a lock, which a fork might leave locked in the child.
        self._map = _Map((), ())
        self._is_stale = True
        self._failed: Address | None = None

    def send(self, commands: Sequence[Command], keys: Sequence[bytes], replicas: Replicas | None = None) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        self._refresh()
        groups: dict[Node, _Group] = {}
        for number, key in enumerate(keys):
            try:
                groups.setdefault(self._holder(key_slot(key)), []).append((number, False))
            except ClusterDownError as error:
                answers[number] = error
        for _ in range(_REDIRECTIONS):
            self._exchange(groups, commands, keys, replicas, answers)
            groups = self._redirected(groups, answers)
            if not groups:
                break
        return answers

    def node_of(self, key: bytes) -> Node:
        self._refresh()
        return self._holder(key_slot(key))

    def primaries(self) -> Sequence[Node]:
        self._refresh()
        return [self._node(address) for address in dict.fromkeys(self._map.holders)]

    def lose(self, node: Node) -> None:
        node.drop_idle()
        self._failed = node.address
        self._is_stale = True

    def close(self) -> None:
        for node in tuple(self._nodes.values()):
            node.close()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _exchange(
        self,
        groups: dict[Node, _Group],
        commands: Sequence[Command],
        keys: Sequence[bytes],
        replicas: Replicas | None,
        answers: list[Any],
    ) -> None:
        """Send to all servers before reading from any. A server that fails leaves the others' answers alone."""
        begun: list[tuple[Node, _Group, Any, int]] = []
        try:
            for node, group in groups.items():
                words: list[Command] = []
                for number, asking in group:
                    words += [("ASKING",), commands[number]] if asking else [commands[number]]
                if replicas is not None:
                    words += replicas.commands(keys[group[0][0]])
                try:
                    begun.append((node, group, node.start(pack(*words)), len(words)))
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    self._fail(node, group, error, answers)
            while begun:
                node, group, connection, count = begun.pop()
                try:
                    self._sort(group, node.finish(connection, count), replicas, answers)
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    self._fail(node, group, error, answers)
        finally:
            for node, _, connection, _ in begun:
                node.abandon(connection)

    def _sort(self, group: _Group, received: list[Any], replicas: Replicas | None, answers: list[Any]) -> None:
        """Put what one server answered where it belongs."""
        try:
            remaining = iter(received if replicas is None else replicas.judge(received))
        except RedisError as error:
            for number, _ in group:
                answers[number] = error
            return
        for number, asking in group:
            if asking:
                next(remaining)
            answers[number] = next(remaining)

    def _fail(self, node: Node, group: _Group, error: Exception, answers: list[Any]) -> None:
        self.lose(node)
        for number, _ in group:
            answers[number] = error

    def _redirected(self, groups: dict[Node, _Group], answers: list[Any]) -> dict[Node, _Group]:
        """Return where to send the commands that were refused because their keys are elsewhere, and so did nothing."""
        again: dict[Node, _Group] = {}
        wait = False
        for node, group in groups.items():
            for number, _ in group:
                answer = answers[number]
                if isinstance(answer, MovedError):
                    address = Address(answer.host or node.address.host, answer.port)
                    self._map.move(answer.slot_id, address)
                    self._is_stale = True
                    again.setdefault(self._node(address), []).append((number, False))
                elif isinstance(answer, AskError):
                    address = Address(answer.host or node.address.host, answer.port)
                    again.setdefault(self._node(address), []).append((number, True))
                elif isinstance(answer, TryAgainError):
                    wait = True
                    again.setdefault(node, []).append((number, False))
                elif isinstance(answer, ClusterDownError) or is_demoted(answer):
                    self._is_stale = True
        if wait:
            time.sleep(_TRY_AGAIN_SECONDS)
        return again

    # -- who holds what ------------------------------------------------------------------------------------------------

    def _holder(self, slot: int) -> Node:
        address = self._map.holder(slot)
        if address is None:
            self._is_stale = True
            raise ClusterDownError(f"no server holds slot {slot}")
        return self._node(address)

    def _node(self, address: Address) -> Node:
        return self._nodes.get(address) or self._nodes.setdefault(address, Node(address, self._pool(address)))

    def _refresh(self) -> None:
        """Ask the cluster if there were signs of a change; the server that has just failed is asked last."""
        if not self._is_stale:
            return
        self._is_stale = False  # first, so that other threads go on with what is known
        failed, self._failed = self._failed, None
        candidates = list(dict.fromkeys((*self._map.holders, *self._map.replicas, *self._seeds)))
        candidates.sort(key=lambda address: address == failed)
        reasons = []
        for address in candidates:
            try:
                self._map = self._read_map(address)
            except RedisError as error:
                reasons.append(f"{address}: {error}")
            else:
                self._forget_strangers()
                return
        self._is_stale = True
        raise redis.ConnectionError(f"no server of the cluster tells who holds what: {'; '.join(reasons)}")

    def _read_map(self, address: Address) -> "_Map":
        (rows,) = self._node(address).ask(pack(("CLUSTER", "SLOTS")), 1)
        if isinstance(rows, Exception):
            raise rows
        if not rows:
            raise ResponseError("the cluster has no slots")
        spans, replicas = [], []
        for first, last, primary, *others in rows:
            spans.append((first, last, self._address(primary, address)))
            replicas += [self._address(other, address) for other in others]
        return _Map(spans, replicas)

    def _address(self, row: Sequence[Any], asked: Address) -> Address:
        # A server that does not know its own name leaves it out: it is the one that was asked.
        host = row[0].decode() if isinstance(row[0], bytes) else row[0]
        return Address(host if host and host != "?" else asked.host, int(row[1]))

    def _forget_strangers(self) -> None:
        known = {*self._map.holders, *self._map.replicas, *self._seeds}
        for address in tuple(self._nodes):
            if address not in known:
                node = self._nodes.pop(address, None)
                if node is not None:
                    node.drop_idle()


class _Map:
    """Spans of slots and their holders."""

    def __init__(self, spans: Sequence[tuple[int, int, Address]], replicas: Sequence[Address]) -> None:
        ordered = sorted(spans)
        self._firsts = [first for first, _, _ in ordered]
        self._spans = ordered
        self._moved: dict[int, Address] = {}
        self.holders = tuple(dict.fromkeys(address for _, _, address in ordered))
        self.replicas = tuple(dict.fromkeys(replicas))

    def holder(self, slot: int) -> Address | None:
        moved = self._moved.get(slot)
        if moved is not None:
            return moved
        at = bisect_right(self._firsts, slot) - 1
        if at < 0 or slot > self._spans[at][1]:
            return None
        return self._spans[at][2]

    def move(self, slot: int, address: Address) -> None:
        self._moved[slot] = address
