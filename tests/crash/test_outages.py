"""50 executions go on through the death of their store's server, and complete."""

import pytest

from tests.crash.outages import (
    SAID_OF_AN_EXECUTION,
    SAID_OF_AN_OUTAGE,
    SAID_OF_BELLS,
    check_lines,
    check_log,
    kill_and_start,
    survive_outages,
)
from tests.crash.scene import Cell, Scene
from tests.services.process import ServerProcess

POSTGRESQL, MARIADB, REDIS = (Cell("embedded", store, "prefork") for store in ("postgresql", "mariadb", "redis"))


@pytest.fixture
def store_url(store_server_url: str) -> str:
    return store_server_url


# A claim that was made and whose answer was lost holds its execution for the whole lease, so that is not much longer
# than the outages.
@pytest.mark.worker(lease_seconds=8.0, ring_seconds=2.0)
@pytest.mark.parametrize(
    "cell", [pytest.param(POSTGRESQL, marks=pytest.mark.full), MARIADB, REDIS], ids=str, indirect=True
)
def test_a_server_killed_twice_loses_and_repeats_nothing(scene: Scene, store_server: ServerProcess) -> None:
    survive_outages(scene, [kill_and_start(store_server, down_seconds=seconds) for seconds in (1.0, 1.5)])
    for worker in scene.workers:
        check_log(worker, outages=2)


@pytest.mark.worker(lease_seconds=1.0, ring_seconds=2.0)
@pytest.mark.parametrize("cell", [POSTGRESQL], ids=str, indirect=True)
def test_an_outage_longer_than_the_leases_costs_the_steps_in_flight(scene: Scene, store_server: ServerProcess) -> None:
    contexts = survive_outages(scene, [kill_and_start(store_server, down_seconds=3.0)], repeats=True)
    assert any(context.attempt == 2 for context in contexts), "no lease was lost"
    for worker in scene.workers:
        check_log(worker, outages=1)


class TestWhatIsAskedOfALog:
    """The check of the logs does find something."""

    TIME = "2026-01-01 12:00:00,000"
    AWAY = f"[{TIME}: WARNING/MainProcess] the sweep failed, trying again: the store at x is not available: refused\n"
    BELL = (
        f"[{TIME}: ERROR/ForkPoolWorker-1] execution {{}} is left to later: the store at x is not available: refused\n"
    )
    WAITS = f"[{TIME}: WARNING/ForkPoolWorker-1] execution {{}}: a checkpoint could not be written, trying again\n"
    ONE, OTHER = "01a207a6-fe95-7fcb-b97b-54955f4a30ea", "01a207a6-fea6-77ba-801d-67d5a0883e79"

    def test_few_lines_are_fine(self) -> None:
        waits = self.WAITS.format(self.ONE) + self.WAITS.format(self.OTHER)
        check_lines(self.AWAY * 6 + waits * 2 + self.BELL.format(self.ONE) * 50, "it", outages=1)

    @pytest.mark.parametrize(
        ("log", "match"),
        [
            ("", "says nothing of the outage"),
            (f"{AWAY}Traceback (most recent call last):\n", "shows a traceback"),
            (AWAY * (SAID_OF_AN_OUTAGE + 1), "repeats itself"),
            (AWAY + WAITS.format(ONE) * (SAID_OF_AN_EXECUTION + 1), "repeats itself"),
            (AWAY + BELL.format(ONE) * (SAID_OF_BELLS + 1), "repeats itself"),
        ],
        ids=["nothing", "traceback", "watching", "waiting", "bells"],
    )
    def test_a_log_that_helps_nobody_is_found(self, log: str, match: str) -> None:
        with pytest.raises(AssertionError, match=match):
            check_lines(log, "it", outages=1)
