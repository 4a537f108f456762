"""Each crash test fails when the mechanism that it guards is switched off; see `sabotage`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import scenarios
from tests.crash.outages import kill_and_start, survive_outages
from tests.crash.scene import Cell, Scene
from tests.services.redis import RedisServer

THREADS = Cell("embedded", "sqlite", "threads")
PREFORK = Cell("embedded", "sqlite", "prefork")
IN_VAIN_SECONDS = 4.0
EARLY = {"sweep_seconds": 0.2, "watch_seconds": 0.1}


def without(
    sabotage: str, scenario: Callable[[Scene], object], *, match: str, cell: Cell = THREADS, **settings: object
) -> object:
    """One row of the table below."""
    name = f"{scenario.__name__}-without-{sabotage.removeprefix('no_')}"
    marks = [pytest.mark.worker(sabotage=sabotage, **(EARLY | settings))]
    return pytest.param(cell, scenario, match, id=name, marks=marks)


@pytest.mark.parametrize(
    ("cell", "scenario", "match"),
    [
        without("no_watch", scenarios.kill_whole_worker, match="step 3 .* is called .attempt 2"),
        without("no_presence", scenarios.kill_whole_worker, match="step 3 .* is called .attempt 2"),
        without("no_sweeper", scenarios.kill_whole_worker, match="step 3 .* is called .attempt 2"),
        without("no_journal", scenarios.kill_whole_worker, match="step 3 .* is called .attempt 2"),
        without("no_watch", scenarios.kill_pool_child, match="step 3 .* is called .attempt 2", cell=PREFORK),
        without(
            "no_sweeper",
            scenarios.kill_whole_worker,
            match="step 3 .* is called .attempt 2",
            lease_seconds=1.0,
            imports=["tests.crash.another_host"],
            cell=PREFORK,
        ),
        without(
            "no_takeover",
            scenarios.kill_the_one_that_sweeps,
            match="step 3 .* is called .attempt 2",
            lease_seconds=1.0,
            imports=["tests.crash.another_host"],
        ),
        without("no_dead_letter", scenarios.execute_poison, match="is over", cell=PREFORK),
        without("no_drain", scenarios.terminate_in_long_execution, match="went on with the execution"),
        without(
            "no_shared_drain_flag",
            scenarios.terminate_in_long_execution,
            match="went on with the execution",
            cell=PREFORK,
        ),
        without(
            "no_ring_after_drain",
            scenarios.terminate_in_long_execution,
            match="step 4 .* is called",
            sweep_seconds=600.0,
            ring_seconds=600.0,
        ),
        without(
            "no_watch,no_release_on_exit",
            scenarios.terminate_whole_group,
            match="step 3 .* is called .attempt 2",
            cell=PREFORK,
        ),
        without(
            "no_own_deadline,no_fencing",
            scenarios.freeze_until_lease_is_lost,
            match="the zombie wrote",
            lease_seconds=1.0,
        ),
        without("no_renewal", scenarios.stay_in_step_past_the_lease, match="was taken over", lease_seconds=0.6),
    ],
    indirect=["cell"],
)
def test_the_scenario_fails(scene: Scene, scenario: Callable[[Scene], object], match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        scenario(scene.with_patience(IN_VAIN_SECONDS))


@pytest.mark.worker(sabotage="no_sweeper", ring_seconds=1.0)
def test_a_flushed_broker_loses_executions_without_the_sweeper(scene: Scene, folder: Path) -> None:
    with pytest.raises(AssertionError, match="is over"):
        scenarios.flush_while_some_run_and_some_wait(scene.with_patience(IN_VAIN_SECONDS), folder)


class TestWithAStoreOfItsOwn:
    """The outage of a store."""

    @pytest.fixture
    def cell(self) -> Cell:
        return Cell("embedded", "redis", "threads")

    @pytest.fixture
    def store_url(self, redis_server: RedisServer) -> str:
        return redis_server.url

    @pytest.mark.worker(sabotage="no_patience_with_the_store")
    def test_an_outage_is_not_survived_without_the_wait_for_the_store(
        self, scene: Scene, redis_server: RedisServer
    ) -> None:
        with pytest.raises(AssertionError):
            scenarios.survive_short_outage(scene.with_patience(IN_VAIN_SECONDS), redis_server)

    @pytest.mark.worker(sabotage="no_patience_with_the_store", lease_seconds=8.0, ring_seconds=2.0)
    def test_many_executions_repeat_steps_without_the_wait_for_the_store(
        self, scene: Scene, redis_server: RedisServer
    ) -> None:
        with pytest.raises(AssertionError, match=": calls"):
            survive_outages(scene, [kill_and_start(redis_server, down_seconds=0.5)])
