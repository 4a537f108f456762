"""A worker is killed while many async executions are in flight on its event loop."""

from collections import Counter

import pytest

from celery_agents import enqueue
from tests.crash.ledger import RETURNED
from tests.crash.many_async import STEPS, many_async
from tests.crash.scene import Cell, Scene

MANY = 8
CELLS = [Cell("redis", "redis", "threads"), Cell("redis", "postgresql", "threads")]


@pytest.mark.worker(imports=["tests.crash.many_async"], lease_seconds=3.0)
@pytest.mark.parametrize("cell", [CELLS[0], pytest.param(CELLS[1], marks=pytest.mark.full)], ids=str, indirect=True)
def test_what_was_recorded_together_is_not_done_again(scene: Scene) -> None:
    executions = [enqueue(many_async, STEPS, runtime=scene.runtime) for _ in range(MANY)]

    def count() -> int:
        return sum(execution.summary().step_count for execution in executions)

    scene.wait_until("some steps are recorded", lambda: count() >= MANY // 2)
    killed = scene.workers[0]
    killed.kill()
    recorded = {execution.id: execution.summary().step_count for execution in executions}
    for execution in executions:
        scene.wait_until(f"{execution.id} is over", lambda execution=execution: execution.state.is_over)
        context = execution.context()
        assert context.output == [*range(STEPS)]
        assert [step.step_number for step in context.steps] == [*range(1, STEPS + 1)]
        returned = Counter(row.number for row in scene.ledger.rows(RETURNED, execution.id))
        # At most the step in flight was called once more, and none that was recorded.
        assert sum(returned.values()) <= STEPS + 1, returned
        assert all(returned[number] >= 1 for number in range(STEPS))
        assert all(returned[number] == 1 for number in range(recorded[execution.id] - 1)), returned
