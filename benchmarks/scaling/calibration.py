"""What an execution costs each process that has to do with it, measured with real servers and a real worker."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import psycopg
import redis

from benchmarks.agents import none, ten
from benchmarks.executions.counting import CommandCount
from benchmarks.executions.cpu import cpu_of
from benchmarks.executions.on_celery import Agents
from benchmarks.executions.ways import Makers
from benchmarks.scaling.simulation import Costs
from benchmarks.servers import EverysecRedis, Servers
from celery_agents.decorators import Agent
from tests.services.postgresql import driver_url
from tests.services.redis import find_redis

_STEPS: Final = 10
_LOG_PAGE_BYTES: Final = 8192
_SETTLING_SECONDS: Final = 3.0
_TOLD_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Spent:
    """What was spent until a moment: CPU seconds of each process, calls of the store, and seconds."""

    producer: float
    parent: float
    children: float
    broker: float
    store: float
    calls: float
    seconds: float

    def since(self, earlier: "_Spent", executions: int) -> "_Spent":
        """Return what each execution has cost since then."""
        return _Spent(*((getattr(self, n) - getattr(earlier, n)) / executions for n in self.__slots__))


class StoreServer:
    """The server of a store, asked what it has done so far.

    `counted_at_rest` says whether `calls` has those too that a worker makes at rest.
    """

    counted_at_rest = True

    def cpu_seconds(self) -> float:
        """Return the CPU that it has used."""
        raise NotImplementedError

    def calls(self) -> float:
        """Return how many calls it has had: scripts, or transactions that write."""
        raise NotImplementedError

    def asked_during(self, seconds: float) -> float:
        """Wait, and return how many calls of any kind it has had meanwhile."""
        raise NotImplementedError

    def size_bytes(self) -> int:
        """Return what it keeps."""
        raise NotImplementedError


class RedisStoreServer(StoreServer):
    """A Redis that holds nothing but the store."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = redis.Redis.from_url(url)

    def cpu_seconds(self) -> float:
        said = self._client.info("cpu")
        return float(said["used_cpu_user"] + said["used_cpu_sys"])

    def calls(self) -> float:
        return float(self._client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def asked_during(self, seconds: float) -> float:
        with CommandCount(self._url) as count:
            time.sleep(seconds)
        return count.counted.total()

    def size_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])


class PostgreSQLStoreServer(StoreServer):
    """A PostgreSQL that only the store uses meanwhile. Its processes must not come and go between two questions."""

    counted_at_rest = False

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        backend = psutil.Process(self._connection.info.backend_pid)
        postmaster = backend.parent()
        assert postmaster is not None
        self._postmaster = postmaster

    def cpu_seconds(self) -> float:
        return sum(cpu_of(each) for each in [self._postmaster, *self._postmaster.children()])

    def calls(self) -> float:
        return float(self._ask("SELECT pg_current_xact_id()::text"))

    def asked_during(self, seconds: float) -> float:
        before = self._transactions()
        time.sleep(seconds)
        return self._transactions() - before - 1

    def _transactions(self) -> float:
        # A backend tells of its last transactions when it begins another one a second later, or after ten seconds.
        time.sleep(_TOLD_SECONDS)
        return float(self._ask("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))

    def size_bytes(self) -> int:
        self._connection.execute("CHECKPOINT")
        return int(self._ask("SELECT pg_database_size(current_database())"))

    def _ask(self, question: str) -> Any:
        row = self._connection.execute(question.encode()).fetchone()
        assert row is not None
        return row[0]


@contextmanager
def store_servers(servers: Servers) -> Iterator[dict[str, tuple[str, StoreServer]]]:
    """Yield, for each kind of store, the URL of an empty one and its server. Redis gets a server beside the broker."""
    with ExitStack() as stack:
        program = find_redis()
        assert program is not None
        redis_url = stack.enter_context(EverysecRedis(program)).start().url
        postgresql_url = servers.store_url("PostgreSQL")
        connection = stack.enter_context(psycopg.connect(_plain(postgresql_url), autocommit=True))
        yield {
            "Redis": (redis_url, RedisStoreServer(redis_url)),
            "PostgreSQL": (postgresql_url, PostgreSQLStoreServer(connection)),
        }


def _plain(url: str) -> str:
    return driver_url(url).partition("?")[0]


def calibrate(servers: Servers, url: str, server: StoreServer, executions: int, rounds: int, at_rest: float) -> Costs:
    """Measure with one worker (prefork 2, results and events off), as medians of rounds.

    `at_rest` are the calls a second that the worker makes anyhow. They do not count.
    """
    with ExitStack() as stack:
        way = Makers(servers, stack).alike(url, ("prefork", 2))
        way.finish()
        way.freeze()
        broker = RedisStoreServer(servers.redis_url(0))

        def spent() -> _Spent:
            (worker,) = way.workers
            parent = psutil.Process(worker.pid)
            return _Spent(
                producer=time.process_time(),
                parent=cpu_of(parent),
                children=sum(map(cpu_of, parent.children(recursive=True))),
                broker=broker.cpu_seconds(),
                store=server.cpu_seconds(),
                calls=server.calls(),
                seconds=time.perf_counter(),
            )

        measured: dict[str, list[_Spent]] = {"enqueue": [], "none": [], "ten": []}
        for number in range(rounds + 1):
            for name, agent in (("none", none), ("ten", ten)):
                enqueueing, working = _round(way, agent, executions, spent)
                if number:  # the first is the warm-up
                    measured["enqueue"].append(enqueueing)
                    measured[name].append(working)
    enqueue, fixed, long = (_medians(measured[name]) for name in ("enqueue", "none", "ten"))
    fixed_calls, long_calls = (each.calls - server.counted_at_rest * at_rest * each.seconds for each in (fixed, long))
    return Costs(
        enqueue_calls=enqueue.calls,
        fixed_calls=fixed_calls,
        step_calls=(long_calls - fixed_calls) / _STEPS,
        call=(enqueue.store + long.store) / (enqueue.calls + long.calls),
        producer=enqueue.producer,
        parent=fixed.parent,
        child=fixed.children,
        child_step=max(0.0, (long.children - fixed.children) / _STEPS),
        broker=enqueue.broker + fixed.broker,
        flush=0.0,
    )


def _round(way: Agents, agent: Agent, executions: int, spent: Callable[[], _Spent]) -> tuple[_Spent, _Spent]:
    """Return what enqueueing cost while the worker stood still, and what the work cost, for each execution."""
    send = way.enqueue(agent)
    before = spent()
    for _ in range(executions):
        send()
    between = spent()
    way.thaw()
    way.reach_end()
    after = spent()
    way.finish()
    way.freeze()
    return between.since(before, executions), after.since(between, executions)


def _medians(spent: Sequence[_Spent]) -> _Spent:
    return _Spent(*(median(getattr(each, name) for each in spent) for name in _Spent.__slots__))


def flush_seconds(folder: Path, flushes: int) -> float:
    """Return the median time in which a page that was appended to a file here is on the disk."""
    path = folder / "flushed"
    times: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(flushes):
            file.write(b"\0" * _LOG_PAGE_BYTES)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return median(times)


def calls_at_rest(servers: Servers, url: str, server: StoreServer, workers: int, seconds: float) -> float:
    """Return how many calls a second so many workers make together while there is nothing to do."""
    with ExitStack() as stack:
        makers = Makers(servers, stack)
        ways = [makers.alike(url, ("solo", 1)) for _ in range(workers)]
        for way in ways:
            way.finish()
        time.sleep(_SETTLING_SECONDS)
        return server.asked_during(seconds) / seconds
