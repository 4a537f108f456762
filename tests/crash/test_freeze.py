"""SIGSTOP until the lease is lost, then SIGCONT: the zombie comes back."""

import pytest

from tests.crash import scenarios
from tests.crash.scene import CELLS, Scene, spread

EMBEDDED = [cell for cell in CELLS if cell.broker == "embedded"]


@pytest.mark.worker(lease_seconds=1.0)
@pytest.mark.parametrize("cell", spread(CELLS, stores=["redis"]), ids=str, indirect=True)
def test_no_write_of_a_thawed_worker_lands(scene: Scene) -> None:
    scenarios.freeze_until_lease_is_lost(scene)


@pytest.mark.worker(lease_seconds=1.0, sabotage="no_own_deadline")
@pytest.mark.parametrize("cell", spread(EMBEDDED, stores=["mariadb"]), ids=str, indirect=True)
def test_the_store_alone_refuses_a_zombie_that_does_not_know_that_it_is_one(scene: Scene) -> None:
    scenarios.freeze_until_lease_is_lost(scene)
