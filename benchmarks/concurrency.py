"""Hundreds of executions that wait on the network in one process, against a bare asyncio program and bare Celery."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import redis
from celery import Celery

from agent_statestore.query import Query
from agent_statestore.states import ACTIVE
from benchmarks.measuring import Turn, percentile, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.slow_server import slow_server
from benchmarks.waiting import Waits, waits
from benchmarks.workers import ROOT, Worker
from celery_agents.current import enqueue
from celery_agents.host.install import install
from celery_agents.host.runtime import Runtime, runtime_of

# Databases of the Redis server. The section `workers` uses the first ones.
_AGENTS_BROKER, _BARE_BROKER, _RESULTS, _STAMPS = 6, 7, 8, 9
_STORES: Final = ("Redis", "PostgreSQL", "SQLite NORMAL")
_WAIT_SECONDS: Final = 120
_LOOK_SECONDS: Final = 0.05


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure the seconds, memory and event-loop lag of this many executions at once."""
    count, seconds, steps = sizes.concurrent, sizes.concurrent_seconds, sizes.concurrent_steps
    ideal = steps * seconds
    with ExitStack() as stack:
        url = stack.enter_context(slow_server())
        work = Waits(url=url, seconds=seconds, steps=steps)
        bare = _Bare(stack, servers, count)
        programs: dict[str, _Program] = {"asyncio": _Asyncio(), "Celery tasks": bare}
        programs |= {f"agents, {name}": _Agents(stack, servers, count, name) for name in _STORES}
        turns: dict[str, Turn] = {name: _turn(program, work, count) for name, program in programs.items()}
        measured = take_turns(turns, sizes.concurrent_rounds)
    rows: list[dict[str, Value]] = [
        {
            "program": name,
            "seconds": measured.median(name),
            "executions, /s": count / measured.median(name),
            "seconds / ideal": measured.median(name) / ideal,
            "seconds / asyncio": measured.ratio(name, "asyncio"),
            "seconds / Celery tasks": measured.ratio(name, "Celery tasks"),
            "CPU each, ms": program.seen.cpu_seconds / program.seen.done * 1e3,
            "memory, MB": program.seen.rss_bytes / 1e6,
            **{
                f"lag {label}, ms": percentile(program.seen.lags, share) * 1e3 if program.seen.lags else None
                for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
        }
        for name, program in programs.items()
    ]
    return [
        Table(
            name="concurrency",
            title=f"{count} executions at once of {steps} steps that each wait {seconds:g} s for a local HTTP server",
            note=(
                f"Ideal: {ideal:g} s. Agents: async ones on one worker with `-P threads -c {count}`, from a full queue "
                "to the last end. Celery tasks: the same requests in plain tasks on such a worker, a thread each. CPU: "
                "of the process, for each execution. Memory: the most that the process had. Lag: how late a timer of "
                "the event loop was."
            ),
            rows=rows,
        )
    ]


@dataclass(slots=True)
class _Seen:
    """The figures of a program over all its turns."""

    done: int = 0
    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    lags: list[float] = field(default_factory=list)


class _Program:
    """One way to do the waits."""

    def __init__(self) -> None:
        self.seen = _Seen()

    def run(self, work: Waits, count: int) -> float:
        """Do all of them, and return how many seconds it took."""
        raise NotImplementedError


def _turn(program: _Program, work: Waits, count: int) -> Turn:
    def turn() -> list[float]:
        program.seen.done += count
        return [program.run(work, count)]

    return turn


class _Asyncio(_Program):
    """Coroutines in a separate process."""

    def run(self, work: Waits, count: int) -> float:
        command = [sys.executable, "-m", "benchmarks.waiting", work.url, str(work.seconds), str(work.steps), str(count)]
        said = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        self.seen.rss_bytes = max(self.seen.rss_bytes, said["rss_bytes"])
        self.seen.cpu_seconds += said["cpu_seconds"]
        self.seen.lags += said["lags"]
        return float(said["seconds"])


class _OnWorker(_Program):
    """A worker with this many threads, frozen unless it is its turn."""

    def __init__(self, stack: ExitStack, servers: Servers, broker: int, worker: Worker) -> None:
        super().__init__()
        self._worker = stack.enter_context(worker)
        self._stamps_url = servers.redis_url(_STAMPS)
        self._redis: Any = stack.enter_context(redis.Redis.from_url(self._stamps_url))
        self.app = Celery("client", broker=servers.redis_url(broker), set_as_current=False)

    def _until(self, is_done: Callable[[], bool]) -> float:
        """Let the worker work until `is_done`, and return after how many seconds that was."""
        process, started = psutil.Process(self._worker.pid), time.perf_counter()
        cpu_before = sum(process.cpu_times()[:2])
        self._worker.thaw()
        while not is_done():
            self._worker.check()
            self.seen.rss_bytes = max(self.seen.rss_bytes, process.memory_info().rss)
            if time.perf_counter() - started > _WAIT_SECONDS:
                raise RuntimeError(f"a worker does not come to the end of its work:\n{self._worker.log()[-3000:]}")
            time.sleep(_LOOK_SECONDS)
        self.seen.cpu_seconds += sum(process.cpu_times()[:2]) - cpu_before
        return time.perf_counter() - started

    def _count(self, key: str) -> int:
        return int(self._redis.llen(key))


class _Bare(_OnWorker):
    """Plain tasks."""

    def __init__(self, stack: ExitStack, servers: Servers, count: int) -> None:
        _flush(servers, _BARE_BROKER, _STAMPS)
        environ = {"BENCHMARK_BROKER_URL": servers.redis_url(_BARE_BROKER)}
        super().__init__(
            stack, servers, _BARE_BROKER, Worker("benchmarks.bare_waiting", "threads", count, environ, servers.folder)
        )

    def run(self, work: Waits, count: int) -> float:
        self._redis.delete("waited")
        for _ in range(count):
            self.app.send_task("benchmarks.wait", (work.url, work.seconds, work.steps, self._stamps_url, "waited"))
        taken = self._until(lambda: self._count("waited") >= count)
        self._worker.freeze()
        return taken


class _Agents(_OnWorker):
    """Executions of an async agent, kept in one kind of store."""

    def __init__(self, stack: ExitStack, servers: Servers, count: int, store: str) -> None:
        _flush(servers, _AGENTS_BROKER, _RESULTS)
        store_url, queue = servers.store_url(store), f"agents {store}"
        environ = {
            "AGENTS_BROKER_URL": servers.redis_url(_AGENTS_BROKER),
            "AGENTS_RESULT_BACKEND": servers.redis_url(_RESULTS),
            "AGENTS_STORE_URL": store_url,
            "AGENTS_IMPORTS": "benchmarks.waiting",
            "AGENTS_EVENTS": "false",
        }
        worker = Worker("celery_agents", "threads", count, environ, servers.folder, queue=queue)
        super().__init__(stack, servers, _AGENTS_BROKER, worker)
        self._queue = queue
        self.app.conf.update(result_backend=servers.redis_url(_RESULTS), agents_store_url=store_url, agents_queue=queue)
        install(self.app)
        self._runtime: Runtime = runtime_of(self.app)
        stack.callback(self._runtime.store.close)

    def run(self, work: Waits, count: int) -> float:
        self._redis.delete("lags")
        for _ in range(count):
            enqueue(waits, work, runtime=self._runtime)
        self.app.send_task("benchmarks.lags", (self._stamps_url, "old lags"), queue=self._queue)
        taken = self._until(lambda: not self._runtime.store.find(Query(states=ACTIVE, limit=1)).items)
        self.app.send_task("benchmarks.lags", (self._stamps_url, "lags"), queue=self._queue)
        self._until(lambda: self._count("lags") > 0)
        self._worker.freeze()
        self.seen.lags += json.loads(self._redis.lpop("lags"))
        return taken


def _flush(servers: Servers, *databases: int) -> None:
    for database in databases:
        with redis.Redis.from_url(servers.redis_url(database)) as client:
            client.flushdb()
