"""Many children of one parent, while workers are killed: each child is there once, and the parent completes."""

from collections.abc import Callable
from typing import Final

import pytest

from agent_statestore import AgentState
from agent_statestore.query import Query
from celery_agents import Execution, enqueue
from tests.crash.effects import Outside
from tests.crash.family import CREATED, PARENT, RUNG, Brood, child, parent
from tests.crash.ledger import STARTED
from tests.crash.scene import AgentsWorker, Cell, Scene

# A worker that is killed takes the bells with it that it was sent for later: those are soon rung again.
pytestmark = pytest.mark.worker(imports=["tests.crash.family"], ring_seconds=1.0)

MANY: Final = 200
SOME: Final = 60
FEW: Final = 8
REDIS: Final = Cell("redis", "sqlite", "prefork")
EMBEDDED: Final = Cell("embedded", "redis", "threads")


def effects(outside: Outside, children: int) -> list[list[str]]:
    """Which executions have had an effect in the name of each child."""
    return [outside.tokens(f"child {number}") for number in range(1, children + 1)]


def wait_for_effects(scene: Scene, outside: Outside, children: int, count: int) -> None:
    scene.wait_until(
        f"{count} children have had their effect", lambda: sum(map(len, effects(outside, children))) >= count
    )


def kill_worker(number: int) -> Callable[[Scene], None]:
    """The whole worker dies, and is started again."""

    def kill(scene: Scene) -> None:
        worker: AgentsWorker = scene.workers[number]
        worker.container.start_again()

    return kill


def kill_pool_child(scene: Scene) -> None:
    """One process of a pool dies, or a whole worker where the pool has no processes."""
    worker = scene.workers[0]
    pids = worker.pool_pids()
    if pids:
        worker.kill_child(pids[0])
    else:
        worker.container.start_again()


@pytest.mark.parametrize(
    ("cell", "children"),
    [
        pytest.param(REDIS, SOME, id=f"{REDIS}-{SOME}"),
        pytest.param(REDIS, MANY, id=f"{REDIS}-{MANY}", marks=pytest.mark.full),
        pytest.param(EMBEDDED, MANY, id=f"{EMBEDDED}-{MANY}", marks=pytest.mark.full),
    ],
    indirect=["cell"],
)
def test_each_child_is_there_once_and_the_parent_completes(scene: Scene, cell: Cell, children: int) -> None:
    outside = Outside(scene.ledger.folder)
    # A pool of threads dies with its worker, which nobody but the test starts again.
    dies_at = {CREATED: children // 4, RUNG: children // 2} if cell.pool == "prefork" else {}
    brood = Brood(children=children, child_seconds=0.02, dies_at=dies_at)
    execution = enqueue(parent, brood, runtime=scene.runtime)
    scene.wait_until("some children are started", lambda: execution.summary().step_count >= children // 8)
    kills = [kill_worker(0), kill_worker(1), kill_pool_child, kill_worker(1), kill_worker(0)]
    for number, kill in enumerate(kills):
        wait_for_effects(scene, outside, children, children * number // (len(kills) + 1))
        kill(scene)

    finish(scene, execution, outside, brood)


def finish(scene: Scene, execution: Execution, outside: Outside, brood: Brood) -> None:
    """Waits for the end; each child must be one execution, with one effect, that its parent knows."""
    count = brood.children
    assert execution.wait(3 * scene.patience_seconds) == count * (count + 1) // 2
    for place in brood.dies_at:
        assert sum(1 for _ in scene.ledger.rows(place)) == 1, f"nobody died where {place}"
    children = scene.runtime.store.find(Query(agent_id=child.name, limit=2 * count)).items
    assert len(children) == count, f"{len(children)} children"
    assert {one.state for one in children} == {AgentState.COMPLETED}
    assert {one.parent_execution_id for one in children} == {execution.id}
    by_number = [tokens[0] if len(tokens) == 1 else tokens for tokens in effects(outside, count)]
    steps = {step.name: step for step in execution.steps()}
    assert len(steps) == 2 * count
    known = []
    for number in range(1, count + 1):
        result = steps[f"child {number}"].result
        assert result is not None
        known.append(result.output["execution_id"])
    assert by_number == known, "a child had none or several effects, or is not the one that its parent knows"
    assert sorted(one.execution_id for one in children) == sorted(known)
    claims = [row.attempt for row in scene.ledger.rows(STARTED, execution.id) if row.number == PARENT]
    assert len(claims) > 1, "the parent was not disturbed"
    assert claims == sorted(set(claims)), "two attempts at the parent at once"


@pytest.mark.worker(imports=["tests.crash.family", "tests.crash.family_without_keys"])
@pytest.mark.parametrize("cell", [REDIS], ids=str, indirect=True)
def test_a_child_is_there_twice_without_its_key(scene: Scene) -> None:
    """What is shown above is seen to fail where nothing ties a child to the step that starts it."""
    brood = Brood(children=FEW, dies_at={CREATED: FEW // 2})
    execution = enqueue(parent, brood, runtime=scene.runtime)
    with pytest.raises(AssertionError, match=f"{FEW + 1} children"):
        finish(scene, execution, Outside(scene.ledger.folder), brood)
