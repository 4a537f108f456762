"""The store is killed and started again while executions run."""

import pytest

from tests.crash import scenarios
from tests.crash.scene import Cell, Scene, spread
from tests.services.process import ServerProcess

STORES = [
    Cell("embedded", store, pool) for store in ("postgresql", "mariadb", "redis") for pool in ("prefork", "threads")
]


@pytest.fixture
def store_url(store_server_url: str) -> str:
    return store_server_url


@pytest.mark.worker(lease_seconds=30.0)
@pytest.mark.parametrize("cell", spread(STORES, stores=["postgresql", "redis"]), ids=str, indirect=True)
def test_a_checkpoint_waits_for_the_store(scene: Scene, store_server: ServerProcess) -> None:
    scenarios.survive_short_outage(scene, store_server)


@pytest.mark.worker(lease_seconds=1.0)
@pytest.mark.parametrize("cell", spread(STORES, stores=["mariadb", "redis"]), ids=str, indirect=True)
def test_an_outage_longer_than_the_lease_costs_the_step_in_flight(scene: Scene, store_server: ServerProcess) -> None:
    scenarios.survive_long_outage(scene, store_server)
