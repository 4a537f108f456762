"""Three approvals and a question are open at once, and answered out of order, while the worker is killed in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from celery import Celery
from pytest_celery import CeleryWorkerCluster

from celery_agents import enqueue, install
from celery_agents.host.runtime import Runtime
from tests.celery_agents.cli.cli_driving import CLI
from tests.celery_agents.http.serving import Client, serve_wsgi
from tests.crash.effects import Outside
from tests.crash.people import deciding
from tests.crash.processes import WorkerProcess
from tests.crash.scene import AgentsWorker, Cell, Scene

pytestmark = pytest.mark.worker(imports=["tests.crash.people"])

CELLS: Final = [
    pytest.param(Cell("redis", "postgresql", "prefork"), marks=pytest.mark.full),
    pytest.param(Cell("redis", "redis", "threads"), marks=pytest.mark.full),
    Cell("embedded", "sqlite", "threads"),
]


@pytest.fixture
def celery_worker_cluster(
    cell: Cell, folder: Path, worker_env: dict[str, str], celery_setup_app: Celery
) -> Iterator[CeleryWorkerCluster]:
    """The only worker."""
    container = WorkerProcess("one", cell.pool, folder, worker_env)
    container.start()
    cluster = CeleryWorkerCluster(AgentsWorker(container, celery_setup_app))
    cluster.ready()
    yield cluster
    container.teardown()


@pytest.fixture
def http(runtime: Runtime) -> Iterator[Client]:
    for port in serve_wsgi(runtime, permit=lambda *_: True):
        yield Client(port)


@pytest.fixture
def cli(celery_setup_app: Celery, celery_setup_config: dict[str, Any]) -> Iterator[CLI]:
    """The command line, on an app of its own as in another process."""
    app = Celery("commands", set_as_current=False)
    app.conf.update(celery_setup_config)
    install(app)
    yield (commands := CLI(app))
    commands.store.close()


@pytest.mark.parametrize("cell", CELLS, ids=str, indirect=True)
def test_each_counts_once_whatever_the_order_and_however_often_the_worker_dies(
    scene: Scene, folder: Path, http: Client, cli: CLI
) -> None:
    outside, (worker,) = Outside(folder), scene.workers
    execution = enqueue(deciding, 3, runtime=scene.runtime)
    path = f"/executions/{execution.id}"

    def wait_for(*keys: str) -> None:
        def left() -> bool:
            return not execution.summary().owner and [wait.key for wait in execution.waits] == list(keys)

        scene.wait_until(f"{keys} are left", left)

    wait_for("allow 0", "allow 1", "allow 2", "account")
    asked = {wait.key: wait for wait in execution.waits}
    digests = {wait.key: wait.prompt["digest"] for wait in execution.approvals}
    assert http("POST", f"{path}/approve", {"digest": digests["allow 1"]})[0] == 200
    wait_for("allow 0", "allow 2", "account")

    worker.kill()
    assert cli("resume", execution.id, "joint").exit_code == 0
    assert http("POST", f"{path}/approve", {"digest": digests["allow 1"]})[0] == 409
    worker.container.restart()
    wait_for("allow 0", "allow 2")
    assert list(execution.waits) == [asked["allow 0"], asked["allow 2"]], "asked again, or since another time"

    edited = {"digest": digests["allow 2"], "arguments": {"number": 2, "cents": 70}}
    assert http("POST", f"{path}/approve", edited)[0] == 200
    worker.kill()  # before, while or after it works on that
    assert cli("resume", execution.id, "again", "--key", "account").exit_code == 1
    worker.container.restart()
    wait_for("allow 0")
    assert cli("approve", execution.id).exit_code == 0
    assert execution.wait(scene.patience_seconds) == ["transferred 100"] * 2 + ["transferred 70", "joint"]
    for number, cents in enumerate(("100", "100", "70")):
        assert set(outside.tokens(f"{execution.id}/{number}")) == {cents}
    assert len(outside.tokens(f"{execution.id}/1")) == 1
    steps = [step.name for step in execution.steps()]
    assert sorted(steps) == sorted(
        [*(f"{what} {number}" for what in ("allow", "transfer") for number in range(3)), "account"]
    )
