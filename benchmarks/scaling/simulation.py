"""Fleets of workers on several stores, played event by event with measured costs.

Producers and workers are on machines of their own and never lack a core. What they share makes them wait: the broker,
the servers of the store, and the disk that each PostgreSQL flushes its log to.
"""

import heapq
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final

import simpy
from redis.crc import key_slot

from agent_statestore.redis.keys import PARTITIONS

SLOTS: Final = 2  # of each worker: prefork 2
_HASH_SLOTS: Final = 16384

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured. Seconds of CPU unless said otherwise.

    `enqueue_calls`, `fixed_calls` and `step_calls` are calls of the store: to enqueue, to work on an execution without
    steps, and for each step. `call` is what each costs the store's server. `producer`, `parent`, `child` and
    `child_step` are those of the clients' processes; `broker` is for each message. `flush` is how long a flush of
    PostgreSQL's log takes, 0 for Redis.
    """

    enqueue_calls: float
    fixed_calls: float
    step_calls: float
    call: float
    producer: float
    parent: float
    child: float
    child_step: float
    broker: float
    flush: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is played: so many workers, and as many producers as they can serve, on so many servers of a store.

    `brokers` are single Redis servers; the executions of a server of the store always use the same one. `cores` are
    those of each server of the store: 1 for Redis. `by_partition` places an execution as Redis Cluster
    does: by the hash slot of its partition; otherwise any server is as likely. `network_seconds` are a round trip's.
    """

    workers: int
    servers: int
    brokers: int = 1
    cores: int
    steps: int
    by_partition: bool
    network_seconds: float = 0.0003


@dataclass(frozen=True, slots=True)
class Played:
    """Executions per second, and the share of the time that each shared thing was busy; of several, the busiest.

    A disk is not among them: a flush takes its time however many share it.
    """

    per_second: float
    busy: dict[str, float]


class _Server:
    """Serves in the order of arrival, `cores` at once."""

    def __init__(self, environment: simpy.Environment, cores: int = 1) -> None:
        self._environment = environment
        self._free_at = [0.0] * cores
        self.busy_seconds = 0.0

    def serve(self, seconds: float) -> simpy.Event:
        """Return the event of having been served."""
        now: float = self._environment.now
        ended = max(now, heapq.heappop(self._free_at)) + seconds
        heapq.heappush(self._free_at, ended)
        self.busy_seconds += seconds
        return self._environment.timeout(ended - now)

    def busy(self, until: float) -> float:
        """Return the share of the time that its cores were busy."""
        return min(1.0, self.busy_seconds / len(self._free_at) / until)  # what waits is reckoned already


class Log:
    """A log on a disk. All that arrives during a flush shares the next one (group commit)."""

    def __init__(self, environment: simpy.Environment, flush_seconds: float) -> None:
        self._environment = environment
        self._flush_seconds = flush_seconds
        self._ends = self._next_ends = 0.0

    def flush(self) -> simpy.Event:
        """Return the event of being on the disk."""
        now: float = self._environment.now
        if now >= self._next_ends:  # the disk is at rest
            self._ends = self._next_ends = now + self._flush_seconds
        elif now >= self._ends or self._ends == self._next_ends:  # a flush is under way, without this one
            self._ends, self._next_ends = self._next_ends, self._next_ends + self._flush_seconds
        return self._environment.timeout(self._next_ends - now)


class _Play:
    def __init__(self, costs: Costs, fleet: Fleet, seed: int) -> None:
        self._costs = costs
        self._fleet = fleet
        self._random = random.Random(seed)
        self._environment = simpy.Environment()
        self._brokers = [_Server(self._environment) for _ in range(fleet.brokers)]
        self._servers = [_Server(self._environment, fleet.cores) for _ in range(fleet.servers)]
        self._logs = [Log(self._environment, costs.flush) for _ in range(fleet.servers)]
        self._parents = [_Server(self._environment) for _ in range(fleet.workers)]
        self._producers_seconds = 0.0
        self._children_seconds = 0.0
        self._queue = simpy.Store(self._environment, capacity=fleet.workers * SLOTS)
        self._ended_at: list[float] = []

    def run(self, executions: int) -> Played:
        """Play until so many have ended. The first fifth does not count: it fills the queue."""
        producers = self._fleet.workers * SLOTS
        for _ in range(producers):
            self._environment.process(self._produce())
        for worker in range(self._fleet.workers):
            for _ in range(SLOTS):
                self._environment.process(self._work(self._parents[worker]))
        while len(self._ended_at) < executions:
            self._environment.step()
        warm = executions // 5
        until: float = self._environment.now
        busy = {
            "workers' parents": max(parent.busy(until) for parent in self._parents),
            "workers' children": self._children_seconds / until / (self._fleet.workers * SLOTS),
            "broker": max(broker.busy(until) for broker in self._brokers),
            "store's CPU": max(server.busy(until) for server in self._servers),
        }
        return Played((executions - warm) / (self._ended_at[-1] - self._ended_at[warm - 1]), busy)

    def _produce(self) -> Steps:
        while True:
            server = self._server_of_new()
            yield self._environment.timeout(self._some(self._costs.producer))
            yield from self._calls(self._costs.enqueue_calls, server)
            yield self._broker_of(server).serve(self._some(self._costs.broker / 2))
            yield self._queue.put(server)

    def _work(self, parent: _Server) -> Steps:
        costs = self._costs
        while True:
            server = yield self._queue.get()
            yield self._broker_of(server).serve(self._some(costs.broker / 2))
            yield parent.serve(self._some(costs.parent))
            yield from self._child(costs.child)
            yield from self._calls(costs.fixed_calls, server)
            for _ in range(self._fleet.steps):
                yield from self._child(costs.child_step)
                yield from self._calls(costs.step_calls, server)
            self._ended_at.append(self._environment.now)

    def _child(self, mean: float) -> Steps:
        seconds = self._some(mean)
        self._children_seconds += seconds
        yield self._environment.timeout(seconds)

    def _calls(self, mean: float, server: int) -> Steps:
        """Make so many calls; of a broken number, the rest is made that often."""
        whole, rest = divmod(mean, 1)
        for _ in range(int(whole) + (self._random.random() < rest)):
            yield self._environment.timeout(self._fleet.network_seconds)
            yield self._servers[server].serve(self._some(self._costs.call))
            if self._costs.flush:
                yield self._logs[server].flush()

    def _some(self, mean: float) -> float:
        """Return seconds around the mean, as calls take in practice."""
        return self._random.expovariate(1 / mean) if mean else 0.0

    def _broker_of(self, server: int) -> _Server:
        return self._brokers[server % len(self._brokers)]

    def _server_of_new(self) -> int:
        if not self._fleet.by_partition:
            return self._random.randrange(self._fleet.servers)
        return node_of(self._random.randrange(PARTITIONS), self._fleet.servers)


def node_of(partition: int, nodes: int) -> int:
    """Return the node of a Redis Cluster that holds a partition; the nodes hold equal ranges of hash slots."""
    return int(key_slot(f"{{p{partition:02d}}}".encode())) * nodes // _HASH_SLOTS


def play(costs: Costs, fleet: Fleet, *, executions: int, seed: int = 1) -> Played:
    """Play a fleet until so many executions have ended."""
    return _Play(costs, fleet, seed).run(executions)
