"""The lease itself: it runs out where nobody can see the death, and it is kept for as long as it is needed."""

import pytest

from tests.crash import scenarios
from tests.crash.scene import CELLS, Scene, spread

EMBEDDED = [cell for cell in CELLS if cell.broker == "embedded"]


@pytest.mark.worker(imports=["tests.crash.another_host"], lease_seconds=1.5)
@pytest.mark.parametrize("cell", spread(EMBEDDED, stores=["mariadb"]), ids=str, indirect=True)
def test_the_sweeper_of_another_host_goes_on_when_the_lease_has_run_out(scene: Scene) -> None:
    context = scenarios.kill_whole_worker(scene)
    calls = list(scene.ledger.rows("started", context.execution_id))
    assert len({call.host for call in calls}) == 2, "the workers should take each other for other hosts"
    assert not any("is dead, it is free again" in worker.logs() for worker in scene.workers)


@pytest.mark.worker(lease_seconds=0.6)
@pytest.mark.parametrize("cell", spread(EMBEDDED, stores=["redis"]), ids=str, indirect=True)
def test_a_step_longer_than_the_lease_is_not_taken_over(scene: Scene) -> None:
    scenarios.stay_in_step_past_the_lease(scene)
