"""SIGTERM in the middle of a long execution: a deploy."""

import pytest

from tests.crash import scenarios
from tests.crash.scene import CELLS, Scene, spread


@pytest.mark.worker(sweep_seconds=600.0, ring_seconds=600.0)  # so that nobody but the leaving worker can have rung
@pytest.mark.parametrize("cell", spread(CELLS, stores=["postgresql"]), ids=str, indirect=True)
def test_a_terminated_worker_stops_at_the_step_boundary_and_another_goes_on(scene: Scene) -> None:
    context = scenarios.terminate_in_long_execution(scene)
    assert context.attempt == 2, "the handover took more than one claim"


@pytest.mark.worker(sabotage="no_watch")  # so that nobody but the dying process can have given the lease back
def test_a_sigterm_to_the_whole_process_group_loses_only_the_step_in_flight(scene: Scene) -> None:
    scenarios.terminate_whole_group(scene)
