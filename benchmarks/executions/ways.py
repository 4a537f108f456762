"""The ways that are compared, started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import psycopg
import redis
from celery import Celery

from benchmarks.executions.on_celery import Agents, OnCelery
from benchmarks.executions.peers import AbsurdQueue, DBOSQueue, Peer, are_installed
from benchmarks.executions.way import STAMPS, Way
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.workers import Frozen, Worker
from celery_agents.celery import make_app
from celery_agents.host.install import install
from tests.services.postgresql import driver_url, with_database

_IMPORTS: Final = "benchmarks.tasks,benchmarks.agents"
_FIRST_DATABASE: Final = 3  # of the Redis server; each worker has one to itself, for its broker and its results


W = TypeVar("W", bound=Way)


@dataclass(frozen=True, slots=True)
class Ways:
    """All that are compared. `alike`, `shipped` and `threads` are by store."""

    bare: OnCelery
    bare_results: OnCelery
    alike: Mapping[str, Agents]
    shipped: Mapping[str, Agents]
    threads: Mapping[str, Agents]
    peers: Mapping[str, Peer]

    def all(self) -> list[Way]:
        """Return each of them."""
        agents = [*self.alike.values(), *self.shipped.values(), *self.threads.values()]
        return [self.bare, self.bare_results, *agents, *self.peers.values()]


@contextmanager
def started_ways(servers: Servers, sizes: Sizes) -> Iterator[Ways]:
    """Start all workers, let each come to its first work, and freeze them."""
    pool, threads, stores = sizes.queue_pool, sizes.queue_threads, sizes.queue_stores
    with ExitStack() as stack:
        makers = Makers(servers, stack)
        ways = Ways(
            bare=makers.bare(pool, results=False),
            bare_results=makers.bare(pool, results=True),
            alike={store: makers.alike(servers.store_url(store), pool) for store in stores},
            shipped={store: makers.shipped(store, pool) for store in stores},
            threads={store: makers.alike(servers.store_url(store), ("threads", threads)) for store in stores}
            if threads
            else {},
            peers=makers.peers() if are_installed() else {},
        )
        for way in ways.all():
            way.finish()
            way.freeze()
        yield ways


class Makers:
    """Starts workers, each with a broker of its own, and the apps that send to them. `stack` ends them all."""

    def __init__(self, servers: Servers, stack: ExitStack) -> None:
        self._servers = servers
        self._stack = stack
        self._next_database = _FIRST_DATABASE
        _empty(servers.redis_url(STAMPS))

    def bare(self, pool: tuple[str, int], *, results: bool) -> OnCelery:
        """Return bare Celery, with a result backend or without."""
        broker = self._broker()
        environ = {"BENCHMARK_BROKER_URL": broker} | ({"BENCHMARK_RESULT_BACKEND": broker} if results else {})
        app = Celery("bare", broker=broker, backend=broker if results else None, set_as_current=False)
        return self._closed(OnCelery(self._servers, self._worker("benchmarks.bare", pool, environ), app))

    def alike(self, store_url: str, pool: tuple[str, int]) -> Agents:
        """Return one without results and events, as the bare one."""
        broker = self._broker()
        environ = {"BENCHMARK_BROKER_URL": broker, "AGENTS_STORE_URL": store_url}
        app = Celery("alike", broker=broker, set_as_current=False)
        app.conf.update(agents_store_url=store_url, agents_events=False)
        install(app)
        return self._closed(Agents(self._servers, self._worker("benchmarks.bare_agents", pool, environ), app))

    def shipped(self, store: str, pool: tuple[str, int]) -> Agents:
        """Return the ready-made app: it is told where its broker and its store are, and nothing else."""
        broker, store_url = self._broker(), self._servers.store_url(store)
        environ = {"AGENTS_BROKER_URL": broker, "AGENTS_STORE_URL": store_url}
        with _environ(environ):
            app = make_app()
        app.conf.update(agents_store_url=store_url)
        worker = self._worker("celery_agents", pool, environ | {"AGENTS_IMPORTS": _IMPORTS})
        return self._closed(Agents(self._servers, worker, app))

    def peers(self) -> dict[str, Peer]:
        """Return the queues of others."""
        queues = {"Absurd": AbsurdQueue, "DBOS": DBOSQueue}
        return {
            name: self._closed(queue(self._servers, self._process, self._database(f"{name.lower()}_queue")))
            for name, queue in queues.items()
        }

    def _closed(self, way: W) -> W:
        self._stack.callback(way.close)
        return way

    def _process(self, module: str, database_url: str) -> Frozen:
        command = ["-m", f"benchmarks.executions.{module}", database_url]
        return self._stack.enter_context(Frozen(command, {}, self._servers.folder, module))

    def _worker(self, app: str, pool: tuple[str, int], environ: Mapping[str, str]) -> Worker:
        return self._stack.enter_context(Worker(app, *pool, environ, self._servers.folder))

    def _broker(self) -> str:
        url = self._servers.redis_url(self._next_database)
        self._next_database += 1
        _empty(url)
        return url

    def _database(self, name: str) -> str:
        """Return the URL of a new database: a frozen worker's transaction must not keep others' rows from a vacuum."""
        server = driver_url(self._servers.postgresql)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        return with_database(server, name)


def _empty(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushdb()


@contextmanager
def _environ(environ: Mapping[str, str]) -> Iterator[None]:
    """Set these variables meanwhile, and no others of ours."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("AGENTS_"):
            del os.environ[name]
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
