"""A Redis Cluster of the tests' own, each node a process."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from redis import Redis, RedisError
from redis.crc import key_slot

from tests.services.commands import wait_until
from tests.services.process import free_port
from tests.services.redis import RedisServer

MASTERS = 3
SLOTS = 16384
FORMING_SECONDS = 60.0
FAIL_OVER_SECONDS = 60.0


class ClusterNode(RedisServer):
    """One node. A node without an answer for `node_timeout_ms` is taken for dead, and replaced if it has a replica."""

    def __init__(self, binary: str, *, node_timeout_ms: int, durable: bool = False) -> None:
        super().__init__(binary, durable=durable)
        self.node_timeout_ms = node_timeout_ms
        self.bus_port = 0
        self._port_of_bus: int | None = None

    def command(self, port: int) -> list[str]:
        # By default the nodes talk on port + 10000, which many a free port does not have above it.
        if self._port_of_bus != port:
            self._port_of_bus, self.bus_port = port, free_port()
        return [
            *super().command(port),
            *("--cluster-enabled", "yes"),
            *("--cluster-config-file", "nodes.conf"),
            *("--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(self.node_timeout_ms)),
            # A replica may take over however long it has not heard from its master.
            *("--cluster-replica-validity-factor", "0"),
            # A new replica gets its data at once; the default waits five seconds for further replicas.
            *("--repl-diskless-sync-delay", "0"),
            # A replica is not listed before it has received something, which in an empty cluster is the first ping.
            *("--repl-ping-replica-period", "1"),
        ]

    def client(self) -> Redis:
        """A client of this node alone."""
        return Redis(port=self.port or 0, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)


class RedisCluster:
    """Three masters that share the slots, each with `replicas` replicas. `nodes` are the first masters, then the rest.

    An acknowledged write is lost when its master is killed before it reached the replica; a test that must not lose it
    sends WAIT.
    """

    def __init__(self, binary: str, *, replicas: int = 0, durable: bool = False) -> None:
        # Without a replica nothing can be won by noticing a death early, and a busy machine is slow at times.
        timeout = 1500 if replicas else 15_000
        count = MASTERS * (1 + replicas)
        self.nodes = [ClusterNode(binary, node_timeout_ms=timeout, durable=durable) for _ in range(count)]

    @property
    def url(self) -> str:
        """All nodes, the running and the killed ones: any running one tells a client about the others."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> Self:
        """Makes a cluster of the nodes, and returns when all slots are served and all replicas are in sync."""
        for node in self.nodes:
            node.start()
        ids = [_ask(node, "CLUSTER", "MYID") for node in self.nodes]
        for number, node in enumerate(self.nodes):
            # Each master an epoch of its own, as redis-cli does, so that none of their claims to slots collide.
            _ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes[:MASTERS]):
            first, end = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            _ask(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, node in enumerate(self.nodes):
            for other in self.nodes[:number]:
                _ask(node, "CLUSTER", "MEET", "127.0.0.1", other.port or 0, other.bus_port)
        for number, node in enumerate(self.nodes[MASTERS:]):
            wait_until("a replica knows its master", partial(_replicates, node, ids[number % MASTERS]))
        self.wait_until_healthy(seconds=FORMING_SECONDS)
        return self

    @property
    def running(self) -> list[ClusterNode]:
        """The nodes that have not been killed."""
        return [node for node in self.nodes if node.is_running]

    def master_of(self, key: str | bytes) -> ClusterNode:
        """The node that serves a key, as the cluster sees it now; it may have been killed a moment ago."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for node in self.running:
            for part in _ranges(node):
                if part.first <= slot <= part.last:
                    return next(one for one in self.nodes if one.port == part.master)
        raise LookupError(f"no running node knows who serves slot {slot}")

    def replicas_of(self, master: ClusterNode) -> list[ClusterNode]:
        """The running replicas of a running master."""
        ports = {port for part in _ranges(master) if part.master == master.port for port in part.replicas}
        return [node for node in self.running if node.port in ports]

    def kill(self, node: ClusterNode) -> None:
        """Kills a node; the cluster notices some seconds later."""
        node.kill()

    def kill_master_of(self, key: str | bytes) -> ClusterNode:
        """Kills the node that serves a key, and returns it."""
        node = self.master_of(key)
        self.kill(node)
        return node

    def restart(self, node: ClusterNode) -> None:
        """Starts a killed node, or a running one anew, at the same place. It may come back as a replica."""
        node.restart()

    def wait_until_healthy(self, *, seconds: float = FAIL_OVER_SECONDS) -> None:
        """Waits until all running nodes agree that running masters serve all slots, and all replicas are in sync."""
        wait_until("the cluster is healthy", self._is_healthy, seconds=seconds)

    def _is_healthy(self) -> bool:
        running = self.running
        try:
            if any("cluster_state:ok" not in _ask(node, "CLUSTER", "INFO") for node in running):
                return False
            views = [_ranges(node) for node in running]
            masters = {part.master for part in views[0]}
            replicas = {port for part in views[0] for port in part.replicas}
            return (
                all(view == views[0] for view in views)
                and sum(part.last - part.first + 1 for part in views[0]) == SLOTS
                # A node that is known to be dead is in nobody's list, one whose death is still unknown is.
                and masters | replicas == {node.port for node in running}
                and all(_is_in_sync(node, is_master=node.port in masters) for node in running)
            )
        except RedisError:
            return False

    def close(self) -> None:
        """Kills the nodes and removes their folders."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _ask(node: ClusterNode, *command: str | int) -> Any:
    # In words of its own, "CLUSTER", "SLOTS", a command is answered as the server does, in every version of the driver.
    with closing(node.client()) as client:
        return client.execute_command(*command)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Range:
    """Who serves a range of slots, in the eyes of a node."""

    first: int
    last: int
    master: int
    replicas: frozenset[int]


def _ranges(node: ClusterNode) -> list[_Range]:
    told = sorted(_ask(node, "CLUSTER", "SLOTS"), key=lambda entry: entry[0])
    return [
        _Range(first=first, last=last, master=master[1], replicas=frozenset(replica[1] for replica in replicas))
        for first, last, master, *replicas in told
    ]


def _replicates(node: ClusterNode, master_id: str) -> bool:
    try:
        _ask(node, "CLUSTER", "REPLICATE", master_id)
    except RedisError:  # the two have not shaken hands yet
        return False
    return True


def _is_in_sync(node: ClusterNode, *, is_master: bool) -> bool:
    with closing(node.client()) as client:
        told = client.info("replication")
    return told["role"] == ("master" if is_master else "slave") and (is_master or told["master_link_status"] == "up")
