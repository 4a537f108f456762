"""Executions per second on real workers, against bare Celery tasks on a bare worker."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

import redis
from celery import Celery

from agent_statestore.query import Query
from agent_statestore.states import ACTIVE
from benchmarks.agents import one, ten
from benchmarks.measuring import Turn, percentile, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.workers import Worker
from celery_agents.current import enqueue
from celery_agents.decorators import Agent
from celery_agents.host.install import install
from celery_agents.host.runtime import Runtime, runtime_of

# Databases of the Redis server.
_AGENTS_BROKER, _BARE_BROKER, _RESULTS, _STAMPS = 0, 1, 4, 5

_PACE_SECONDS: Final = 0.015
_WAIT_SECONDS: Final = 60


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure drained executions per second and latency, for each pool and store."""
    drained: list[dict[str, Value]] = []
    latencies: list[dict[str, Value]] = []
    for pool, concurrency in sizes.pools:
        for name, events in sizes.worker_stores:
            with _Scene(servers, pool, concurrency, name, events) as scene:
                drained.append(scene.throughput(sizes))
                latencies.append(scene.latency(sizes))
    return [
        Table(
            name="workers",
            title="Executions per second on `celery -A celery_agents worker` (Redis broker), against a bare no-op",
            note=(
                "Drained from a full queue, in turns. Bare no-op and bare write (one raw Redis write of 2 KB): a bare "
                "worker without events and results. App no-op: a no-op in the agents' app, which sends Celery's events "
                "and stores results. Enqueue: create, publish and mark, against publishing the no-op."
            ),
            rows=drained,
        ),
        Table(
            name="latency",
            title="From before enqueue to the start of the first step, ms",
            note="One every 15 ms. Bare: a task on the bare worker, from before it is sent to its start.",
            rows=latencies,
        ),
    ]


