"""Workers of two versions on one store, both killed: an older one leaves alone what it cannot honour."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from celery import Celery
from pytest_celery import CeleryWorkerCluster

from agent_statestore import AuditEvent
from celery_agents import Execution, enqueue
from tests.crash.agents import Plan
from tests.crash.ledger import STARTED
from tests.crash.older import VARIABLE
from tests.crash.processes import WorkerProcess
from tests.crash.scene import AgentsWorker, Cell, Scene
from tests.crash.versions import STEPS, asking_two, undisturbed

# A refused bell is rung again soon.
pytestmark = pytest.mark.worker(
    imports=["tests.crash.older", "tests.crash.versions"], lease_seconds=4.0, ring_seconds=0.3, ring_max_seconds=0.6
)

CELLS: Final = [
    Cell("embedded", "sqlite", "threads"),
    Cell("redis", "redis", "threads"),
    pytest.param(Cell("redis", "postgresql", "threads"), marks=pytest.mark.full),
]
PLAIN: Final = Plan(steps=8, step_seconds=0.1)


@pytest.fixture
def celery_worker_cluster(
    cell: Cell, folder: Path, worker_env: dict[str, str], celery_setup_app: Celery
) -> Iterator[CeleryWorkerCluster]:
    """A worker of this version, and one of an earlier version that is not started yet."""
    newer = WorkerProcess("newer", cell.pool, folder, worker_env)
    older = WorkerProcess("older", cell.pool, folder, worker_env | {VARIABLE: "1"})
    newer.start()
    cluster = CeleryWorkerCluster(*(AgentsWorker(one, celery_setup_app) for one in (newer, older)))
    newer.ready()
    yield cluster
    newer.teardown()
    older.teardown()


def claimed_by(scene: Scene, execution: Execution) -> list[str]:
    """The nodes of the workers that have claimed it, in this order."""
    return [
        (entry.worker or "").split("/")[1].partition("@")[0]
        for entry in scene.runtime.store.get_audit(execution.id)
        if entry.event is AuditEvent.CLAIMED
    ]


@pytest.mark.parametrize("cell", CELLS, ids=str, indirect=True)
def test_an_older_worker_refuses_what_it_cannot_honour_and_a_newer_one_goes_on(scene: Scene) -> None:
    newer, older = scene.workers
    asking = [enqueue(asking_two, f"number {number}", runtime=scene.runtime) for number in range(3)]
    older.container.start()
    for execution in asking:
        scene.wait_until(
            f"{execution.id} asks twice at once",
            lambda execution=execution: [wait.key for wait in execution.waits] == ["first", "second"],
        )
    older.container.ready()
    plain = [scene.enqueue(PLAIN) for _ in range(4)]
    scene.wait_until("some steps are recorded", lambda: sum(one.summary().step_count for one in plain) >= 4)

    newer.kill()
    before = [execution.context() for execution in asking[:2]]
    asking[0].resume("two", key="second")
    asking[1].resume("one", key="first")
    for execution in asking[:2]:
        scene.wait_for_log(older, f"execution {execution.id} has format version 2, and this version")
    # Whatever needs no newer format goes on at the older one, of which one is the last that the killed one began.
    scene.wait_until("the older worker ends what is plain", lambda: any(one.state.is_over for one in plain))
    for execution, was in zip(asking[:2], before, strict=True):
        now = execution.context()
        assert (now.attempt, now.crashes, now.owner) == (was.attempt, 0, None)
        assert (now.state, now.waits, now.steps) == (was.state, was.waits, was.steps)

    newer.container.start()
    older.kill()
    older.container.start_again()
    newer.container.ready()
    asking[1].resume("two", key="second")
    asking[2].resume("two", key="second")
    scene.wait_until("a newer worker is at work on one of them", lambda: asking[1].summary().attempt > 1)
    newer.kill()
    asking[0].resume("one", key="first")
    asking[2].resume("one", key="first")
    newer.container.restart()

    for number, execution in enumerate(asking):
        output = execution.wait(scene.patience_seconds)
        assert output == undisturbed(f"number {number}", "one", "two")
        assert set(claimed_by(scene, execution)) == {"newer"}
        calls = Counter(row.number for row in scene.ledger.rows(STARTED, execution.id))
        assert all(calls[number] == 1 for number in range(STEPS)), calls
    for execution in plain:
        scene.finish(execution, PLAIN, repeated=None)
