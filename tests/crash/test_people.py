"""An execution waits for a person for three weeks, in which everything is restarted, and costs nothing meanwhile."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from celery import Celery
from pytest_celery import CeleryWorkerCluster

from agent_statestore import AgentState
from celery_agents import enqueue
from tests.crash.agents import Plan
from tests.crash.effects import Outside
from tests.crash.people import hibernating, paying, paying_in_haste
from tests.crash.people_clock import MovedClock, open_moved
from tests.crash.processes import WorkerProcess
from tests.crash.scene import AgentsWorker, Cell, Scene
from tests.services.process import ServerProcess

pytestmark = pytest.mark.worker(imports=["tests.crash.people", "tests.crash.people_clock"])

CELLS: Final = [
    pytest.param(Cell("redis", "postgresql", "threads"), marks=pytest.mark.full),
    Cell("redis", "redis", "prefork"),
]
THREE_WEEKS: Final = timedelta(weeks=3)
OTHER_WORK: Final = Plan(steps=3)


class OneSlot(WorkerProcess):
    """A worker that executes one thing at a time."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        command = super().command(*args, **kwargs)
        command[command.index("-c") + 1] = "1"
        return command


@pytest.fixture
def celery_worker_cluster(
    cell: Cell, folder: Path, worker_env: dict[str, str], celery_setup_app: Celery
) -> Iterator[CeleryWorkerCluster]:
    """The only worker."""
    container = OneSlot("one", cell.pool, folder, worker_env)
    container.start()
    cluster = CeleryWorkerCluster(AgentsWorker(container, celery_setup_app))
    cluster.ready()
    yield cluster
    container.teardown()


@pytest.fixture
def store_url(store_server_url: str) -> str:
    return store_server_url


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """The store's clock, of the client too."""
    monkeypatch.setattr("celery_agents.host.runtime.open_store", partial(open_moved, folder=folder))
    return MovedClock(folder)


def do_other_work(scene: Scene) -> None:
    """It comes to its end on the only slot."""
    for execution in [scene.enqueue(OTHER_WORK) for _ in range(3)]:
        scene.finish(execution, OTHER_WORK)


@pytest.mark.parametrize("cell", CELLS, ids=str, indirect=True)
def test_an_approval_after_three_weeks_and_a_restart_of_everything(
    clock: MovedClock, scene: Scene, folder: Path, store_server: ServerProcess, redis_server: ServerProcess
) -> None:
    outside = Outside(folder)
    patient = enqueue(paying, 1_000, runtime=scene.runtime)
    hasty = enqueue(paying_in_haste, 2_000, runtime=scene.runtime)
    asleep = enqueue(hibernating, runtime=scene.runtime)
    scene.wait_until("it asks to whom", lambda: patient.question is not None)
    patient.resume("Ada", sender="bob")
    paused = {patient: AgentState.WAITING_FOR_APPROVAL, hasty: AgentState.WAITING_FOR_APPROVAL}
    paused |= {asleep: AgentState.WAITING}
    for execution, state in paused.items():
        scene.wait_until(f"{execution.id} is {state}", lambda e=execution, s=state: e.state is s)
    asked = patient.approval
    assert asked is not None
    assert asked.prompt["arguments"] == {"to": "Ada", "cents": 1_000}

    do_other_work(scene)
    for execution, state in paused.items():
        summary = execution.summary()
        assert summary.state is state
        assert summary.owner is None, "a paused execution holds a lease"

    (worker,) = scene.workers
    worker.kill()
    for server in {redis_server, store_server}:
        server.kill()
        server.start()
    clock.move(THREE_WEEKS)
    worker.container.restart()

    assert hasty.wait(scene.patience_seconds) == "ApprovalExpired"
    scene.wait_until("the sleep is over", lambda: asleep.summary().step_count == 1)
    do_other_work(scene)
    assert patient.approval == asked, "another approval is asked for after the restart"
    assert asleep.state is AgentState.WAITING
    assert outside.tokens(f"{patient.id}/transfer") == [], "the tool was called without an approval"

    digest = asked.prompt["digest"]
    patient.approve(digest=digest, arguments={"to": "Ada", "cents": 900}, sender="carol", reason="too much")
    assert patient.wait(scene.patience_seconds) == "transferred 900 to Ada"
    assert outside.tokens(f"{patient.id}/transfer") == ["900 to Ada"]
    steps = {step.name: step for step in patient.steps()}
    assert list(steps) == ["ask", "approve transfer", "transfer"]
    assert steps["approve transfer"].duration > THREE_WEEKS
    assert steps["approve transfer"].action.input == {"to": "Ada", "cents": 1_000}
    approved = steps["approve transfer"].result
    assert approved is not None
    assert {name: approved.output[name] for name in ("by", "reason", "digest", "arguments")} == {
        "by": "carol",
        "reason": "too much",
        "digest": digest,
        "arguments": {"to": "Ada", "cents": 900},
    }
    assert steps["transfer"].action.input == {"to": "Ada", "cents": 900}
    assert outside.tokens(f"{hasty.id}/transfer") == [], "the tool was called after its approval had expired"

    clock.move(timedelta(days=2))
    assert asleep.wait(scene.patience_seconds) == "no spring"