class _Scene:
    """A bare worker and a worker that runs agents, each frozen unless it is its turn."""

    def __init__(self, servers: Servers, pool: str, concurrency: int, store_name: str, events: bool) -> None:
        self._label = f"{pool} {concurrency}, {store_name}{', events' if events else ''}"
        self._stamps_url = servers.redis_url(_STAMPS)
        self._raw_url = servers.redis_url(2)
        self._store_url = store_url = servers.store_urls()[store_name]
        self._stack = ExitStack()
        self._redis: Any = self._stack.enter_context(redis.Redis.from_url(self._stamps_url))
        for database in (_AGENTS_BROKER, _BARE_BROKER, _RESULTS, _STAMPS):
            with redis.Redis.from_url(servers.redis_url(database)) as client:
                client.flushdb()
        self._bare_app = Celery("bare", broker=servers.redis_url(_BARE_BROKER), set_as_current=False)
        self._app = Celery(
            "agents",
            broker=servers.redis_url(_AGENTS_BROKER),
            backend=servers.redis_url(_RESULTS),
            set_as_current=False,
        )
        self._app.conf.update(agents_store_url=store_url, accept_content=["json"], task_send_sent_event=True)
        install(self._app)
        self._runtime: Runtime = runtime_of(self._app)
        self._stack.callback(self._runtime.store.close)
        environ = {
            "AGENTS_BROKER_URL": servers.redis_url(_AGENTS_BROKER),
            "AGENTS_RESULT_BACKEND": servers.redis_url(_RESULTS),
            "AGENTS_STORE_URL": store_url,
            "AGENTS_IMPORTS": "benchmarks.agents,benchmarks.tasks",
            "AGENTS_EVENTS": str(events).lower(),
        }
        bare_environ = {"BENCHMARK_BROKER_URL": servers.redis_url(_BARE_BROKER)}
        self._bare = self._stack.enter_context(
            Worker("benchmarks.bare", pool, concurrency, bare_environ, servers.folder)
        )
        self._agents = self._stack.enter_context(Worker("celery_agents", pool, concurrency, environ, servers.folder))

    def __enter__(self) -> "_Scene":
        try:
            for worker, app in ((self._bare, self._bare_app), (self._agents, self._app)):
                self._finish(worker, app)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def throughput(self, sizes: Sizes) -> dict[str, Value]:
        """Measure how many are drained per second."""
        count, bare, agents = sizes.executions, (self._bare, self._bare_app), (self._agents, self._app)
        sent: dict[str, list[float]] = {"noop": [], "one": []}
        noop, write = self._sends("benchmarks.noop"), self._sends("benchmarks.write", self._raw_url)
        turns: dict[str, Turn] = {
            "noop": self._drains(*bare, noop, count, sent["noop"]),
            "write": self._drains(*bare, write, count, []),
            "app noop": self._drains(*agents, noop, count, []),
            "one": self._drains(*agents, self._enqueues(one), count, sent["one"]),
            "ten": self._drains(*agents, self._enqueues(ten), sizes.long_executions, []),
        }
        measured = take_turns(turns, sizes.drain_rounds)
        self._check_all_over()
        return {
            "pool, store": self._label,
            "no-op, /s": 1 / measured.median("noop"),
            "write / no-op": measured.rate_ratio("write", "noop"),
            "app no-op / no-op": measured.rate_ratio("app noop", "noop"),
            "1 step, /s": 1 / measured.median("one"),
            "1 step / no-op": measured.rate_ratio("one", "noop"),
            "1 step / app no-op": measured.rate_ratio("one", "app noop"),
            "10 steps, /s": 1 / measured.median("ten"),
            "10 steps / no-op": measured.rate_ratio("ten", "noop"),
            "enqueue / publish": median(sent["one"]) / median(sent["noop"]),
        }

    def latency(self, sizes: Sizes) -> dict[str, Value]:
        """Measure how long it takes until a first step begins."""
        bare_ms, agents_ms = self._bare_latencies(sizes.latencies), self._agent_latencies(sizes.latencies)
        return {
            "pool, store": self._label,
            "bare p50": percentile(bare_ms, 0.5),
            "bare p99": percentile(bare_ms, 0.99),
            "execution p50": percentile(agents_ms, 0.5),
            "execution p99": percentile(agents_ms, 0.99),
            "p50 / bare": percentile(agents_ms, 0.5) / percentile(bare_ms, 0.5),
        }

    def _drains(
        self, worker: Worker, app: Celery, send: Callable[[Celery], None], count: int, sent: list[float]
    ) -> Turn:
        """Return a turn that fills the queue of a frozen worker and lets it go; it measures seconds per task."""

        def turn() -> list[float]:
            started = time.perf_counter()
            for _ in range(count):
                send(app)
            sent.append((time.perf_counter() - started) / count)
            return [self._finish(worker, app) / count]

        return turn

    def _finish(self, worker: Worker, app: Celery) -> float:
        """Let the worker come to the end of its queue, and return how many seconds that took.

        The queue's last messages, one for each slot, tell when the worker reaches them.
        """
        for _ in range(worker.concurrency):
            app.send_task("benchmarks.stamp", (self._stamps_url, "ends", 0.0))
        started = time.perf_counter()
        worker.thaw()
        for _ in range(worker.concurrency):
            deadline = time.monotonic() + _WAIT_SECONDS
            while self._redis.blpop("ends", timeout=1) is None:
                worker.check()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"a worker does not come to the end of its queue:\n{worker.log()[-3000:]}")
        seconds = time.perf_counter() - started
        self._freeze(worker)
        return seconds

    def _freeze(self, worker: Worker) -> None:
        """Freeze a worker at a moment when it does not hold the write lock of its SQLite file."""
        worker.freeze()
        if not self._store_url.startswith("sqlite"):
            return
        path = self._store_url.removeprefix("sqlite:///").partition("?")[0]
        deadline = time.monotonic() + _WAIT_SECONDS
        while worker is self._agents and _is_locked(path):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} stays locked")
            worker.thaw()
            time.sleep(0.01)
            worker.freeze()

    def _sends(self, task: str, *arguments: str) -> Callable[[Celery], None]:
        def send(app: Celery) -> None:
            app.send_task(task, arguments)

        return send

    def _enqueues(self, agent: Agent) -> Callable[[Celery], None]:
        def send(app: Celery) -> None:
            del app
            enqueue(agent, runtime=self._runtime)

        return send

    def _check_all_over(self) -> None:
        """Raise `RuntimeError` unless all executions end: those that do not must not count as done."""
        self._agents.thaw()
        deadline = time.monotonic() + _WAIT_SECONDS
        while left := self._runtime.store.find(Query(states=ACTIVE, limit=1)).items:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not over: {left[0]}\n{self._agents.log()[-3000:]}")
            time.sleep(0.05)
        self._freeze(self._agents)

    def _bare_latencies(self, count: int) -> list[float]:
        self._bare.thaw()
        for _ in range(count):
            self._bare_app.send_task("benchmarks.stamp", (self._stamps_url, "latencies", time.time()))
            time.sleep(_PACE_SECONDS)
        found = [self._redis.blpop("latencies", timeout=_WAIT_SECONDS)[1] for _ in range(count)]
        self._bare.freeze()
        return [json.loads(seconds) * 1e3 for seconds in found]

    def _agent_latencies(self, count: int) -> list[float]:
        self._agents.thaw()
        sent_at = {}
        for _ in range(count):
            now = time.time()
            sent_at[enqueue(one, runtime=self._runtime).id] = now
            time.sleep(_PACE_SECONDS)
        self._check_all_over()
        latencies = []
        for execution_id, moment in sent_at.items():
            (step,) = self._runtime.store.get_steps(execution_id)
            assert step.result is not None
            latencies.append((step.result.output - moment) * 1e3)
        return latencies


def _is_locked(path: str) -> bool:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False
