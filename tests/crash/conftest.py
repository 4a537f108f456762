"""pytest-celery's fixtures, with processes where it has containers.

With `CRASH_TESTS_IN_CONTAINERS=1` and a Docker engine, the workers run in containers instead; see `containers`.
"""

# ruff: noqa: E402 - assert rewriting is asked for before the modules are imported

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.app import setup_default_app
from kombu.transport import TRANSPORT_ALIASES
from pytest_celery import (
    CeleryBackendCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryWorkerCluster,
    RedisTestBroker,
)
from pytest_celery.vendors.redis.backend.api import RedisTestBackend

pytest.register_assert_rewrite(
    "tests.crash.invariants", "tests.crash.outages", "tests.crash.scene", "tests.crash.scenarios"
)

from celery_agents.define.registry import default_registry
from celery_agents.host.drain import DrainFlag
from celery_agents.host.runtime import Runtime
from celery_agents.host.tasks import ExecuteTask
from tests.crash.ledger import Ledger
from tests.crash.processes import FolderNode, RedisProcess, WorkerProcess
from tests.crash.scene import AgentsSetup, AgentsWorker, Cell, Scene
from tests.crash.stores import hybrid_url, migrated
from tests.services.machine import VARIABLE as SLOWNESS_VARIABLE
from tests.services.machine import machine, scaled
from tests.services.process import ServerProcess

IN_CONTAINERS = os.environ.get("CRASH_TESTS_IN_CONTAINERS") == "1"

# Short, so that a test takes seconds. The lease is long, so that a recovery in time shows that nobody waited for it.
SETTINGS = {
    "lease_seconds": 30.0,
    "sweep_seconds": 0.5,
    "watch_seconds": 0.3,
    "publish_grace_seconds": 2.0,
    "ring_seconds": 5.0,
}
# What a setting may be at most. A test that asks for hundreds of seconds means never.
LONGEST_SECONDS = 3600.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "worker(imports=..., sabotage=..., **settings): how the workers of a crash test are started"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All tests of this folder are marked `crash`; those marked `chaos` run only when asked for by `-m`."""
    here = Path(__file__).parent
    long_runs = []
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.crash)
            if item.get_closest_marker("chaos") and "chaos" not in config.option.markexpr:
                long_runs.append(item)
    if long_runs:
        config.hook.pytest_deselected(items=long_runs)
        items[:] = [item for item in items if item not in long_runs]


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """The broker, the store and the pool; without a parameter the zero-server ones."""
    return getattr(request, "param", Cell("embedded", "sqlite", "prefork"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The workers' working directory: their home, their logs, the ledger."""
    (tmp_path / "home" / "broker" / "messages").mkdir(parents=True)
    (tmp_path / "home" / "broker" / "control").mkdir()
    return tmp_path


@pytest.fixture
def store_url(request: pytest.FixtureRequest, cell: Cell, folder: Path) -> str:
    """The store of the cell, empty."""
    if cell.store == "sqlite":
        return f"sqlite:///{folder}/home/executions.db"
    if cell.store == "postgresql":
        return str(request.getfixturevalue("postgresql_migrated_url"))
    if cell.store == "mariadb":
        return migrated(request.getfixturevalue("mariadb_database_url"))
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    redis = f"{url}?key_prefix={prefix}"
    if cell.store == "hybrid":
        return hybrid_url(redis, request.getfixturevalue("postgresql_migrated_url"))
    return redis


@pytest.fixture
def store_server(request: pytest.FixtureRequest, cell: Cell) -> ServerProcess:
    """A durable server of the test's own for the store of the cell."""
    server: ServerProcess = request.getfixturevalue(f"{cell.store}_server")
    return server


@pytest.fixture
def store_server_url(store_server: ServerProcess, cell: Cell) -> str:
    """The store on it; a module whose tests need it makes it their `store_url`."""
    return store_server.url if cell.store == "redis" else migrated(store_server.url)


# -- pytest-celery's nodes ---------------------------------------------------------------------------------------------


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest, cell: Cell) -> CeleryTestBroker:
    if cell.broker == "redis":
        return RedisTestBroker(RedisProcess(request.getfixturevalue("redis_server"), "0"))
    return CeleryTestBroker(FolderNode("filesystem://localhost/"))


@pytest.fixture
def celery_backend_cluster(request: pytest.FixtureRequest, cell: Cell, folder: Path) -> CeleryBackendCluster:
    if cell.broker == "redis":
        return CeleryBackendCluster(RedisTestBackend(RedisProcess(request.getfixturevalue("redis_server"), "1")))
    return CeleryBackendCluster(CeleryTestBackend(FolderNode(f"db+sqlite:///{folder}/home/results.db")))


