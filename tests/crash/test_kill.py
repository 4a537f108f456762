"""Workers and pool children are killed in the middle of a step."""

import pytest

from tests.crash import scenarios
from tests.crash.scene import CELLS, Cell, Scene, spread

PREFORK = [cell for cell in CELLS if cell.pool == "prefork"]


@pytest.mark.parametrize("cell", spread(CELLS), ids=str, indirect=True)
def test_another_worker_goes_on_at_once_after_the_whole_worker_was_killed(scene: Scene) -> None:
    scenarios.kill_whole_worker(scene)


@pytest.mark.worker(lease_seconds=2.0, imports=["tests.crash.another_host"])
@pytest.mark.parametrize("cell", [Cell("embedded", "sqlite", "threads")], ids=str, indirect=True)
def test_another_worker_sweeps_after_the_one_that_did_was_killed(scene: Scene) -> None:
    """On another host, which cannot see that it is dead."""
    scenarios.kill_the_one_that_sweeps(scene)


@pytest.mark.worker(ring_seconds=600.0)  # so that the first bell must do
@pytest.mark.parametrize("cell", spread(PREFORK, stores=["postgresql"]), ids=str, indirect=True)
def test_an_execution_goes_on_at_once_after_its_pool_child_was_killed(scene: Scene) -> None:
    scenarios.kill_pool_child(scene)


def test_an_execution_that_kills_every_process_becomes_a_dead_letter(scene: Scene) -> None:
    scenarios.execute_poison(scene)


@pytest.mark.parametrize("cell", [Cell("redis", "sqlite", "prefork")], ids=str, indirect=True)
def test_celery_does_not_call_an_execution_failed_that_goes_on(scene: Scene) -> None:
    scenarios.kill_pool_child_and_ask_celery(scene)