@pytest.fixture
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the test's `worker` marker asks for, over the defaults; periods in proportion to this machine's slowness."""
    marker = request.node.get_closest_marker("worker")
    asked = {"imports": (), "sabotage": ""} | SETTINGS | ({} if marker is None else marker.kwargs)
    return {name: min(scaled(value), LONGEST_SECONDS) if name in SETTINGS else value for name, value in asked.items()}


@pytest.fixture
def settings(asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of workers and client."""
    return {name: value for name, value in asked.items() if name not in ("imports", "sabotage")}


@pytest.fixture
def worker_env(
    asked: dict[str, Any],
    settings: dict[str, Any],
    celery_worker_cluster_config: dict[str, Any],
    store_url: str,
    folder: Path,
) -> dict[str, str]:
    """The environment of the workers."""
    sabotage = asked["sabotage"]
    imports = (
        "tests.crash.agents",
        *asked["imports"],
        *(["tests.crash.sabotage"] if sabotage else []),
    )
    return {
        "AGENTS_BROKER_URL": celery_worker_cluster_config["celery_broker_cluster_config"]["urls"][0],
        "AGENTS_RESULT_BACKEND": celery_worker_cluster_config["celery_backend_cluster_config"]["urls"][0],
        "AGENTS_STORE_URL": store_url,
        "AGENTS_HOME": str(folder / "home"),
        "AGENTS_IMPORTS": ",".join(imports),
        "CRASH_TEST_SABOTAGE": sabotage,
        SLOWNESS_VARIABLE: str(machine.slowness),
    } | {f"AGENTS_{name.upper()}": str(value) for name, value in settings.items()}


@pytest.fixture
def new_worker(
    cell: Cell, folder: Path, worker_env: dict[str, str], celery_setup_app: Celery
) -> Iterator[Callable[[str], AgentsWorker]]:
    """Starts workers, and kills them in the end."""
    with contextlib.ExitStack() as cleanup:

        def start(name: str) -> AgentsWorker:
            if IN_CONTAINERS:
                from tests.crash.containers import start_worker

                container = start_worker(name, cell.pool, folder, worker_env)
            else:
                container = WorkerProcess(name, cell.pool, folder, worker_env)
                container.start()
            cleanup.callback(container.teardown)
            return AgentsWorker(container, celery_setup_app)

        yield start


@pytest.fixture
def celery_worker_cluster(new_worker: Callable[[str], AgentsWorker]) -> CeleryWorkerCluster:
    cluster = CeleryWorkerCluster(new_worker("one"), new_worker("two"))  # both start up at once
    cluster.ready()
    return cluster


@pytest.fixture
def celery_setup_cls() -> type[AgentsSetup]:
    return AgentsSetup


@pytest.fixture
def celery_setup_config(
    celery_setup_cls: type[AgentsSetup],
    celery_worker_cluster_config: dict[str, Any],
    settings: dict[str, Any],
    folder: Path,
    store_url: str,
) -> dict[str, Any]:
    """Of the client: as the workers have it."""
    broker = folder / "home" / "broker"
    config: dict[str, Any] = celery_setup_cls.config(celery_worker_cluster_config=celery_worker_cluster_config)
    config |= {"agents_store_url": store_url, "accept_content": ["json"]}
    config |= {f"agents_{name}": value for name, value in settings.items()}
    if config["broker_url"].startswith("filesystem:"):
        config["broker_transport_options"] = {
            "data_folder_in": str(broker / "messages"),
            "data_folder_out": str(broker / "messages"),
            "control_folder": str(broker / "control"),
        }
    return config


@pytest.fixture
def celery_setup_app(
    celery_setup_cls: type[AgentsSetup],
    celery_setup_config: dict[str, Any],
    celery_setup_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Celery]:
    # What `celery_agents.celery` does for its own app: the client writes to the embedded broker as the workers do.
    monkeypatch.setitem(TRANSPORT_ALIASES, "filesystem", "celery_agents.host.files_broker:Transport")
    app = celery_setup_cls.create_setup_app(celery_setup_config, celery_setup_name)
    with setup_default_app(app):
        yield app


@pytest.fixture
def runtime(celery_setup_app: Celery) -> Iterator[Runtime]:
    """The client's side of an installation. Not bound to the app: nothing stays installed after the test."""
    celery_setup_app.register_task(ExecuteTask())
    runtime = Runtime(celery_setup_app, default_registry, DrainFlag())
    yield runtime
    runtime.store.close()


@pytest.fixture
def scene(celery_setup: AgentsSetup, runtime: Runtime, folder: Path) -> Scene:
    """Two workers that are ready, and everything to act on them."""
    return Scene(setup=celery_setup, runtime=runtime, ledger=Ledger(folder))
